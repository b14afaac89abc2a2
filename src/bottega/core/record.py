"""`record.json`: the one record that every artefact carries.

Inputs with hashes, config, seeds, environment, metrics, parents, the hash of what was
written. The model card, the report, the family tree and the skipping of finished steps are
views of it. It is written last, so a folder with a record is complete.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bottega.core.atomic import write_json
from bottega.core.errors import UserError
from bottega.core.hashing import NOT_CONTENT, RECORD_FILE, content_files, digest_path

SCHEMA_VERSION = 1
# from-version → function that lifts a record's data by one version.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


@dataclass
class Record:
    """What was done, from what, with what result. Paths are as they were given; contents count by their hashes."""

    verb: str
    verb_version: int
    step_hash: str
    config: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    metrics: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0
    content_hash: str = ""
    files: dict[str, int] = field(default_factory=dict)
    """Name → bytes of each file that the content hash covers."""
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Write into `folder`, with the hash of what stands there now."""
        self.files = _sizes(folder)
        self.content_hash = digest_path(folder, NOT_CONTENT)
        write_json(folder / RECORD_FILE, asdict(self))


def has_record(folder: Path) -> bool:
    """Whether `folder` is an artefact of ours. A file called record.json may be anybody's; ours has a step hash."""
    try:
        data = json.loads((folder / RECORD_FILE).read_text("utf-8"))
    except (ValueError, OSError, RecursionError):
        return False
    return isinstance(data, dict) and isinstance(data.get("step_hash"), str) and "schema_version" in data


def read_record(folder: Path) -> Record | None:
    """The record of the artefact at `folder`, migrated to this version; None if it has none.

    Raises UserError if the file is there but cannot be understood.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text("utf-8"))
        version = data["schema_version"]
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{path} was written by a newer version (schema {version}, this one knows {SCHEMA_VERSION})",
                hint="Update bottega.",
            )
        while version < SCHEMA_VERSION:
            data = MIGRATIONS[version](data)
            version = data["schema_version"]
        return Record(**data)
    except (ValueError, KeyError, TypeError, OSError) as error:
        hint = f"Restore it or make {folder} again; if bottega did not write this file, give it another name."
        raise UserError(f"{path} is not a record: {error!r}", hint=hint) from None


def current_hash(folder: Path, record: Record) -> str:
    """Content hash of the artefact as it is now.

    It is the record's own as long as every file has its size and none has changed since the record was
    written; else the files are read again. The time is the inode's: a copy can keep an older time of its
    content (`cp -p`), but not this one.
    """
    written = (folder / RECORD_FILE).stat().st_ctime_ns
    untouched = all(path.stat().st_ctime_ns <= written for path in content_files(folder, NOT_CONTENT).values())
    if untouched and record.files == _sizes(folder):
        return record.content_hash
    return digest_path(folder, NOT_CONTENT)


def _sizes(folder: Path) -> dict[str, int]:
    return {name: path.stat().st_size for name, path in content_files(folder, NOT_CONTENT).items()}


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Versions and machine, as far as they can be told without importing torch."""
    from importlib import metadata

    versions = {}
    for name in ("bottega", "torch", "numpy", "tokenizers", "safetensors"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {"python": sys.version.split()[0], "platform": platform.platform(), "versions": versions}


def input_entry(path: Path) -> dict[str, str]:
    """`{path, sha256}` of one input; an untouched artefact with a record is not read again."""
    record = read_record(path) if has_record(path) else None
    return {"path": str(path), "sha256": current_hash(path, record) if record else digest_path(path)}
