"""Questions as they are shown, and the marking of answers.

What is shown is made of an item and a seed: a generator draws its numbers, options and lines are put in another order.
The same seed gives the same question, so that a page needs to remember no more than the seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bottega.core.errors import UserError
from bottega.course.lab import load_module
from bottega.course.library import Chapter
from bottega.course.schema import Item

Given = str | int | Sequence[int] | Sequence[str] | None
BLANK = "___"


@dataclass(frozen=True)
class Question:
    """What a learner sees. `lines` are to be put in order; `rights` belong to `lefts`; `blanks` are to be filled."""

    item: str
    seed: int
    concept: str
    chapter: str
    kind: str
    stem: str
    options: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    lefts: tuple[str, ...] = ()
    rights: tuple[str, ...] = ()
    blanks: int = 0
    code: str = ""
    unit: str = ""
    section: str | None = None


@dataclass(frozen=True)
class Mark:
    """Whether an answer is right, and why: for each option (chosen, right, why), or in one text."""

    right: bool
    answer: str
    why: str = ""
    options: tuple[tuple[str, bool, bool, str], ...] = ()
    """(text, chosen, right, why) in the order shown."""
    misconceptions: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _Made:
    item: Item
    question: Question
    order: tuple[int, ...]
    """Where in the item what is shown at each place stands (options, lines, right sides)."""


def question(chapter: Chapter, item: Item, seed: int) -> Question:
    """The question that `seed` makes of an item."""
    return _make(chapter, item, seed).question


def mark(chapter: Chapter, item: Item, seed: int, given: Given) -> Mark:
    """Mark an answer to the question of `seed`; raises UserError where it is no answer to such a question."""
    made = _make(chapter, item, seed)
    return _MARKERS[made.item.kind](made, given)


def complete(chapter: Chapter, item: Item, seed: int) -> Item:
    """The item, with what its generator makes."""
    if not item.generator:
        return item
    module = load_module(chapter.folder / "quiz.py")
    values = getattr(module, item.generator)(random.Random(seed))
    kept = {"id": item.id, "concept": item.concept, "kind": item.kind, "difficulty": item.difficulty}
    return Item.parse({**kept, "section": item.section, **values}, where=f"{item.id} of seed {seed}")


def _make(chapter: Chapter, item: Item, seed: int) -> _Made:
    item = complete(chapter, item, seed)
    draw = random.Random(f"{item.id} {seed}")
    shown: list[str] = []
    if item.kind in ("single", "multi"):
        shown = [option.text for option in item.options]
    elif item.kind == "order":
        shown = list(_texts(item))
    elif item.kind == "match":
        shown = [pair.right for pair in item.pairs]
    order = list(range(len(shown)))
    draw.shuffle(order)
    if item.kind in ("order", "match") and order == sorted(order):
        order = order[1:] + order[:1]  # the right order is not given away
    shown = [shown[place] for place in order]
    found = Question(
        item.id, seed, item.concept, chapter.id, item.kind, item.stem,
        options=tuple(shown) if item.options else (), lines=tuple(shown) if item.kind == "order" else (),
        lefts=tuple(pair.left for pair in item.pairs), rights=tuple(shown) if item.kind == "match" else (),
        blanks=len(_texts(item)) if item.kind == "cloze" else 0, code=item.code, unit=item.unit, section=item.section,
    )  # fmt: skip
    return _Made(item, found, tuple(order))


def _texts(item: Item) -> tuple[str, ...]:
    assert isinstance(item.answer, tuple)
    return item.answer


def _choice(made: _Made, given: Given) -> Mark:
    chosen = {given} if isinstance(given, int) else set(_whole(given, len(made.order), None))
    rows = []
    for place, at in enumerate(made.order):
        option = made.item.options[at]
        rows.append((option.text, place in chosen, option.right, option.why))
    wrong = [made.item.options[at].misconception for p, at in enumerate(made.order)
             if p in chosen and not made.item.options[at].right]  # fmt: skip
    right = all(picked == is_right for _, picked, is_right, _ in rows)
    answer = "; ".join(text for text, _, is_right, _ in rows if is_right)
    return Mark(right, answer, options=tuple(rows), misconceptions=tuple(tag for tag in wrong if tag))


def _numeric(made: _Made, given: Given) -> Mark:
    item = made.item
    assert isinstance(item.answer, int | float)
    value = number(given)
    right = abs(value - item.answer) <= item.tolerance + 1e-9 * abs(item.answer)
    unit = f" {item.unit}" if item.unit else ""
    return Mark(right, f"{item.answer:,.6g}{unit}" if abs(item.answer) < 1e6 else f"{item.answer:,.0f}{unit}",
                _why(item, right, [key for key in item.mistakes if _equal_number(key, value)]))  # fmt: skip


def _output(made: _Made, given: Given) -> Mark:
    text = _plain(str(given or ""))
    right = text == _plain(str(made.item.answer))
    found = [key for key in made.item.mistakes if _plain(key) == text]
    return Mark(right, str(made.item.answer), _why(made.item, right, found))


def _order(made: _Made, given: Given) -> Mark:
    places = _whole(given, len(made.order), len(made.order))
    if sorted(places) != list(range(len(made.order))):
        raise UserError("each line has one place", hint="Number the lines from 1 on, each number once.")
    said = [made.order[place] for place in places]
    right = said == sorted(said)
    return Mark(right, " → ".join(_texts(made.item)), _why(made.item, right, []))


def _match(made: _Made, given: Given) -> Mark:
    places = _whole(given, len(made.order), len(made.order))
    right = [made.order[place] for place in places] == list(range(len(made.order)))
    answer = "; ".join(f"{pair.left}: {pair.right}" for pair in made.item.pairs)
    return Mark(right, answer, _why(made.item, right, []))


def _cloze(made: _Made, given: Given) -> Mark:
    wanted = _texts(made.item)
    said = [given] if isinstance(given, str) else [str(each) for each in given or ()]  # type: ignore[union-attr]
    if len(said) != len(wanted):
        raise UserError(f"{len(wanted)} gaps are to be filled")
    right = all(_plain(a).lower() == _plain(b).lower() for a, b in zip(said, wanted, strict=True))
    found = [key for key in made.item.mistakes if _plain(key) == _plain(said[0])]
    return Mark(right, ", ".join(wanted), _why(made.item, right, found))


_MARKERS = {
    "single": _choice, "multi": _choice, "numeric": _numeric, "output": _output, "order": _order, "match": _match,
    "cloze": _cloze,
}  # fmt: skip


def number(given: Any) -> float:
    """A number as people write it: 1,000; 0.5; 1e20; 3/4; 21.9 %. Raises UserError."""
    text = str(given if given is not None else "").strip().replace(" ", "").replace("_", "").rstrip("%")
    text = re.sub(r",(?=\d{3}(\D|$))", "", text).replace(",", ".").replace("−", "-").replace("×10^", "e")
    top, _, bottom = text.partition("/")
    try:
        return float(top) / (float(bottom) if bottom else 1.0)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{given!r} is not a number", hint="Write it as 12, 0.5, 1e20 or 3/4.") from None


def _why(item: Item, right: bool, mistakes: Sequence[str]) -> str:
    return item.why if right or not mistakes else f"{item.mistakes[mistakes[0]]} {item.why}"


def _equal_number(key: str, value: float) -> bool:
    try:
        wanted = number(key)
    except UserError:
        return False
    return abs(value - wanted) <= 0.005 * max(abs(wanted), 0.1)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip())


def _whole(given: Given, below: int, count: int | None) -> list[int]:
    """Places, counted from 0; raises UserError if they are none, or not so many as wanted."""
    found = [] if given is None or isinstance(given, str) else [given] if isinstance(given, int) else list(given)
    if any(not isinstance(each, int) or not 0 <= each < below for each in found) or (count and len(found) != count):
        raise UserError("that is no answer to this question")
    return [each for each in found if isinstance(each, int)]
