"""Reading text to train a tokenizer on: a stream of pieces, never a whole corpus in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bottega.core.errors import UserError
from bottega.core.hashing import content_files

SUFFIXES = (".txt", ".md", ".jsonl")
TRAIN_FILE, HELDOUT_FILE = "train.jsonl", "heldout.jsonl"
MAX_LINE_BYTES = 64 * 2**20
# Plain text is handed on in pieces of about this size, cut at line ends.
PIECE_BYTES = 2**20


def find_files(data: Path) -> list[Path]:
    """The files to read: a corpus's train.jsonl, else all text files below a folder in order of name, or the file.

    Raises UserError if there are none.
    """
    if data.is_file():
        if data.suffix not in SUFFIXES:
            raise UserError(f"{data}: cannot read {data.suffix or 'this'} files", hint=_hint())
        return [data]
    if not data.is_dir():
        raise UserError(f"{data} does not exist", hint="Give a file or a folder of text.")
    if (data / TRAIN_FILE).is_file():
        return [data / TRAIN_FILE]
    # What the step's hash covers, no more: hidden files and folders are left out.
    found = [path for path in content_files(data).values() if path.suffix in SUFFIXES]
    if not found:
        raise UserError(f"{data} has no text files", hint=_hint())
    return found


def heldout_file(data: Path) -> Path | None:
    """The held-out text of a corpus folder, if there is one."""
    path = data / HELDOUT_FILE
    return path if path.is_file() else None


def read_texts(
    paths: Sequence[Path], *, max_bytes: int, progress: Callable[[int], None] | None = None
) -> Iterator[str]:
    """Pieces of text, together about `max_bytes` at most, taken evenly over the files.

    `progress` is told the bytes read. Bytes that are no UTF-8 become U+FFFD. Raises UserError
    naming file and line for a row that cannot be read.
    """
    share = min(1.0, max_bytes / max(sum(path.stat().st_size for path in paths), 1))
    seen = taken = 0
    for path in paths:
        for text, size in _rows(path) if path.suffix == ".jsonl" else _pieces(path):
            seen += size
            if progress:
                progress(size)
            if taken < seen * share:
                taken += size
                if text:
                    yield text


def _pieces(path: Path) -> Iterator[tuple[str, int]]:
    with path.open("rb") as file:
        # The line that a piece stops in is finished, but not for ever: there are files without line ends.
        while piece := file.read(PIECE_BYTES) + file.readline(PIECE_BYTES):
            yield piece.decode("utf-8", "replace"), len(piece)


def _rows(path: Path) -> Iterator[tuple[str, int]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            if len(line) == MAX_LINE_BYTES:
                raise UserError(f"{path}, line {number}: the line is longer than {MAX_LINE_BYTES // 2**20} MiB")
            if line.strip():
                yield _row_text(line, path, number), len(line)


def _row_text(line: bytes, path: Path, number: int) -> str:
    try:
        row = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: no JSON: {error}") from None
    text = row.get("text") if isinstance(row, dict) else None
    messages = row.get("messages") if isinstance(row, dict) else None
    if text is None and isinstance(messages, list):
        contents = [message.get("content") for message in messages if isinstance(message, dict)]
        text = "\n".join(content for content in contents if isinstance(content, str))
    if not isinstance(text, str):
        raise UserError(f"{path}, line {number}: a row needs a column 'text' (or 'messages')")
    # JSON can write half a surrogate pair, which is no text.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _hint() -> str:
    return f"Text is read from {', '.join(SUFFIXES)} files; `bottega data collect` makes a corpus of other kinds."
