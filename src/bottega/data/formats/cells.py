"""Cells of a CSV file, which knows only texts, as the values that a row of JSON has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_TURNS = ("messages", "conversations", "conversation", "history", "tools", "images")
_ANSWERS = ("responses", "completions", "answers", "outputs", "candidates")
_SCORES = ("scores", "ratings", "rewards", "ranks", "ranking", "rating")
_TOKENS = ("input_ids", "labels", "attention_mask", "completion_mask")
_LISTS = frozenset([*_TURNS, *_ANSWERS, *_SCORES, *_TOKENS])
"""Columns that hold a list in every format."""
_SIDES = frozenset(["prompt", "completion", "chosen", "rejected", "chosen_response", "rejected_response"])
"""Columns that hold a text or messages: a text that happens to be JSON stays one."""


def from_cells(row: Mapping[str, str]) -> dict[str, Any]:
    """The row with lists and messages in place of the JSON that stands for them."""
    return {key: _value(key, cell) for key, cell in row.items()}


def _value(key: str, cell: str) -> Any:
    if cell.lstrip()[:1] not in ("[", "{") or key not in _LISTS | _SIDES:
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    if key in _LISTS:
        return value if isinstance(value, list) else cell
    turns = value if isinstance(value, list) else [value]
    are_turns = all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in turns)
    return value if turns and are_turns else cell
