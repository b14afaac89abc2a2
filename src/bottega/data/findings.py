"""What a pass over data finds: rejected rows, doubtful ones, duplicates, lengths, and figures of pairs and labels."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bottega.data.config import ExampleOptions
from bottega.data.encode import Encoded, encode_example
from bottega.data.formats.detect import examples_of
from bottega.data.formats.kinds import (
    Completion,
    Conversation,
    Example,
    Labelled,
    Message,
    Pair,
    Prompt,
    Rejected,
    Side,
    Text,
)
from bottega.data.formats.read import as_messages
from bottega.data.formats.turns import has_answer
from bottega.data.rows import Skipped, read_rows
from bottega.data.sources import read_documents
from bottega.data.spec import Form
from bottega.data.writing import said
from bottega.tokenizer.tokenizer import Tokenizer

PERCENTILES = (50, 90, 95, 99)
_SHOWN = 300
"""Tokens up to which an example is fit to be shown."""


@dataclass
class Findings:
    """Counts of one pass. Lengths are in tokens where there is a tokenizer, else in characters."""

    form: Form
    rows: int = 0
    examples: int = 0
    dropped: int = 0
    """Examples of which rows of the length that was asked about would leave nothing."""
    formats: Counter[str] = field(default_factory=Counter)
    rejected: Skipped = field(default_factory=Skipped)
    doubtful: Skipped = field(default_factory=Skipped)
    lengths: array[int] = field(default_factory=lambda: array("q"))
    trained: array[int] = field(default_factory=lambda: array("q"))
    answers: array[int] = field(default_factory=lambda: array("q"))
    """Lengths of the answers of pairs: chosen, rejected, chosen, …"""
    labels: Counter[bool] = field(default_factory=Counter)
    shown: tuple[str, Example, list[Encoded]] | None = None
    _seen: set[bytes] = field(default_factory=set)

    @property
    def usable(self) -> int:
        """Examples that something can be trained on."""
        return self.examples - self.dropped

    def add(self, place: str, example: Example, documents: list[Encoded]) -> None:
        """Count one example; `documents` are empty where there is no tokenizer."""
        self.examples += 1
        content = said(example) or repr(example)
        digest = hashlib.blake2b(content.encode("utf-8", "replace"), digest_size=12).digest()
        if digest in self._seen:
            self.doubtful.add("the same as an earlier one", place)
        self._seen.add(digest)
        for reason in sorted(set(doubts(example))):
            self.doubtful.add(reason, place)
        for ids, mask in documents:
            self.lengths.append(len(ids))
            self.trained.append(sum(mask))
        if not documents:
            self.lengths.append(len(content))
        if isinstance(example, Labelled):
            self.labels[example.label] += 1
        if isinstance(example, Pair):
            sizes = [_size(side) for side in (example.chosen, example.rejected)]
            self.answers.extend([sum(mask) for _, mask in documents] or sizes)
        best = len(self.shown[2][0].ids) if self.shown and self.shown[2] else 0
        size = len(documents[0].ids) if documents else 0
        if self.shown is None or (best > _SHOWN and size < best):
            self.shown = (place, example, documents)

    def fit(self, place: str, documents: list[Encoded], row_length: int) -> None:
        """Count what rows of `row_length` tokens would cut or drop."""
        if all(len(ids) <= row_length for ids, _ in documents):
            return
        cut = [(ids[:row_length], mask[1:row_length]) for ids, mask in documents]
        lost = self.form == "prompts" or not all(any(mask) for _, mask in cut)
        same = len(cut) == 2 and cut[0][0] == cut[1][0]
        if self.form == "text":
            self.doubtful.add(f"longer than {row_length} tokens: cut into pieces", place)
        elif lost or same:
            self.dropped += 1
            self.doubtful.add(f"dropped: {row_length} tokens leave nothing to train on", place)
        else:
            self.doubtful.add(f"longer than {row_length} tokens: its end is cut off", place)

    def as_data(self) -> dict[str, Any]:
        """Everything but the example shown, JSON-able."""
        tokens, trained = sum(self.lengths), sum(self.trained)
        return {
            "form": self.form,
            "rows": self.rows,
            "examples": self.examples,
            "usable": self.usable,
            "formats": dict(self.formats),
            "rejected": self.rejected.as_data(),
            "doubtful": self.doubtful.as_data(),
            "total_length": tokens,
            "trained": trained,
            "trained_share": round(trained / tokens, 4) if tokens and self.trained else None,
            "lengths": percentiles(self.lengths),
            "trained_lengths": percentiles(self.trained),
            "labels": {str(label).lower(): count for label, count in self.labels.items()},
            "pairs": self.pair_figures(),
        }

    def pair_figures(self) -> dict[str, float] | None:
        """How the lengths of chosen and rejected answers compare: a model can learn that instead of what is meant."""
        if not self.answers:
            return None
        sizes = np.asarray(self.answers).reshape(-1, 2)
        return {
            "chosen_mean": round(float(sizes[:, 0].mean()), 1),
            "rejected_mean": round(float(sizes[:, 1].mean()), 1),
            "chosen_longer_share": round(float((sizes[:, 0] > sizes[:, 1]).mean()), 4),
            "equal_length_share": round(float((sizes[:, 0] == sizes[:, 1]).mean()), 4),
        }


def examine(
    source: Path,
    form: Form,
    tokenizer: Tokenizer | None,
    options: ExampleOptions,
    *,
    row_length: int | None = None,
    most: int | None = None,
    advance: Any = None,
) -> Findings:
    """One pass over `source` as `form`; `most` rows at most. Raises UserError as `encode_example` does."""
    found = Findings(form)
    rows = _text_rows(source, found) if form == "text" else _rows(source, found)
    for place, size, row in islice(rows, most):
        found.rows += 1
        if advance is not None:
            advance(size)
        try:
            name, examples = _examples(row, form, options)
            encoded = [encode_example(tokenizer, example, options) if tokenizer else [] for example in examples]
        except Rejected as rejected:
            found.rejected.add(str(rejected), place)
            continue
        found.formats[name] += 1
        for example, documents in zip(examples, encoded, strict=True):
            found.add(place, example, documents)
            if tokenizer and form not in ("text", "prompts") and not all(_stops(tokenizer, each) for each in documents):
                found.doubtful.add("trains no stop token", place)
            if row_length and documents:
                found.fit(place, documents, row_length)
    return found


def doubts(example: Example) -> Iterator[str]:
    """Why an example that can be used may be meant otherwise."""
    match example:
        case Conversation():
            yield from _role_faults(example.messages)
        case Pair():
            yield from _role_faults(as_messages(example.prompt, "user"), ended=False)
        case Labelled() | Completion() | Prompt():
            yield from _role_faults(as_messages(example.prompt, "user"), ended=False)
        case _:
            return


def percentiles(values: array[int]) -> dict[str, float]:
    """The mean, some percentiles and the maximum; empty without values."""
    if not values:
        return {}
    numbers = np.asarray(values)
    found = {f"p{at}": round(float(np.percentile(numbers, at)), 1) for at in PERCENTILES}
    return {"mean": round(float(numbers.mean()), 1), **found, "max": float(numbers.max())}


def _role_faults(messages: list[Message], *, ended: bool = True) -> Iterator[str]:
    roles = [message["role"] for message in messages]
    turns = [role for role in roles if role not in ("system", "developer")]
    if turns[:1] == ["assistant"]:
        yield "begins with the assistant"
    if any(role in ("system", "developer") for role in roles[1:]):
        yield "a system message that is not the first"
    if any(one == other == "user" for one, other in pairwise(turns)):
        yield "two messages of the user in a row"
    if any(one == other == "assistant" for one, other in pairwise(turns)):
        yield "two messages of the assistant in a row"
    if any(other == "tool" and one == "user" for one, other in pairwise(turns)):
        yield "a tool's answer that nobody called for"
    if ended and turns and turns[-1] != "assistant":
        yield "does not end with the assistant"
    if any(message["role"] == "assistant" and not has_answer(message) for message in messages):
        yield "an empty message of the assistant"
    if any(message["role"] == "user" and not message["content"].strip() for message in messages):
        yield "an empty question"


def _rows(source: Path, found: Findings) -> Iterator[tuple[str, int, Any]]:
    for row in read_rows(source, found.rejected):
        yield row.place, row.size, row.value


def _text_rows(source: Path, found: Findings) -> Iterator[tuple[str, int, Any]]:
    for document in read_documents(source, found.rejected):
        yield document.id, len(document.text.encode("utf-8")), document


def _examples(row: Any, form: Form, options: ExampleOptions) -> tuple[str, list[Example]]:
    if form == "text":
        return row.format or "text", [Text(row.text)]
    found, examples = examples_of(row, form, every_pair=options.ranked == "all")
    return found.name, examples


def _stops(tokenizer: Tokenizer, document: Encoded) -> bool:
    return any(trained and id_ in tokenizer.stop_ids for id_, trained in zip(*document, strict=True))


def _size(side: Side) -> int:
    return sum(len(message["content"]) for message in as_messages(side, "assistant"))
