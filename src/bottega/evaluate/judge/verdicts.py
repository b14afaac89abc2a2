"""What a judge's text says: a score from 1 to 10, a winner, or nothing that can be used.

FastChat's patterns, `[[5]]` and `[[A]]` with single brackets as a backup, and three differences: what cannot be read is
no score (never −1), the thoughts of a reasoning model are passed over, and a text that says two different things says
nothing.
"""

from __future__ import annotations

import re
from typing import Literal

Place = Literal["first", "second", "tie"]
LOWEST, HIGHEST = 1.0, 10.0
_NUMBER = r"\s*(?:rating\s*:?\s*)?(\d+(?:\.\d+)?)\s*(?:/\s*10)?\s*"
_SCORES = (re.compile(rf"\[\[{_NUMBER}\]\]", re.IGNORECASE), re.compile(rf"\[{_NUMBER}\]", re.IGNORECASE))
_PLACES = (re.compile(r"\[\[\s*([ABC])\s*\]\]", re.IGNORECASE), re.compile(r"\[([ABC])\]"))
_BY_LETTER: dict[str, Place] = {"A": "first", "B": "second", "C": "tie"}


def score_of(text: str) -> float | None:
    """The score, 1 to 10; None if there is none, another number, or several."""
    found = {float(number) for number in _found(_SCORES, text)}
    score = found.pop() if len(found) == 1 else None
    return score if score is not None and LOWEST <= score <= HIGHEST else None


def winner_of(text: str) -> Place | None:
    """Whose answer is better, by the place at which it was shown; None if that is not said, or differently twice."""
    found = {letter.upper() for letter in _found(_PLACES, text)}
    return _BY_LETTER[found.pop()] if len(found) == 1 else None


def _found(patterns: tuple[re.Pattern[str], ...], text: str) -> list[str]:
    """What the first of the patterns that is in the text finds, behind a reasoning model's thoughts."""
    said = text.rpartition("</think>")[2]
    if "<think>" in said:
        return []  # it was cut off while it thought
    return next((found for pattern in patterns if (found := pattern.findall(said))), [])
