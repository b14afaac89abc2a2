"""Lines added to a file that several processes may write: JSON lines that survive a killed writer and a full disk."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 1 << 16


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add `row` as one line of JSON, on the disk when this returns; several writers take turns.

    What an earlier writer left of a line when it was cut off is removed: that row was never acknowledged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lone surrogate has no UTF-8, but JSON's own escape of it is what backslashreplace writes.
    line = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _end_last_line(descriptor)
        before = os.fstat(descriptor).st_size
        try:
            while line:
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)  # a full disk leaves no half of a row
            raise
    finally:
        os.close(descriptor)
    if before == 0:
        _sync_name(path)


def open_lines(path: Path) -> BinaryIO:
    """A file to add lines to, each by one unbuffered write: in the file at once, and not cut in two by another writer.

    What a killed writer left of a line stays a line of its own, which readers pass over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab+", buffering=0)
    if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
        file.write(b"\n")
    return file


def _end_last_line(descriptor: int) -> None:
    """Leave the open file at the end of a line: a last one that lacks its newline gets it, or goes if it is no JSON."""
    end = size = os.fstat(descriptor).st_size
    tail = b""
    while end and b"\n" not in tail:
        start = max(0, end - BLOCK)
        tail, end = os.pread(descriptor, end - start, start) + tail, start
    last = tail.rpartition(b"\n")[2]
    if last:
        try:
            json.loads(last)
        except ValueError:
            os.ftruncate(descriptor, size - len(last))
        else:
            os.write(descriptor, b"\n")


def _sync_name(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
