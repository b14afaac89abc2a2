"""What an evaluation keeps of every item: `items.jsonl`, one row per document of a task. Imports no torch.

Everything that is said about an evaluation afterwards (paired comparison, error analysis, calibration, another metric)
is read from these rows; the model is not needed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from bottega.core.errors import UserError

ITEMS_FILE = "items.jsonl"


@dataclass(frozen=True)
class Item:
    """One document of a task, what the model made of it, and how that counts.

    Attributes:
        model: the model's name, as in `evaluation.json`.
        task: the task's name.
        doc_id: place of the document in its split, from 0.
        doc: the document's own columns (long ones left out).
        prompt: the text before the answer, few-shot examples included.
        prompt_hash: of the document's prompt and choices: two models with equal hashes were asked the same.
        gold: index of the right choice; the right choices, where there are several; None for other outputs.
        target: the right answer as text.
        choices: of multiple choice, the texts chosen among.
        loglikelihoods: ln p of each choice, or of the one text that is scored.
        greedy: whether each of them is what the model would have said.
        responses: what the model generated (several with `repeats`).
        filtered: by filter pipeline, what was taken from the responses.
        metrics: the item's own value of each metric that has one per item (`acc`, `exact_match,strict-match`, …).
    """

    model: str
    task: str
    doc_id: int
    doc: dict[str, Any]
    prompt: str
    prompt_hash: str
    target: str = ""
    gold: int | list[int] | None = None
    choices: list[str] = field(default_factory=list)
    loglikelihoods: list[float] = field(default_factory=list)
    greedy: list[bool] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)
    filtered: dict[str, list[str]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """Of plain data; raises TypeError if it is no item."""
        return cls(**row)

    def as_row(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def items_text(items: Iterable[Item]) -> str:
    """The content of `items.jsonl`."""
    return "".join(json.dumps(item.as_row(), ensure_ascii=False) + "\n" for item in items)


def read_items(folder: Path) -> Iterator[Item]:
    """The items of an evaluation folder; raises UserError if it has none, or names the line that is damaged."""
    path = folder / ITEMS_FILE
    if not path.is_file():
        raise UserError(f"{folder} has no {ITEMS_FILE}", hint="Make it: bottega eval MODEL --tasks … --out FOLDER.")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield Item.from_row(json.loads(line))
            except (ValueError, TypeError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is no item: {error}") from None
