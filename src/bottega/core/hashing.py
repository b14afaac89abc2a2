"""Content hashes of files and folders (SHA-256), cached by path, size and time of change.

A folder's hash covers the names and contents of its files, hidden ones apart. An artefact's hash
also leaves out what tells how it was made (record, log, card: times, machine), so that two runs
that made the same bytes have one hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError

RECORD_FILE = "record.json"
# Files that say when and how fast something was made, not what it is.
NOT_CONTENT = frozenset({RECORD_FILE, "step.json", "metrics.jsonl", "report.html", "README.md"})


def digest_bytes(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_data(value: Any) -> str:
    """SHA-256 of a JSON-able value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return digest_bytes(text.encode("utf-8", "surrogatepass"))  # names of files and JSON may hold halves of pairs


def digest_tokenizer(data: Mapping[str, Any]) -> str:
    """Hash of what a `tokenizer.json` computes: the order of its keys, padding and truncation do not count."""
    return digest_data({key: value for key, value in data.items() if key not in ("padding", "truncation")})


def digest_file(path: Path) -> str:
    """SHA-256 of a file; read once per (path, size, times of change) in a process."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return _digest_file(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=4096)
def _digest_file(path: str, size: int, mtime_ns: int, ctime_ns: int) -> str:  # noqa: ARG001 (the cache's key)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def content_files(folder: Path, left_out: frozenset[str] = frozenset()) -> dict[str, Path]:
    """Relative name → path of the files below `folder`, in order of name, without hidden ones and those `left_out`."""
    found: dict[str, Path] = {}
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root) / name
            # A broken link or a pipe has no content.
            if not name.startswith(".") and name not in left_out and path.is_file():
                found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def digest_path(path: Path, left_out: frozenset[str] = frozenset()) -> str:
    """Hash of a file's content, or of a folder's names and contents."""
    if path.is_dir():
        return digest_data({name: digest_file(file) for name, file in content_files(path, left_out).items()})
    return digest_file(path)
