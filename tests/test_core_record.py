"""Records and content hashes: what they cover, how they migrate, what is refused."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bottega.core import record as records
from bottega.core.errors import UserError
from bottega.core.hashing import NOT_CONTENT, digest_data, digest_file, digest_path
from bottega.core.record import Record, current_hash, environment, input_entry, read_record


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"12345")
    (folder / "deep" / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"seconds": 3}\n')
    Record("train", 2, "s" * 64, {"seed": 1}, {"data": {"path": "d", "sha256": "f"}}, {"loss": float("nan")}).write(
        folder
    )
    return folder


def later(path: Path) -> None:
    """Give the file a time of change after the record's."""
    moment = time.time_ns() + 10**9
    os.utime(path, ns=(moment, moment))


def test_round_trip(artefact: Path) -> None:
    found = read_record(artefact)
    assert found is not None
    assert (found.verb, found.verb_version, found.config, found.metrics) == ("train", 2, {"seed": 1}, {"loss": None})
    assert found.content_hash == digest_path(artefact, NOT_CONTENT)
    assert found.files == {"deep/config.json": 2, "weights.bin": 5}
    before = replace(found)
    found.write(artefact)
    assert read_record(artefact) == before
    assert read_record(artefact / "deep") is None
    versions = environment()["versions"]
    assert versions["bottega"] == "0.1.0" and versions["torch"] != "not installed"


def damage(folder: Path, **changes: Any) -> None:
    path = folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_older_record_is_migrated_step_by_step(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "SCHEMA_VERSION", 3)
    lifts = {
        1: lambda data: data | {"schema_version": 2, "verb": data["verb"] + " two"},
        2: lambda data: data | {"schema_version": 3, "verb": data["verb"] + " three"},
    }
    monkeypatch.setattr(records, "MIGRATIONS", lifts)
    found = read_record(artefact)
    assert found is not None and found.verb == "train two three" and found.schema_version == 3


def test_a_newer_record_is_refused(artefact: Path) -> None:
    damage(artefact, schema_version=99)
    with pytest.raises(UserError, match="newer version") as caught:
        read_record(artefact)
    assert caught.value.hint == "Update bottega."


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 0}', '{"schema_version": "x"}', "\xff"])
def test_a_damaged_record_is_the_users_error(artefact: Path, content: str) -> None:
    (artefact / "record.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="is not a record"):
        read_record(artefact)
    damage_free = {"schema_version": 1, "verb": "x", "unknown": 1}
    (artefact / "record.json").write_text(json.dumps(damage_free))
    with pytest.raises(UserError, match="is not a record"):
        read_record(artefact)


def test_an_untouched_artefact_is_not_read_again(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_record(artefact)
    assert found is not None

    def refuse(*_: object) -> str:
        pytest.fail("read again")

    (artefact / "metrics.jsonl").write_text("")  # tells how it was made, is not content
    monkeypatch.setattr(records, "digest_path", refuse)
    assert current_hash(artefact, found) == found.content_hash


def test_a_touched_artefact_is_read_again(artefact: Path) -> None:
    found = read_record(artefact)
    assert found is not None
    weights = artefact / "weights.bin"
    later(weights)
    assert current_hash(artefact, found) == found.content_hash  # touched, but the same
    weights.write_bytes(b"12346")
    later(weights)
    assert current_hash(artefact, found) != found.content_hash
    assert input_entry(artefact)["sha256"] == current_hash(artefact, found)


def test_a_file_put_in_its_place_with_an_older_time_is_read_again(artefact: Path) -> None:
    found = read_record(artefact)
    assert found is not None
    weights = artefact / "weights.bin"
    before = weights.stat()
    time.sleep(0.02)  # the clock of the file system has ticked
    weights.write_bytes(b"54321")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` does
    assert current_hash(artefact, found) != found.content_hash


def test_a_missing_or_added_file_changes_the_hash(artefact: Path) -> None:
    found = read_record(artefact)
    assert found is not None
    (artefact / "added").touch()
    os.utime(artefact / "added", (0, 0))
    assert current_hash(artefact, found) != found.content_hash
    (artefact / "added").unlink()
    assert current_hash(artefact, found) == found.content_hash
    (artefact / "deep" / "config.json").unlink()
    assert current_hash(artefact, found) != found.content_hash


@pytest.mark.parametrize("content", ["{}", "[1]", '{"artist": "Nico"}', "no JSON at all"])
def test_a_file_of_that_name_that_is_no_record_of_ours_is_content(tmp_path: Path, content: str) -> None:
    (tmp_path / "record.json").write_text(content)
    assert input_entry(tmp_path) == {"path": str(tmp_path), "sha256": digest_path(tmp_path)}
    before = input_entry(tmp_path)
    (tmp_path / "record.json").write_text(content + " ")
    assert input_entry(tmp_path) != before


def test_a_folders_hash_covers_names_and_contents_of_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "a").write_text("text")
    assert digest_path(tmp_path / "one") == digest_path(tmp_path / "two")
    (tmp_path / "two" / ".hidden").write_text("x")
    (tmp_path / "two" / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "two" / "pipe")  # would block a reader for ever
    assert digest_path(tmp_path / "one") == digest_path(tmp_path / "two")
    (tmp_path / "two" / "sub" / "a").rename(tmp_path / "two" / "sub" / "b")
    assert digest_path(tmp_path / "one") != digest_path(tmp_path / "two")
    with pytest.raises(UserError, match="cannot read"):
        digest_path(tmp_path / "none")


def test_a_changed_file_is_hashed_anew_within_a_process(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("a")
    first = digest_file(path)
    path.write_text("bb")
    assert digest_file(path) != first
    assert digest_data({"a": 1, "b": 2}) == digest_data({"b": 2, "a": 1}) != digest_data({"a": 1, "b": 3})
