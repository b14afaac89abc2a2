"""The small files of a model's or a tokenizer's folder, read within bounds: they come from anywhere.

A file that is larger than any of its kind is refused before it fills the memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError

# The largest real ones: 35 MB for a tokenizer.json (a vocabulary of 256 k), 10 MB for an index, kilobytes for the rest.
MAX_TOKENIZER_BYTES = 256 * 2**20
MAX_JSON_BYTES = 64 * 2**20
MAX_TEXT_BYTES = 2**20

ADAPTER_CONFIG = "adapter_config.json"  # PEFT's


def read_bounded(path: Path, limit: int) -> bytes:
    """The file's bytes; raises UserError if it is larger than `limit` or cannot be read."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise UserError(f"{path} is no file with content")
    try:
        with path.open("rb") as file:
            content = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)  # read(n) takes n bytes at once
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise UserError(f"{path} is larger than {limit / 2**20:.0f} MiB, which no file of its kind is")
    return content


def parse_json(content: bytes, path: Path) -> Any:
    """A JSON value; raises UserError naming the file."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None


def parse_object(content: bytes, path: Path) -> dict[str, Any]:
    """A JSON object; raises UserError naming the file."""
    value = parse_json(content, path)
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def optional_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, {} where there is no such file."""
    return parse_object(read_bounded(path, MAX_JSON_BYTES), path) if path.is_file() else {}


def read_text(path: Path) -> str:
    """A small text in UTF-8; raises UserError."""
    try:
        return read_bounded(path, MAX_TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from None


def model_folder(path: Path) -> Path:
    """The folder of the model or adapter: `path` itself, or where it is a training run's folder, what the run wrote."""
    written = {"model": "config.json", "adapter": ADAPTER_CONFIG}
    if any((path / config).exists() for config in written.values()):
        return path
    return next((path / name for name, config in written.items() if (path / name / config).is_file()), path)


# Vocabularies in other formats than tokenizer.json, in the order in which they are looked for.
VOCABULARY_FILES = (
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "tokenizer.bin",
)  # fmt: skip


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a vocabulary of a kind that is read, by names of files."""
    named = any((folder / name).is_file() for name in ("tokenizer.json", *VOCABULARY_FILES))
    return named or any(folder.glob("*.tiktoken")) or any(folder.glob("*.model"))


def chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own, or (older) a string or a list of named ones in tokenizer_config.json."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return read_text(path)
    given = config.get("chat_template")
    if isinstance(given, list):
        named = [entry for entry in given if isinstance(entry, dict) and entry.get("name") == "default"]
        given = named[-1].get("template") if named else None
    return given if isinstance(given, str) else None
