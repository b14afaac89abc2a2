"""Rewards that a text alone decides: exact, contains, format, length, json. Each is a pure function."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bottega.core.errors import UserError
from bottega.train.rewards.answer import Answer, Score, ScoreAll
from bottega.train.rewards.config import RewardSettings
from bottega.train.rewards.extract import extractor, same


def exact(settings: RewardSettings) -> Score:
    """1 if the whole of what counts is the right answer (or one of several), else 0.

    The row's text is taken as it is, unless the extractor finds something in it, as in GSM8K's solutions.
    """
    find, name = extractor(settings.extract), settings.row_field or ""

    def score(text: str, row: Mapping[str, Any], _finished: bool) -> float:
        found = find(text)
        if not found:
            return 0.0
        for right in texts_of(row, name):
            wanted = find(right) or right
            if same(found, wanted, numbers=settings.numbers, ignore_case=settings.ignore_case):
                return 1.0
        return 0.0

    return score


def contains(settings: RewardSettings) -> Score:
    """The share of the wanted texts that stand in the answer as whole words; equal ones count once."""
    flags = re.IGNORECASE if settings.ignore_case else 0

    def score(text: str, row: Mapping[str, Any], _finished: bool) -> float:
        wanted = settings.texts or texts_of(row, settings.row_field or "")
        words = {tuple(map(re.escape, each.split())) for each in wanted if each.strip()}
        patterns = [r"(?<!\w)" + r"\s+".join(each) + r"(?!\w)" for each in words]
        if not patterns:
            raise UserError("contains has no text to look for", hint="Is the field of the row empty?")
        return sum(re.search(pattern, text, flags) is not None for pattern in patterns) / len(patterns)

    return score


def in_format(settings: RewardSettings) -> Score:
    """1 if the whole answer has the form, else 0."""
    if not settings.tags:
        pattern = re.compile(settings.pattern or "", re.DOTALL)
        return lambda text, _row, _finished: float(pattern.fullmatch(text) is not None)
    tags = [(f"<{tag}>", f"</{tag}>") for tag in settings.tags]
    parts = (rf"{re.escape(begin)}(.*\S.*){re.escape(end)}" for begin, end in tags)
    form = re.compile(r"\s*" + r"\s*".join(parts) + r"\s*", re.DOTALL)
    marks = [mark for tag in tags for mark in tag]

    def score(text: str, _row: Mapping[str, Any], _finished: bool) -> float:
        # Once each, first: then the pattern has one way to match, and an answer in an answer is none.
        return float(all(text.count(mark) == 1 for mark in marks) and form.fullmatch(text) is not None)

    return score


def json_valid(settings: RewardSettings) -> Score:
    """1 if what counts is JSON, and satisfies the schema if there is one; else 0."""
    from bottega.generate.structure.schema import validate

    find = extractor(settings.extract)

    def score(text: str, row: Mapping[str, Any], _finished: bool) -> float:
        found = find(text)
        if not found:
            return 0.0
        schema = settings.json_schema
        if schema is None and settings.row_field is not None:
            schema = _field(row, settings.row_field)
        return float(validate(found, True if schema is None else schema).valid)

    return score


def length(settings: RewardSettings) -> ScoreAll:
    """By the number of tokens, words or characters: nearness to a target, or the punishment of what is too long.

    DAPO's (Yu et al. 2025, arXiv:2503.14476, eq. 13): 0 up to max - buffer, then ((max - buffer) - n) / buffer, and -1
    beyond max.
    """

    def score(answer: Answer) -> float:
        count = measured(answer, settings.unit)
        if settings.target is not None:
            return max(0.0, 1 - abs(count - settings.target) / (settings.tolerance or settings.target))
        return overlong(count, settings.max or 0, settings.buffer)

    return lambda answers: [score(answer) for answer in answers]


def overlong(count: int, most: int, buffer: int) -> float:
    """DAPO's soft punishment, in [-1, 0]."""
    if count > most:
        return -1.0
    return min(0.0, (most - buffer - count) / buffer) if buffer else 0.0


def measured(answer: Answer, unit: str) -> int:
    """The answer's length."""
    match unit:
        case "words":
            return len(answer.text.split())
        case "characters":
            return len(answer.text)
    return len(answer.completion_ids)


def texts_of(row: Mapping[str, Any], name: str) -> Sequence[str]:
    """The text or texts of a field; a number is its text. Raises UserError if it is not there."""
    value = _field(row, name)
    return [_text(each, name) for each in (value if isinstance(value, list | tuple) else [value])]


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise UserError(f"the field {name!r} of a prompt's row is {type(value).__name__}, and not text")


def _field(row: Mapping[str, Any], name: str) -> Any:
    if row.get(name) is None:
        there = ", ".join(map(repr, row)) or "none"
        raise UserError(f"a prompt's row has no field {name!r}, which its reward needs", hint=f"It has: {there}.")
    return row[name]
