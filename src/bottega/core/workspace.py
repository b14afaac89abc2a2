"""The workspace: the folder in which recipes keep their steps. One writer at a time.

`workspace.json` carries the schema version; the lock is flock on the folder itself, so a
killed process leaves no stale lock behind.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from bottega.core.atomic import locked, write_json
from bottega.core.errors import UserError

MARKER = "workspace.json"
SCHEMA_VERSION = 1
_held: set[Path] = set()


def workspace_path(given: Path | None = None) -> Path:
    """`--workspace`, else BOTTEGA_WORKSPACE, else ./workspace."""
    return given or Path(os.environ.get("BOTTEGA_WORKSPACE") or "workspace")


def process_environment(workspace: Path) -> dict[str, str]:
    """The environment of a process that is to work in `workspace`, whatever this one was started with."""
    return {**os.environ, "BOTTEGA_WORKSPACE": str(workspace.resolve())}


def open_workspace(path: Path) -> Path:
    """Create the workspace if it is not there; raises UserError if a newer version wrote it."""
    marker = path / MARKER
    if not marker.is_file():
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, not a workspace folder")
        path.mkdir(parents=True, exist_ok=True)
        for left in path.glob(f".{MARKER}.*.tmp"):  # of a process that was killed before it had renamed it
            if not _is_running(int(left.name.split(".")[-2])):
                left.unlink(missing_ok=True)
        write_json(marker, {"schema_version": SCHEMA_VERSION})
        return path
    try:
        version = int(json.loads(marker.read_text("utf-8"))["schema_version"])
    except (ValueError, KeyError, TypeError, OSError):
        raise UserError(f"{marker} is not a workspace marker", hint="Restore it or choose another folder.") from None
    if version > SCHEMA_VERSION:
        raise UserError(f"{path} was written by a newer version (schema {version})", hint="Update bottega.")
    return path


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


@contextlib.contextmanager
def writing(workspace: Path) -> Iterator[None]:
    """Be the workspace's one writer; may be nested within one process."""
    key = workspace.resolve()
    if key in _held:
        yield
        return
    with locked(workspace, "the workspace"):
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)


def writing_in(path: Path) -> AbstractContextManager[None] | None:
    """The lock of the workspace that `path` lies in, or None if it lies in none."""
    for parent in path.resolve().parents:
        if (parent / MARKER).is_file():
            return writing(parent)
    return None
