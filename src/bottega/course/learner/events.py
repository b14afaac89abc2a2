"""Everything a learner did, in one SQLite file: rows are added and never changed.

Several programs may use it at a time (the page and a terminal): write-ahead logging, and a wait for the other's lock.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError

SCHEMA_VERSION = 1
BUSY_SECONDS = 10.0
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE, at TEXT NOT NULL, kind TEXT NOT NULL,
    data TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Event:
    """Something that happened: when (with its time zone), of which kind, and what."""

    at: datetime
    kind: str
    data: Mapping[str, Any]
    uuid: str
    id: int = 0


class Events:
    """The events in a file; opened for each use, so that threads and processes may share it."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if the file is none of ours, or of a newer version."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(self._open()) as base, base:
                base.executescript(_TABLES)
                base.execute("INSERT OR IGNORE INTO meta VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))
                (version,) = base.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path} cannot be used: {error}", hint="Is it the course's own file?") from None
        if int(version) > SCHEMA_VERSION:
            raise UserError(f"{path} was written by a newer version (schema {version})", hint="Update bottega.")

    def add(self, at: datetime, kind: str, data: Mapping[str, Any]) -> Event:
        """Add one event."""
        event = Event(at, kind, data, uuid.uuid4().hex)
        self.merge([event])
        return event

    def merge(self, events: Iterable[Event]) -> int:
        """Add those that are not there yet (by their uuid); returns how many were."""
        rows = [(each.uuid, each.at.isoformat(), each.kind, json.dumps(dict(each.data))) for each in events]
        with closing(self._open()) as base, base:
            before = base.total_changes
            base.executemany("INSERT OR IGNORE INTO event (uuid, at, kind, data) VALUES (?, ?, ?, ?)", rows)
            return base.total_changes - before

    def after(self, last: int) -> Iterator[Event]:
        """The events behind number `last`, in the order in which they were added."""
        with closing(self._open()) as base:
            query = "SELECT id, uuid, at, kind, data FROM event WHERE id > ? ORDER BY id"
            found = base.execute(query, (last,)).fetchall()
        for number, name, at, kind, data in found:
            yield Event(datetime.fromisoformat(at), kind, json.loads(data), name, number)

    def _open(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
        base.execute("PRAGMA journal_mode = WAL")
        return base
