"""Groups of items that may have more mistakes than the others: by task, column, length, margin, place of the answer.

Each group is held against the rest: the other items that have such a column, a length, a margin. Lengths and margins
are quarters within their task, so that a group does not stand for a task. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottega.evaluate.analysis.answers import Answered
from bottega.evaluate.analysis.significance import (
    ALPHA,
    benjamini_hochberg,
    proportions_difference,
    proportions_p,
)
from bottega.evaluate.statistics import wilson

MOST_VALUES = 20
"""Different values up to which a column is one of categories."""
LONGEST_VALUE = 60
LEAST_EXPECTED = 5.0
"""Mistakes and right answers that a group must be expected to have, for the test to hold (Cochran, 1954)."""
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
Members = NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Items (n,) that have something in common, and which others they are held against (n,)."""

    kind: str
    name: str
    members: Members
    rest: Members


def groups_of(answers: Sequence[Answered]) -> list[Group]:
    """Every group with a rest, in a fixed order."""
    found = [*_by_value("task", [each.item.task for each in answers])]
    columns = dict.fromkeys(key for each in answers for key in each.item.doc)
    for key in columns:
        values = [_category(each.item.doc.get(key)) for each in answers]
        few = len({value for value in values if value is not None}) <= MOST_VALUES
        if few and not _is_answer_key(values, answers):
            found += _by_value(f"column {key}", values)
    measures: dict[str, Callable[[Answered], float | None]] = {
        "length of the prompt": lambda each: len(each.item.prompt) or None,
        "length of the right answer": lambda each: len(each.item.target) or None,
        "length of the response": lambda each: len(each.item.responses[0]) if each.item.responses else None,
        "margin of the choice": lambda each: each.margin,
    }
    for kind, measure in measures.items():
        found += _by_value(kind, _quarters([each.item.task for each in answers], list(map(measure, answers))))
    return [*found, *_by_value("place of the right answer", list(map(_place, answers)))]


def measure_groups(groups: Sequence[Group], wrong: Members) -> list[dict[str, Any]]:
    """Each group's share of mistakes against the rest's, those with the largest difference first.

    Rows of `{"kind", "name", "items", "mistakes", "share", "rest", "difference", "ci95", "p_value", "p_adjusted",
    "shown"}`; p is null where too few mistakes are expected for a test, else adjusted over all groups.
    """
    rows = [_row(group, wrong) for group in groups]
    tested = [row for row in rows if row["p_value"] is not None]
    for row, p_value in zip(tested, benjamini_hochberg([row["p_value"] for row in tested]), strict=True):
        row["p_adjusted"] = p_value
        row["shown"] = p_value < ALPHA
    return sorted(rows, key=lambda row: -row["difference"])


def _row(group: Group, wrong: Members) -> dict[str, Any]:
    inside, outside = (
        (int(wrong[members].sum()), int(members.sum())) for members in (group.members, group.rest & ~group.members)
    )
    difference = proportions_difference(inside, outside)
    share = wilson(*inside)
    pooled = (inside[0] + outside[0]) / (inside[1] + outside[1])
    fewest = min(inside[1], outside[1]) * min(pooled, 1 - pooled)
    return {
        "kind": group.kind,
        "name": group.name,
        "items": inside[1],
        "mistakes": inside[0],
        "share": {"value": share.value, "ci95": [share.low, share.high]},
        "rest": outside[0] / outside[1],
        "difference": difference.value,
        "ci95": [difference.low, difference.high],
        "p_value": proportions_p(inside, outside) if fewest >= LEAST_EXPECTED else None,
        "p_adjusted": None,
        "shown": False,
    }


def _by_value(kind: str, values: Sequence[str | None]) -> Iterator[Group]:
    """A group for each value, if there are two; items whose value is None are in none, nor in the rest."""
    array = np.array([value if value is not None else "" for value in values], dtype=object)
    rest = np.array([value is not None for value in values], dtype=np.bool_)
    distinct = dict.fromkeys(value for value in values if value is not None)
    if len(distinct) > 1:
        for value in distinct:
            yield Group(kind, value, (array == value) & rest, rest)


def _category(value: Any) -> str | None:
    """The value of a column of categories, as text."""
    if isinstance(value, bool | int) or (isinstance(value, str) and 0 < len(value) <= LONGEST_VALUE):
        return str(value)
    return None


def _is_answer_key(values: Sequence[str | None], answers: Sequence[Answered]) -> bool:
    """Whether a column says nothing but which choice is right: its index from 0 or 1, or its letter, everywhere."""
    golds = [(value, each.item.gold) for value, each in zip(values, answers, strict=True) if value is not None]
    return any(
        all(isinstance(gold, int) and value == name(gold) for value, gold in golds)
        for name in (str, lambda gold: str(gold + 1), position)
    )


def _quarters(tasks: Sequence[str], values: Sequence[float | None]) -> list[str | None]:
    """In which quarter of its task each value lies; None where there is none, or all are alike. Ties stay together."""
    found: list[str | None] = [None] * len(values)
    for task in dict.fromkeys(tasks):
        places = [place for place, value in enumerate(values) if tasks[place] == task and value is not None]
        own = np.array([values[place] for place in places], dtype=np.float64)
        if len(np.unique(own)) < len(QUARTERS):
            continue
        edges = np.quantile(own, [0.25, 0.5, 0.75])
        for place, quarter in zip(places, np.searchsorted(edges, own), strict=True):
            found[place] = QUARTERS[quarter]
    return found


def _place(answer: Answered) -> str | None:
    """Where the right choice stands among how many."""
    gold, count = answer.item.gold, len(answer.item.choices)
    return f"{position(gold)} of {count}" if isinstance(gold, int) and count > 1 else None


def position(index: int) -> str:
    """0 → A; numbers from 1 beyond Z."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)
