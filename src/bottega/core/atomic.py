"""Files and folders that appear only when they are complete.

A file is written beside its place and renamed. A folder is built as `NAME.partial`, locked with
flock, and renamed into place as the last act. What an interrupted run left there is found by the
next run of the same step: a restartable verb goes on from it, any other starts anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottega.core.errors import BusyError

STEP_FILE = "step.json"
WORK_FOLDER = ".work"


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
    """`json_text` into a file."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Indented JSON, keys in the order given; what is not finite becomes null, as JSON has no word for it."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def sync_folder(folder: Path) -> None:
    """Flush every file below `folder` and its directory entries to the disk."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


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
        if not _is_at(descriptor, folder):  # its holder finished, and renamed it, just now
            raise BusyError(f"{what} {folder} was in use until now", hint="Run the same command again.")
        yield
    finally:
        os.close(descriptor)


def partial_path(out: Path) -> Path:
    """Where the folder `out` is built."""
    return out.with_name(out.name + ".partial")


@contextlib.contextmanager
def building(out: Path) -> Iterator[Path]:
    """The `.partial` folder of `out`, for this process alone; raises BusyError when another one builds it."""
    folder = partial_path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "the unfinished folder"):
        yield folder


def begin_folder(folder: Path, step_hash: str, *, restartable: bool) -> bool:
    """Make the locked `.partial` folder ready for a step; whether it holds an interrupted run of this very step.

    What another step (or the same with other settings) left there is removed, and whatever was left
    if the verb is not restartable.
    """
    if restartable and _step_hash(folder) == step_hash:
        for path in folder.glob(".*.tmp"):
            path.unlink()
        return True
    empty_folder(folder)
    write_json(folder / STEP_FILE, {"step_hash": step_hash})
    return False


def finish_folder(folder: Path, out: Path) -> None:
    """Remove what only an interrupted run would need, and rename the complete `folder` to `out`.

    An earlier artefact at `out` is replaced.
    """
    _remove(folder / WORK_FOLDER)
    (folder / STEP_FILE).unlink(missing_ok=True)
    sync_folder(folder)
    replaced = _replaced_path(out)
    _remove(replaced)
    if out.exists():
        os.replace(out, replaced)
    os.replace(folder, out)
    _sync(out.parent)
    _remove(replaced)


def clear_leftovers(out: Path) -> None:
    """Remove what interrupted runs left beside the finished `out`."""
    _remove(partial_path(out))
    _remove(_replaced_path(out))


def discard(folder: Path) -> None:
    """Remove a locked `.partial` folder that nothing can go on from."""
    _remove(folder)


def empty_folder(folder: Path) -> None:
    """Remove everything in `folder`, but not the folder (it may be locked)."""
    for path in folder.iterdir():
        _remove(path)


def _step_hash(folder: Path) -> str:
    with contextlib.suppress(ValueError, OSError, KeyError, TypeError):
        return str(json.loads((folder / STEP_FILE).read_text("utf-8"))["step_hash"])
    return ""


def _replaced_path(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def plain(value: Any) -> Any:
    """`value` as JSON knows it: NaN and infinities as None, NumPy and torch scalars as numbers, keys as text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if not isinstance(value, (str, int, float)) and callable(getattr(value, "item", None)):
        value = value.item()  # a NumPy or torch scalar
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
