"""Documents from files and folders, one at a time.

Text, Markdown, HTML, and files of rows (`rows`): JSON, JSONL, CSV, parquet; also .gz. Whatever
cannot be read is counted with its reason and passed over.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bottega.core.errors import UserError
from bottega.data.convert import Message, text_of, to_messages
from bottega.data.markup import html_to_text
from bottega.data.rows import (
    ROW_READERS,
    Skipped,
    encoding_of,
    files_below,
    open_file,
    printable,
    read_whole,
    reading,
    suffix_of,
)

__all__ = ["PIECE", "READERS", "Document", "Skipped", "is_rows", "read_documents", "source_files", "write_row"]

PIECE = 2**20
"""Characters after which a long text is cut, at a blank line where there is one."""


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


def read_documents(path: Path, skipped: Skipped) -> Iterator[Document]:
    """The documents of a file, or of all files below a folder in order of name.

    Ids are relative names, with `#number` for rows and pieces. Links to folders are not
    followed, so a loop of links cannot catch us. Raises UserError if `path` does not exist.
    """
    if path.is_dir():
        for file in source_files(path, skipped):
            yield from _read_file(file, printable(file.relative_to(path).as_posix()), skipped)
    elif path.is_file():
        # A file that the user names is text, whatever its suffix.
        yield from _read_file(path, printable(path.name), skipped, READERS.get(suffix_of(path), _read_text))
    else:
        raise UserError(f"{path} does not exist or is not a regular file", hint="Give a file or a folder of documents.")


def source_files(folder: Path, skipped: Skipped) -> Iterator[Path]:
    """The files below `folder` of a kind that can be read; hidden ones and records are left out."""
    return files_below(folder, READERS, skipped)


def is_rows(name: str) -> bool:
    """Whether a file of this name holds documents of their own as rows."""
    return suffix_of(Path(name)) in ROW_READERS


def _read_file(path: Path, name: str, skipped: Skipped, reader: Reader | None = None) -> Iterator[Document]:
    with reading(name, skipped):
        empty = True
        for document in (reader or READERS[suffix_of(path)])(path, name, skipped):
            if document.text.strip():
                empty = False
                yield document
        if empty:
            skipped.add("nothing in it", name)


def _read_text(path: Path, name: str, skipped: Skipped) -> Iterator[Document]:
    with open_file(path) as file:
        head = file.read(8192)
        encoding = encoding_of(head)
        if encoding == "utf-8-sig" and b"\0" in head:
            skipped.add("binary", name)
            return
        file.seek(0)
        # Reads \r\n and \r as line ends too.
        for number, text in enumerate(_pieces(io.TextIOWrapper(file, encoding))):
            yield Document(f"{name}#{number}" if number else name, text, name)


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


def _read_html(path: Path, name: str, skipped: Skipped) -> Iterator[Document]:
    html = read_whole(path, name, skipped)
    if html is not None:
        yield Document(name, html_to_text(html), name)


def _read_rows(path: Path, name: str, skipped: Skipped) -> Iterator[Document]:
    for number, (row, _) in enumerate(ROW_READERS[suffix_of(path)](path, name, skipped)):
        id_ = f"{name}#{number}"
        text = row if isinstance(row, str) else row.get("text") if isinstance(row, dict) else None
        found = to_messages(row)
        if found is None and not isinstance(text, str):
            skipped.add("row without a text or a conversation", id_)
            continue
        if not isinstance(text, str):
            text = text_of(found.messages) if found else ""
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
    **dict.fromkeys(ROW_READERS, _read_rows),
}


def write_row(file: IO[str], row: dict[str, Any]) -> None:
    """One line of JSONL."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
