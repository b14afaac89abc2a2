"""Documents from files and folders, one at a time.

Text, Markdown, HTML, JSON, JSONL (also .gz) and parquet. Whatever cannot be read is counted
with its reason and passed over: one bad file must not end an hour's work, and must not go
unnoticed either.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from bottega.core.errors import UserError
from bottega.core.hashing import RECORD_FILE
from bottega.core.view import human_bytes
from bottega.data.convert import Message, to_messages
from bottega.data.markup import html_to_text

PIECE = 2**20
"""Characters after which a long text is cut, at a blank line where there is one."""
MAX_WHOLE = 2**28
"""Bytes of the largest file of a format that has to be read as a whole (HTML, JSON)."""
MAX_ROW = 2**24
"""Bytes of the longest line of a JSONL file."""
_EXAMPLES = 5


@dataclass(frozen=True)
class Document:
    """One text. `id` is unique in its source.

    A row that holds a conversation has its `messages` too, and the `format` they were told from.
    """

    id: str
    text: str
    source: str
    messages: list[Message] | None = None
    format: str = ""


class Skipped:
    """What could not be used, by reason, with the first few names of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Count one."""
        self.counts[reason] += 1
        names = self.examples.setdefault(reason, [])
        if len(names) < _EXAMPLES:
            names.append(_printable(name))

    def as_data(self) -> dict[str, dict[str, Any]]:
        """reason → {count, examples}, the most frequent first."""
        return {reason: {"count": n, "examples": self.examples[reason]} for reason, n in self.counts.most_common()}


def read_documents(path: Path, skipped: Skipped) -> Iterator[Document]:
    """The documents of a file, or of all files below a folder in order of name.

    Ids are relative names, with `#number` for rows and pieces. Links to folders are not
    followed, so a loop of links cannot catch us. Raises UserError if `path` does not exist.
    """
    if path.is_dir():
        for file in source_files(path, skipped):
            yield from _read_file(file, _printable(file.relative_to(path).as_posix()), skipped)
    elif path.is_file():
        # A file that the user names is text, whatever its suffix.
        yield from _read_file(path, _printable(path.name), skipped, READERS.get(_suffix(path), _read_text))
    else:
        raise UserError(f"{path} does not exist or is not a regular file", hint="Give a file or a folder of documents.")


def source_files(folder: Path, skipped: Skipped) -> Iterator[Path]:
    """The files below `folder` of a kind that can be read; hidden ones and records are left out."""
    for root, folders, names in os.walk(folder, onerror=lambda error: skipped.add("cannot be opened", str(error))):
        for name in folders:
            if Path(root, name).is_symlink():
                skipped.add("link to a folder, not followed", name)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(root, name)
            if name.startswith(".") or name == RECORD_FILE:
                continue
            if not file.is_file():
                skipped.add("not a regular file", name)
            elif _suffix(file) in READERS:
                yield file
            else:
                skipped.add(f"unknown kind {_suffix(file) or '(no suffix)'}", name)


def is_rows(name: str) -> bool:
    """Whether a file of this name holds documents of their own as rows."""
    return _suffix(Path(name)) in (".jsonl", ".ndjson", ".json", ".parquet")


def _printable(name: str) -> str:
    """A file's name may be bytes that are no UTF-8, which Python holds as halves of surrogate pairs."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def _read_file(path: Path, name: str, skipped: Skipped, reader: Reader | None = None) -> Iterator[Document]:
    try:
        empty = True
        for document in (reader or READERS[_suffix(path)])(path, name, skipped):
            if document.text.strip():
                empty = False
                yield document
        if empty:
            skipped.add("nothing in it", name)
    except UnicodeDecodeError:
        skipped.add("not UTF-8 text (from there on it was left out)", name)
    except (OSError, EOFError, zlib.error) as error:
        skipped.add(f"cannot be read: {getattr(error, 'strerror', None) or error}", name)
    except RecursionError:
        skipped.add("nested too deeply", name)


