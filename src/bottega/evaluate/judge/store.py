"""What judges said before: an append-only file for each judge, so that no judgement is paid for twice.

A line is in the file as soon as the judge has spoken, so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from bottega.clients.chat import Reply
from bottega.core.append import open_lines
from bottega.core.hashing import digest_data


@dataclass(frozen=True)
class Said:
    """A judge's words, and when they came (seconds since 1970)."""

    reply: Reply
    time: float


class Store:
    """The words of one judge by key. With `path` None nothing outlives this run. A context manager."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._said = _read(path) if path is not None and path.is_file() else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def get(self, key: str) -> Said | None:
        """What was said under `key`."""
        return self._said.get(key)

    def put(self, key: str, reply: Reply) -> Said:
        """Keep it; it is in the file when this returns, also if the process is killed then."""
        said = self._said[key] = Said(reply, time.time())
        if self._path is not None:
            if self._file is None:
                self._file = open_lines(self._path)
            row = {"key": key, "time": said.time, **asdict(reply)}
            self._file.write(json.dumps(row).encode() + b"\n")
        return said


def key_of(messages: Sequence[Mapping[str, str]], decoding: Mapping[str, Any]) -> str:
    """The name under which a judge's answer to these messages is kept."""
    return digest_data([list(messages), decoding])


def _read(path: Path) -> dict[str, Said]:
    """What is there; a line that was cut off counts as not written."""
    found = {}
    for line in path.read_bytes().split(b"\n"):
        with suppress(ValueError, TypeError, KeyError):
            row = json.loads(line)
            key, moment = row.pop("key"), float(row.pop("time"))
            found[key] = Said(Reply(**row), moment)
    return found
