"""Files and folders that appear only when they are complete.

A file is written beside its place and renamed. A folder is built as `NAME.partial`,
which the next run of the same step finds again (that is what makes long verbs
restartable), and renamed into place as the last act. A `.partial` folder is locked
with flock while a process builds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottega.core.errors import BusyError, UserError

STEP_FILE = "step.json"


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content`; a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_text(path: Path, content: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Flush every file below `folder` and its directory entries to the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` for this process; raises BusyError when another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"{what} {folder} is in use by another process",
                hint="Wait until it has finished, stop it, or choose another place.",
            ) from None
        yield
    finally:
        os.close(descriptor)


def partial_path(out: Path) -> Path:
    """Where the folder `out` is built."""
    return out.with_name(out.name + ".partial")


def begin_folder(out: Path, step_hash: str) -> tuple[Path, bool]:
    """The `.partial` folder of `out`, and whether it holds an interrupted run of the same step.

    What another step (or the same with other settings) left there is removed.
    """
    folder = partial_path(out)
    step = folder / STEP_FILE
    if step.is_file():
        with contextlib.suppress(ValueError, OSError, AttributeError):
            if json.loads(step.read_text("utf-8")).get("step_hash") == step_hash:
                return folder, True
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(step, {"step_hash": step_hash})
    return folder, False


def finish_folder(folder: Path, out: Path) -> None:
    """Rename the complete `folder` to `out`, replacing an earlier one."""
    (folder / STEP_FILE).unlink(missing_ok=True)
    sync_folder(folder)
    old = out.with_name(out.name + ".old")
    if old.exists():
        shutil.rmtree(old)
    if out.exists():
        os.replace(out, old)
    os.replace(folder, out)
    _sync_directory(out.parent)
    if old.exists():
        shutil.rmtree(old)


def require_free(out: Path, overwrite: bool) -> None:
    """Raise UserError if `out` exists and may not be replaced."""
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists already", hint="Choose another --out, or pass --overwrite to replace it.")


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
