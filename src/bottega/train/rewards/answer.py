"""What a reward sees: an answer, and the row of the prompt that it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer to be rewarded.

    Attributes:
        text: without special tokens.
        row: all fields of the prompt's row: its right answer, its tests.
        finished: whether the model ended it by itself.
        prompt_ids, completion_ids: the tokens; the stop token is the last where it is finished.
    """

    text: str
    row: Mapping[str, Any]
    finished: bool = True
    prompt_ids: Sequence[int] = field(default=(), repr=False)
    completion_ids: Sequence[int] = field(default=(), repr=False)


Score = Callable[[str, Mapping[str, Any], bool], float]
"""The reward of one answer by its text, its row, and whether it was finished: a pure function."""

ScoreAll = Callable[[Sequence[Answer]], list[float]]
"""The rewards of answers that are better computed together."""


def one_by_one(score: Score) -> ScoreAll:
    """A pure function over a list."""
    return lambda answers: [score(answer.text, answer.row, answer.finished) for answer in answers]
