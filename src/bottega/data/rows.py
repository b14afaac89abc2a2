"""Rows of JSON, JSONL, CSV and parquet files (also .gz), one at a time.

Sizes are bounded, and whatever cannot be read is counted with its reason and passed over: one bad
file must not end an hour's work, and must not go unnoticed either.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from bottega.core.errors import UserError
from bottega.core.hashing import RECORD_FILE
from bottega.core.view import human_bytes
from bottega.data.formats.cells import from_cells
from bottega.data.json_array import array_items

MAX_WHOLE = 2**28
"""Bytes of the largest file of a format that has to be read as a whole (HTML, JSON)."""
MAX_ROW = 2**24
"""Bytes of the longest line of a JSONL file, and of the longest cell of a CSV file."""
_EXAMPLES = 5
_PIECE = 2**20


@dataclass(frozen=True)
class Row:
    """A value of a file of rows. `place` is the file's relative name and `#number`; `size` about its bytes."""

    value: Any
    place: str
    source: str
    size: int


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
            names.append(printable(name))

    def as_data(self) -> dict[str, dict[str, Any]]:
        """reason → {count, examples}, the most frequent first."""
        return {reason: {"count": n, "examples": self.examples[reason]} for reason, n in self.counts.most_common()}


def read_rows(path: Path, skipped: Skipped) -> Iterator[Row]:
    """The rows of a file, or of all files of rows below a folder in order of name.

    Places are relative names with `#number`. Raises UserError if `path` does not exist, or is a file of another kind.
    """
    if path.is_dir():
        for file in files_below(path, ROW_READERS, skipped):
            yield from read_file_rows(file, printable(file.relative_to(path).as_posix()), skipped)
    elif not path.is_file():
        raise UserError(f"{path} does not exist or is not a regular file", hint="Give a file or a folder of rows.")
    elif suffix_of(path) not in ROW_READERS:
        raise UserError(
            f"{path} is no file of rows: its name ends with {suffix_of(path) or 'nothing'!r}",
            hint=f"Rows are read from {', '.join(ROW_READERS)}, each also as .gz.",
        )
    else:
        yield from read_file_rows(path, printable(path.name), skipped)


def read_file_rows(path: Path, name: str, skipped: Skipped) -> Iterator[Row]:
    """The rows of one file, which is called `name` in places; what cannot be read is counted in `skipped`."""
    with reading(name, skipped):
        number = -1
        for number, (value, size) in enumerate(ROW_READERS[suffix_of(path)](path, name, skipped)):
            yield Row(value, f"{name}#{number}", name, size)
        if number < 0:
            skipped.add("nothing in it", name)


@contextlib.contextmanager
def reading(name: str, skipped: Skipped) -> Iterator[None]:
    """Count what goes wrong inside with the file `name`, and go on."""
    try:
        yield
    except UnicodeDecodeError:
        skipped.add("not UTF-8 text (from there on it was left out)", name)
    except (OSError, EOFError, zlib.error) as error:
        skipped.add(f"cannot be read: {getattr(error, 'strerror', None) or error}", name)
    except RecursionError:
        skipped.add("nested too deeply", name)


def files_below(folder: Path, suffixes: Container[str], skipped: Skipped) -> Iterator[Path]:
    """The files below `folder` with one of `suffixes`, in order of name; hidden ones and records are left out."""
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
            elif suffix_of(file) in suffixes:
                yield file
            else:
                skipped.add(f"unknown kind {suffix_of(file) or '(no suffix)'}", name)


def printable(name: str) -> str:
    """A name that can be shown: a file's may be bytes that are no UTF-8, which Python holds as halves of pairs."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def suffix_of(path: Path) -> str:
    """The suffix in lower case, without a .gz behind it."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def open_file(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked if it is a .gz."""
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def encoding_of(head: bytes) -> str:
    """UTF-16 and UTF-32 only where a byte order mark says so."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def read_whole(path: Path, name: str, skipped: Skipped) -> str | None:
    """The text of a file of bounded size."""
    with open_file(path) as file:
        content = file.read(MAX_WHOLE + 1)
    if len(content) > MAX_WHOLE:
        skipped.add(f"larger than {human_bytes(MAX_WHOLE)}", name)
        return None
    return content.decode(encoding_of(content))


def json_rows(path: Path, name: str, skipped: Skipped) -> Iterator[Sized]:
    """The items of a JSON array, of any length, or the one value."""
    with open_file(path) as file:
        encoding = encoding_of(file.read(8192))
        file.seek(0)
        text = io.TextIOWrapper(file, encoding)
        while (character := text.read(1)).isspace():
            pass
        if character != "[":
            yield from _one_value(path, name, skipped)
            return
        try:
            yield from array_items(text, piece=_PIECE, longest=MAX_ROW)
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            skipped.add(f"broken JSON ({error}; from there on it was left out)", name)


def _one_value(path: Path, name: str, skipped: Skipped) -> Iterator[Sized]:
    text = read_whole(path, name, skipped)
    if text is None:
        return
    try:
        yield json.loads(text), len(text)
    except ValueError:
        skipped.add("broken JSON", name)


def jsonl_rows(path: Path, name: str, skipped: Skipped) -> Iterator[Sized]:
    """A value of each line."""
    with open_file(path) as file:
        number = 0
        while line := file.readline(MAX_ROW):
            number += 1
            if len(line) == MAX_ROW and not line.endswith(b"\n"):
                while len(file.readline(MAX_ROW)) == MAX_ROW:
                    pass
                skipped.add(f"row longer than {human_bytes(MAX_ROW)}", f"{name}:{number}")
            elif line.strip():
                try:
                    yield json.loads(line.decode("utf-8-sig")), len(line)
                except (ValueError, RecursionError):
                    skipped.add("broken JSON row", f"{name}:{number}")


def csv_rows(path: Path, name: str, skipped: Skipped) -> Iterator[Sized]:
    """The lines of a CSV file (.tsv: by tabs) as objects by its header; every value is a text."""
    csv.field_size_limit(MAX_ROW)
    with open_file(path) as file:
        head = file.read(8192)
        file.seek(0)
        lines = _bounded_lines(io.TextIOWrapper(file, encoding_of(head), newline=""))
        reader = csv.DictReader(lines, delimiter="\t" if suffix_of(path) == ".tsv" else ",", strict=True)
        try:
            for row in reader:
                cells = {key: value for key, value in row.items() if key is not None and value is not None}
                if len(cells) != len(row):
                    skipped.add("row with more or fewer cells than the header", f"{name}:{reader.line_num}")
                else:
                    yield from_cells(cells), sum(map(len, cells.values())) + len(cells)
        except csv.Error as error:
            skipped.add(f"broken CSV ({error}; from there on it was left out)", f"{name}:{reader.line_num}")


def _bounded_lines(file: IO[str]) -> Iterator[str]:
    while line := file.readline(MAX_ROW):
        if len(line) == MAX_ROW and not line.endswith("\n"):
            raise csv.Error(f"line longer than {human_bytes(MAX_ROW)}")
        yield line


def parquet_rows(path: Path, name: str, skipped: Skipped) -> Iterator[Sized]:
    """The rows of a parquet file, some at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            size = path.stat().st_size // max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=256):
                yield from ((row, size) for row in batch.to_pylist())
    except (pa.ArrowException, ValueError) as error:
        skipped.add(f"broken parquet ({type(error).__name__})", name)


Sized = tuple[Any, int]
"""A row and about its bytes in the file."""
ROW_READERS: dict[str, Callable[[Path, str, Skipped], Iterator[Sized]]] = {
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
