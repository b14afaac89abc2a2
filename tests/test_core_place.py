"""Where a verb may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottega.core import machine
from bottega.core.errors import UserError
from bottega.core.place import place_checks, require_apart, require_free
from bottega.core.plan import Cost, Plan
from bottega.core.record import Record
from bottega.core.schema import Config


@pytest.mark.parametrize("content", [None, "{}", "[]", '{"artist": "Nico", "year": 1967}', "[" * 100_000])
def test_only_an_artefact_is_ever_replaced(tmp_path: Path, content: str | None) -> None:
    """A file called record.json does not make one: a collection of music may have it too."""
    folder = tmp_path / "documents"
    require_free(folder, False)
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    if content is not None:
        (folder / "record.json").write_text(content)
    with pytest.raises(UserError, match="exists already"):
        require_free(folder, False)
    with pytest.raises(UserError, match=r"has no record\.json of bottega's, so it is not replaced"):
        require_free(folder, True)
    Record("train", 1, "s" * 64, {}, {}).write(folder)
    require_free(folder, True)


@pytest.mark.parametrize(
    ("out", "how"),
    [
        ("model", "is"),
        ("model/eval", "lies in"),
        (".", "holds"),
        ("link/eval", "lies in"),
        ("other/../model", "is"),
        ("texts/a", "is"),  # built as texts/a.partial
    ],
)
def test_nothing_is_written_over_in_or_around_what_it_is_made_from(tmp_path: Path, out: str, how: str) -> None:
    for name in ("model", "texts/a.partial"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("model")
    inputs = {"data": tmp_path / "texts" / "a.partial", "model": tmp_path / "model"}
    with pytest.raises(UserError, match=f" {how} the (model|data) .*, which is read for it"):
        require_apart(tmp_path / out, inputs)
    for free in ("model2", "model.eval", "texts/b"):
        require_apart(tmp_path / free, inputs)


@pytest.mark.parametrize(
    ("writes", "reserved", "left", "fits"),
    [(1000, 0, 0, True), (1001, 0, 0, False), (600, 400, 0, True), (600, 401, 0, False), (1300, 0, 300, True)],
)
def test_a_plan_that_writes_more_than_the_disk_has_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int, reserved: int, left: int, fits: bool
) -> None:
    monkeypatch.setattr(machine, "disk_free", lambda folder: 1000)
    if left:  # what an interrupted run left counts as room
        (tmp_path / "out.partial").mkdir()
        (tmp_path / "out.partial" / "state").write_bytes(b"x" * left)
    plan = Plan("train", Config(), tmp_path / "out", cost=Cost(bytes_written=writes))
    checks = {check.name: check for check in place_checks(plan, False, reserved)}
    assert checks["disk"].passed == fits and ("Make room" in checks["disk"].detail) != fits
    assert checks["out"].passed
    assert place_checks(Plan("eval", Config(), None, cost=Cost(bytes_written=writes)), False, reserved) == []


def test_what_the_system_does_not_tell_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "disk_free", lambda folder: None)
    plan = Plan("train", Config(), tmp_path / "out", cost=Cost(bytes_written=1))
    assert [check.name for check in place_checks(plan, False)] == ["out"]
