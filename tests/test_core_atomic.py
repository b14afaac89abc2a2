"""What is written appears whole or not at all, for one writer at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bottega.core import atomic
from bottega.core.errors import BusyError, UserError
from bottega.core.workspace import MARKER, open_workspace, workspace_path, writing, writing_in

# Holds a lock and waits for a line on standard input.
HOLDER = """
import sys
from pathlib import Path
from bottega.core.atomic import building
from bottega.core.workspace import writing
with (writing if sys.argv[1] == "workspace" else building)(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(kind: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, kind, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_json_has_no_word_for_what_is_not_finite(tmp_path: Path) -> None:
    value = {"a": float("nan"), "b": [float("inf"), 1.5, np.float32("nan"), np.float32(0.5), np.int64(3)], 4: Path("x")}
    atomic.write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, 1.5, None, 0.5, 3], "4": "x"}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    atomic.write_json(path, 1)
    with pytest.raises(TypeError):
        atomic.write_bytes(path, "not bytes")  # pyright: ignore[reportArgumentType]
    assert path.read_text() == "1\n"


def test_a_restartable_step_finds_what_it_left_and_another_does_not(tmp_path: Path) -> None:
    out = tmp_path / "model"
    with atomic.building(out) as folder:
        assert atomic.begin_folder(folder, "one", restartable=True) is False
        (folder / "state").write_text("half")
        (folder / ".x.json.77.tmp").write_text("cut")
    with atomic.building(out) as folder:
        assert atomic.begin_folder(folder, "one", restartable=True) is True
        assert sorted(path.name for path in folder.iterdir()) == ["state", "step.json"]
        assert atomic.begin_folder(folder, "one", restartable=False) is False
        assert sorted(path.name for path in folder.iterdir()) == ["step.json"]
        (folder / "state").mkdir()
        assert atomic.begin_folder(folder, "two", restartable=True) is False
        assert not (folder / "state").exists()


def test_finishing_replaces_the_earlier_and_leaves_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "model"
    (tmp_path / "model.old").mkdir()  # a name that people use
    for content in ("first", "second"):
        with atomic.building(out) as folder:
            atomic.begin_folder(folder, content, restartable=False)
            (folder / "weights").write_text(content)
            atomic.finish_folder(folder, out)
        assert (out / "weights").read_text() == content
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.old"]
        assert [path.name for path in out.iterdir()] == ["weights"]


def test_two_processes_do_not_build_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "model"
    holder = hold("folder", out)
    (atomic.partial_path(out) / "state").write_text("hours of work")
    with pytest.raises(BusyError, match="in use by another process") as caught, atomic.building(out):
        pytest.fail("it was not locked")
    assert caught.value.exit_status == 2 and caught.value.hint
    assert (atomic.partial_path(out) / "state").exists()
    holder.kill()
    holder.wait()
    with atomic.building(out) as folder:  # a killed process leaves no stale lock
        assert (folder / "state").exists()


def test_a_folder_that_was_finished_while_its_lock_was_awaited_is_not_ours(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "model"
    flock = atomic.fcntl.flock

    def finish_first(descriptor: int, flags: int) -> None:
        os.replace(atomic.partial_path(out), out)
        flock(descriptor, flags)

    monkeypatch.setattr(atomic.fcntl, "flock", finish_first)
    with pytest.raises(BusyError, match="until now"), atomic.building(out):
        pytest.fail("this is somebody else's finished folder")


def test_a_marker_that_was_never_finished_is_cleared_away(tmp_path: Path) -> None:
    """Killed between writing the marker and renaming it; one that is just being written stays."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left, other = (tmp_path / f".{MARKER}.{process}.tmp" for process in (gone.pid, os.getppid()))
    for path in (left, other):
        path.write_text("{")
    open_workspace(tmp_path)
    assert not left.exists() and other.exists() and (tmp_path / MARKER).is_file()


def test_a_workspace_has_one_writer_and_its_own_process_may_nest(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "w")
    with writing(workspace), writing(workspace):
        pass
    inside = writing_in(workspace / "recipe" / "step")
    assert inside is not None and writing_in(tmp_path / "elsewhere") is None
    holder = hold("workspace", workspace)
    with pytest.raises(BusyError, match=r"the workspace .* is in use by another process"), inside:
        pytest.fail("it was not locked")
    holder.communicate("\n")
    with writing(workspace):
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"schema_version": 99}', "newer version"), ("{", "not a workspace marker"), ("[]", "not a workspace marker")],
)
def test_a_workspace_of_a_newer_version_or_damaged_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / MARKER).write_text(content)
    with pytest.raises(UserError, match=message):
        open_workspace(tmp_path)


def test_where_the_workspace_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BOTTEGA_WORKSPACE", raising=False)
    assert workspace_path() == Path("workspace")
    monkeypatch.setenv("BOTTEGA_WORKSPACE", "")
    assert workspace_path() == Path("workspace")
    monkeypatch.setenv("BOTTEGA_WORKSPACE", "/somewhere")
    assert workspace_path() == Path("/somewhere") and workspace_path(tmp_path) == tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        open_workspace(tmp_path / "file")
