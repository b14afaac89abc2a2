"""`hub list` and `hub rm`: what lies in the cache, and that only what was meant is removed."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import Bottega, Hub, Repo, make_model, read_folder, running_hub, settings


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running_hub() as server:
        files = make_model(tmp_path_factory.mktemp("model"))
        server.repos["org/one"] = Repo(files)
        server.repos["org/two"] = Repo({**files, "config.json": b'{"model_type": "flamingo-9"}'})
        yield server


@pytest.fixture(scope="module")
def process(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottega]:
    process = Bottega(hub.url, tmp_path_factory.mktemp("home"))
    yield process
    process.close()


@pytest.fixture
def bottega(hub: Hub, process: Bottega) -> Bottega:
    """With org/one in the cache at two commits (main and v1), and org/two."""
    shutil.rmtree(process.cache, ignore_errors=True)
    one = hub.repos["org/one"]
    one.files["NOTICE"] = b"first"
    one.branches = {"v1": one.sha()}
    assert process("hub", "pull", "org/one@v1", "-q").status == 0
    one.files["NOTICE"] = b"second, longer"
    for name in ("org/one", "org/two"):
        assert process("hub", "pull", name, "-q").status == 0
    return process


def one(bottega: Bottega) -> Path:
    return bottega.cache / "models--org--one"


def disk(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_listing(bottega: Bottega, hub: Hub):
    (bottega.cache / "datasets--org--text" / "snapshots").mkdir(parents=True)
    (bottega.cache / "models--org--file").write_text("no folder")
    data = bottega("hub", "list", "--json").json()
    first, second = data["models"]
    assert (first["repository"], second["repository"]) == ("org/one", "org/two")
    assert first["bytes"] == disk(one(bottega)) and data["bytes"] == first["bytes"] + second["bytes"]
    assert first["last_used"].startswith("20") and first["unfinished_bytes"] == 0
    by_ref = {revision["refs"][0]: revision for revision in first["revisions"]}
    here = hub.repos["org/one"]
    assert set(by_ref) == {"main", "v1"} and by_ref["main"]["commit"] == here.sha()
    assert by_ref["main"]["bytes"] == sum(map(len, here.files.values()))
    described = {key: by_ref["v1"][key] for key in ("complete", "licence", "supported")}
    assert described == {"complete": True, "licence": "apache-2.0", "supported": True}
    assert second["revisions"][0]["supported"] is False
    shown = bottega("hub", "list").out
    assert "v1, " in shown and "complete, not supported" in shown and "apache-2.0" in shown and "2 models" in shown


def test_what_is_not_whole(bottega: Bottega, hub: Hub):
    (one(bottega) / "snapshots" / hub.repos["org/one"].sha() / "model.safetensors").resolve().unlink()
    (one(bottega) / "blobs" / ("0" * 64 + ".incomplete")).write_bytes(b"12345")
    (bottega.cache / "models--org--begun" / "blobs").mkdir(parents=True)
    data = bottega("hub", "list", "--json").json()
    begun, first, _ = data["models"]
    assert begun["repository"] == "org/begun" and begun["revisions"] == [] and begun["last_used"] is None
    assert first["unfinished_bytes"] == 5 and {revision["complete"] for revision in first["revisions"]} == {False}
    shown = bottega("hub", "list").out
    assert "incomplete" in shown and "pull it again to go on" in shown


def test_an_empty_cache(bottega: Bottega, tmp_path: Path):
    for folder in (tmp_path / "nothing", tmp_path):
        done = bottega("hub", "list", "--cache", folder)
        assert (done.status, done.out.split(" in ")[0]) == (0, "no models")
    assert bottega("hub", "list", "--cache", bottega.cache, "--json").json()["cache"] == str(bottega.cache)


def test_removing_a_model(bottega: Bottega):
    size = disk(one(bottega))
    plan = bottega("hub", "rm", "org/one", "--plan")
    assert plan.status == 0 and "org/one and all its revisions" in plan.out and one(bottega).is_dir()
    data = bottega("hub", "rm", "org/one", "--yes", "--json").json()
    assert data == {"repository": "org/one", "revision": None, "removed": True, "bytes": size}
    assert not one(bottega).exists() and (bottega.cache / "models--org--two").is_dir()


@pytest.mark.parametrize("by", ["v1", "main", "commit", "short"])
def test_removing_one_revision(bottega: Bottega, hub: Hub, by: str):
    here = hub.repos["org/one"]
    commit = {"main": here.sha()}.get(by, here.branches["v1"])
    revision = {"commit": commit, "short": commit[:7]}.get(by, by)
    other = here.branches["v1"] if by == "main" else here.sha()
    before = read_folder(one(bottega) / "snapshots" / other)
    size = disk(one(bottega))
    data = bottega("hub", "rm", f"org/one@{revision}", "--yes", "--json").json()
    assert data["revision"] == commit and data["bytes"] == len(b"second, longer" if by == "main" else b"first")
    assert size - disk(one(bottega)) - data["bytes"] == 40  # the ref
    assert read_folder(one(bottega) / "snapshots" / other) == before
    assert not (one(bottega) / "snapshots" / commit).exists()
    assert [path.name for path in (one(bottega) / "refs").iterdir()] == ["v1" if by == "main" else "main"]
    last = bottega("hub", "rm", f"org/one@{other}", "--yes", "--json").json()
    assert last["revision"] is None and not one(bottega).exists()  # with its last revision the model is gone


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/onne", ["there is no model 'org/onne'", "Did you mean 'org/one'?"]),
        ("one", ["there is no model 'one'", "Did you mean 'org/one'?"]),
        ("org/one@mian", ["no such revision as 'mian'", "Did you mean 'main'?"]),
        ("org/one@a", ["no such revision as 'a'"]),
        ("org/one@../..", ["no such revision"]),
        ("../home", ["there is no model '../home'"]),
    ],
)
def test_names_that_are_not_there(bottega: Bottega, name: str, said: list[str]):
    before = sorted(bottega.cache.rglob("*"))
    done = bottega("hub", "rm", name, "--yes")
    assert done.status == 2 and all(words in done.err for words in said), done
    assert sorted(bottega.cache.rglob("*")) == before


def test_it_asks_first(bottega: Bottega, hub: Hub):
    done = bottega("hub", "rm", "org/one")
    assert done.status == 2 and "Pass --yes" in done.err and one(bottega).is_dir()
    for answer, left in (("\n", True), ("no\n", True), ("y\n", False)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "bottega", "hub", "rm", "org/one"], stdin=theirs, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=settings(hub.url, bottega.home), text=True,
        )  # fmt: skip
        os.write(ours, answer.encode())
        out, err = process.communicate(timeout=30)
        os.close(ours)
        os.close(theirs)
        assert process.returncode == 0 and "[y/N]" in err
        assert ("nothing was removed" in out) == left == one(bottega).is_dir()


def test_links_that_lead_out_of_the_cache_remove_nothing_there(bottega: Bottega, hub: Hub, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    snapshot = one(bottega) / "snapshots" / hub.repos["org/one"].branches["v1"]
    (snapshot / "stolen.json").symlink_to(precious / "file")
    (snapshot / "folder").symlink_to(precious)
    (one(bottega) / "blobs" / "link").symlink_to(precious / "file")
    assert bottega("hub", "list").status == 0
    assert bottega("hub", "rm", "org/one@v1", "--yes").status == 0
    assert bottega("hub", "rm", "org/one", "--yes").status == 0
    assert (precious / "file").read_text() == "mine" and not one(bottega).exists()


def test_a_model_in_use_is_not_removed(bottega: Bottega):
    from test_core_atomic import hold

    holder = hold("workspace", one(bottega))
    try:
        done = bottega("hub", "rm", "org/one", "--yes")
        assert done.status == 2 and "in use by another process" in done.err and one(bottega).is_dir()
    finally:
        holder.communicate("\n")
