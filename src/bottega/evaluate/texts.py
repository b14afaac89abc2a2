"""Reading what is measured: documents and multiple-choice questions. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.core.errors import UserError
from bottega.data.spec import HELDOUT_FILE
from bottega.data.split import draw

if TYPE_CHECKING:
    from bottega.tokenizer.tokenizer import Tokenizer

# Documents are encoded in batches of about this many characters.
BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Document:
    """One document: its tokens, without any prefix, and its UTF-8 bytes."""

    ids: list[int]
    content: bytes


@dataclass
class Documents:
    """The documents that are scored, and what there is to say about how they came to be these."""

    each: list[Document] = field(default_factory=list)
    whole: bool = True
    """False if a budget left documents out, or cut the only one."""
    lossy: int = 0
    """Documents that the tokenizer cannot give back exactly (their bits per byte are too low)."""

    @property
    def tokens(self) -> int:
        """Tokens of all documents."""
        return sum(len(document.ids) for document in self.each)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of all documents."""
        return sum(len(document.content) for document in self.each)


@dataclass(frozen=True)
class Sample:
    """Documents drawn from all of a text, and what they were drawn from."""

    documents: Documents
    of_documents: int
    of_tokens: int
    passed_over: int
    """Drawn documents that were left out because they did not fit what was left of the budget."""
    cut: bool = False
    """Whether no document fitted, so that only the beginning of one is there."""

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        counts = {"of_documents": self.of_documents, "of_tokens": self.of_tokens, "passed_over": self.passed_over}
        return {"whole": self.documents.whole, "cut": self.cut, **counts, "lossy_documents": self.documents.lossy}


@dataclass(frozen=True)
class Question:
    """One multiple-choice question; `answer` is the index of the right choice."""

    id: str
    group: str
    kind: str
    question: str
    choices: tuple[str, ...]
    answer: int


def text_file(path: Path, part: str = HELDOUT_FILE) -> Path:
    """The file that is read for `path`: itself, or `part` of a corpus folder; raises UserError if it is missing."""
    file = path / part if path.is_dir() else path
    if not file.is_file():
        missing = f"{path} has no {part}" if path.is_dir() else f"there is no file {path}"
        raise UserError(missing, hint="Give a text file, a .jsonl file, or a corpus folder (bottega data collect).")
    return file


def read_texts(file: Path) -> Iterator[str]:
    """The documents of a file: every row's "text" of a .jsonl, else the whole file as one."""
    if file.suffix != ".jsonl":
        try:
            yield file.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{file} is not UTF-8 text (byte {error.start})", hint="Convert it first.") from None
        return
    for number, row in _rows(file):
        if not isinstance(row.get("text"), str):
            raise UserError(f'{file}, line {number}: no "text"', hint='Every row is an object {"text": "…"}.')
        yield row["text"]


def read_documents(tokenizer: Tokenizer, texts: Iterator[str], max_tokens: int | None = None) -> Documents:
    """Encode documents until all are read or the next one would exceed `max_tokens`.

    Documents stay whole, except that a first one beyond the budget is cut (at a character whose
    tokens fit), so that there is something to measure. Empty documents are skipped.
    """
    found = Documents()
    left = max_tokens
    for text, ids in _encoded(tokenizer, texts):
        kept = text
        if left is not None and len(ids) > left:
            found.whole = False
            if found.each:
                return found
            kept, ids = _cut(tokenizer, text, len(ids), left)
        found.each.append(Document(ids, kept.encode("utf-8")))
        found.lossy += tokenizer.decode(ids, skip_special=False) != kept
        if not found.whole:
            return found
        left = None if left is None else left - len(ids)
    return found


def sample_documents(tokenizer: Tokenizer, file: Path, max_tokens: int | None, seed: int) -> Sample:
    """The documents of a file, all or as many as `max_tokens` allows, drawn at random whatever their place.

    The order of drawing hangs on the seed and a document's place in the file. The file is read twice,
    so that only what was drawn is kept in memory. If no document fits, the first that was drawn is cut.
    """
    if max_tokens is None:
        documents = read_documents(tokenizer, read_texts(file))
        return Sample(documents, len(documents.each), sum(len(each.ids) for each in documents.each), 0)
    sizes = {str(place): len(ids) for place, (_, ids) in enumerate(_encoded(tokenizer, read_texts(file)))}
    total = sum(sizes.values())
    if total <= max_tokens:
        return Sample(read_documents(tokenizer, read_texts(file)), len(sizes), total, 0)
    fitting, passed = draw(sizes, max_tokens, seed)
    chosen = dict.fromkeys(fitting or passed[:1], "")
    for place, text in enumerate(text for text in read_texts(file) if text):
        if str(place) in chosen:
            chosen[str(place)] = text
    documents = read_documents(tokenizer, iter(chosen.values()), max_tokens)
    documents.whole = False
    return Sample(documents, len(sizes), total, len(passed) - (not fitting), cut=not fitting)


def read_questions(file: Path) -> list[Question]:
    """The questions of a `questions.jsonl`; raises UserError naming the line that is none."""
    questions = []
    for number, row in _rows(file):
        choices, answer = row.get("choices"), row.get("answer")
        usable = (
            isinstance(row.get("question"), str)
            and isinstance(choices, list)
            and len(choices) >= 2
            and all(isinstance(choice, str) and choice for choice in choices)
            and isinstance(answer, int)
            and 0 <= answer < len(choices)
        )
        if not usable or not isinstance(choices, list) or not isinstance(answer, int):
            raise UserError(
                f"{file}, line {number} is not a multiple-choice question",
                hint='It needs "question", "choices" (two or more texts) and "answer" (index of the right one).',
            )
        name, group, kind = str(row.get("id", number)), str(row.get("group", "")), str(row.get("kind", ""))
        questions.append(Question(name, group, kind, row["question"], tuple(choices), answer))
    return questions


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise UserError(f"{file}, line {number} is not a JSON object")
                    yield number, row
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON lines: {error}") from None


def _encoded(tokenizer: Tokenizer, texts: Iterator[str]) -> Iterator[tuple[str, list[int]]]:
    """Every text that is not empty, with its tokens."""
    for batch in _batches(texts):
        yield from zip(batch, tokenizer.encode_batch(batch), strict=True)


def _batches(texts: Iterator[str]) -> Iterator[Sequence[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if text:
            batch.append(text)
            size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _cut(tokenizer: Tokenizer, text: str, tokens: int, most: int) -> tuple[str, list[int]]:
    """A beginning of `text` that has at most `most` tokens (nearly as many), and its tokens."""
    length = max(1, len(text) * most // tokens)
    while True:
        kept = text[:length]
        ids = tokenizer.encode(kept)
        if len(ids) <= most or length == 1:
            return kept, ids
        length = max(1, min(length - 1, length * most // len(ids)))
