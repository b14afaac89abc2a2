"""What a file or folder of data holds, told from a sample of its rows."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bottega.core.errors import UserError
from bottega.data.formats.detect import BY_NAME, format_of
from bottega.data.rows import ROW_READERS, Row, Skipped, files_below, printable, read_file_rows, suffix_of
from bottega.data.sources import source_files
from bottega.data.spec import CONVERSATIONS_FILE, CORPUS_FILE, HELDOUT_FILE, TRAIN_FILE, Form

SAMPLE_ROWS = 64
_SAMPLED_FILES = 8
_SPLIT = re.compile(r"(?<![a-z])(train|test|valid|validation|dev|eval|heldout)(?![a-z])")


@dataclass(frozen=True)
class Detected:
    """The form of data that a source is made for, its most frequent format, and how often each was seen."""

    form: Form
    format: str
    why: str
    seen: dict[str, int]


def detect_form(source: Path) -> tuple[Form, str]:
    """The form of the data at `source` and the name of its format; raises UserError if it is none that is known."""
    found = detect(source)
    return found.form, found.format


def detect(source: Path) -> Detected:
    """What `source` holds, from its first rows; raises UserError if that cannot be told."""
    if not source.exists():
        raise UserError(f"{source} does not exist", hint="Give a file or a folder of data.")
    if (source / CORPUS_FILE).is_file():
        return Detected("text", "corpus", f"it has a {CORPUS_FILE}", {})
    rows = sample(source)
    seen = Counter(found.name if (found := format_of(row.value)) else "unknown" for row in rows)
    known = [name for name, _ in seen.most_common() if name != "unknown"]
    if known:
        found = BY_NAME[known[0]]
        return Detected(found.form, found.name, f"rows have the keys {found.keys}", dict(seen))
    if not rows and any(True for _ in (source_files(source, Skipped()) if source.is_dir() else [source])):
        return Detected("text", "text", "it is text, not rows", {})
    keys = sorted({str(key) for row in rows if isinstance(row.value, dict) for key in row.value})[:12]
    raise UserError(
        f"{source}: the format of its rows cannot be told" + (f" (keys: {', '.join(keys)})" if keys else ""),
        hint="Known: " + "; ".join(f"{format_.name} ({format_.keys})" for format_ in BY_NAME.values()) + ".",
    )


def sample(source: Path, count: int = SAMPLE_ROWS) -> list[Row]:
    """The first rows of a file, or of the first files below a folder, `count` in all."""
    skipped = Skipped()
    if source.is_dir():
        files = list(islice(files_below(source, ROW_READERS, skipped), _SAMPLED_FILES))
    else:
        files = [source] if suffix_of(source) in ROW_READERS else []
    share = -(-count // max(len(files), 1))
    rows = (row for file in files for row in islice(read_file_rows(file, printable(file.name), skipped), share))
    return list(islice(rows, count))


def splits(source: Path) -> list[str]:
    """The parts of a data set (train, test …) that the names of the files of rows below a folder speak of, sorted."""
    if not source.is_dir():
        return []
    names = (file.relative_to(source).as_posix().lower() for file in files_below(source, ROW_READERS, Skipped()))
    return sorted({part for name in names for part in _SPLIT.findall(name)})


def data_path(source: Path, form: Form, split: str = "train") -> Path:
    """The file of a corpus folder that is meant, or the data itself."""
    if not (source / CORPUS_FILE).is_file():
        return source
    if form == "text":
        return source / (TRAIN_FILE if split == "train" else HELDOUT_FILE)
    return source / CONVERSATIONS_FILE