def _read_text(path: Path, name: str, skipped: Skipped) -> Iterator[Document]:
    with _open(path) as file:
        head = file.read(8192)
        encoding = _encoding(head)
        if encoding == "utf-8-sig" and b"\0" in head:
            skipped.add("binary", name)
            return
        file.seek(0)
        # Reads \r\n and \r as line ends too.
        for number, text in enumerate(_pieces(io.TextIOWrapper(file, encoding))):
            yield Document(f"{name}#{number}" if number else name, text, name)


def _encoding(head: bytes) -> str:
    """UTF-16 and UTF-32 only where a byte order mark says so."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _pieces(file: IO[str]) -> Iterator[str]:
    """The text in pieces of about PIECE characters, cut after a blank line, else a line, else anywhere."""
    rest = ""
    while True:
        block = file.read(PIECE)
        rest += block
        if not block:
            if rest:
                yield rest
            return
        while len(rest) >= 2 * PIECE:
            cut = max(rest.rfind("\n\n", PIECE // 2, PIECE) + 2, 2)
            if cut == 2:
                cut = rest.rfind("\n", PIECE // 2, PIECE) + 1 or PIECE
            yield rest[:cut]
            rest = rest[cut:]


def _read_whole(path: Path, name: str, skipped: Skipped) -> str | None:
    """The text of a file of bounded size."""
    with _open(path) as file:
        content = file.read(MAX_WHOLE + 1)
    if len(content) > MAX_WHOLE:
        skipped.add(f"larger than {human_bytes(MAX_WHOLE)}", name)
        return None
    return content.decode(_encoding(content))


def _read_html(path: Path, name: str, skipped: Skipped) -> Iterator[Document]:
    html = _read_whole(path, name, skipped)
    if html is not None:
        yield Document(name, html_to_text(html), name)


def _read_json(path: Path, name: str, skipped: Skipped) -> Iterator[Document]:
    text = _read_whole(path, name, skipped)
    if text is None:
        return
    try:
        data = json.loads(text)
    except ValueError:
        skipped.add("broken JSON", name)
        return
    yield from _rows(data if isinstance(data, list) else [data], name, skipped)


def _read_jsonl(path: Path, name: str, skipped: Skipped) -> Iterator[Document]:
    def rows() -> Iterator[Any]:
        with _open(path) as file:
            number = 0
            while line := file.readline(MAX_ROW):
                number += 1
                if len(line) == MAX_ROW and not line.endswith(b"\n"):
                    while len(file.readline(MAX_ROW)) == MAX_ROW:
                        pass
                    skipped.add(f"row longer than {human_bytes(MAX_ROW)}", f"{name}:{number}")
                elif line.strip():
                    try:
                        yield json.loads(line.decode("utf-8-sig"))
                    except (ValueError, RecursionError):
                        skipped.add("broken JSON row", f"{name}:{number}")

    yield from _rows(rows(), name, skipped)


def _read_parquet(path: Path, name: str, skipped: Skipped) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from _rows(batch.to_pylist(), name, skipped)
    except (pa.ArrowException, ValueError) as error:
        skipped.add(f"broken parquet ({type(error).__name__})", name)


def _rows(rows: Any, name: str, skipped: Skipped) -> Iterator[Document]:
    for number, row in enumerate(rows):
        id_ = f"{name}#{number}"
        text = row if isinstance(row, str) else row.get("text") if isinstance(row, dict) else None
        found = to_messages(row)
        if found is None and not isinstance(text, str):
            skipped.add("row without a text or a conversation", id_)
            continue
        if not isinstance(text, str):
            text = "\n\n".join(message["content"] for message in found.messages) if found else ""
        # Half of a surrogate pair is valid JSON, but no text.
        text = text.encode("utf-8", "replace").decode("utf-8")
        yield Document(id_, text, name, found.messages if found else None, found.format if found else "")


Reader = Callable[[Path, str, Skipped], Iterator[Document]]
READERS: dict[str, Reader] = {
    ".txt": _read_text,
    ".text": _read_text,
    ".md": _read_text,
    ".markdown": _read_text,
    ".rst": _read_text,
    ".html": _read_html,
    ".htm": _read_html,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def write_row(file: IO[str], row: dict[str, Any]) -> None:
    """One line of JSONL."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
