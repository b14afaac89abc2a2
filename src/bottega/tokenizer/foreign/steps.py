"""Small parts of a `tokenizer.json`, written as the tokenizers library writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Behavior = Literal["Isolated", "MergedWithPrevious", "MergedWithNext"]


def sequence(steps: Sequence[dict[str, Any]], key: str) -> dict[str, Any] | None:
    """No step, one step, or several in a row under `key` (normalizers, pretokenizers, decoders)."""
    if len(steps) < 2:
        return steps[0] if steps else None
    return {"type": "Sequence", key: list(steps)}


def replace(pattern: str, content: str, *, literal: bool = False) -> dict[str, Any]:
    """A normalizer or decoder that replaces what an expression (of Oniguruma) finds, or a literal text."""
    return {"type": "Replace", "pattern": {"String" if literal else "Regex": pattern}, "content": content}


def split(pattern: str, behavior: Behavior = "Isolated", *, literal: bool = False) -> dict[str, Any]:
    """A pre-tokenizer that cuts a text at what an expression finds, or at a literal text."""
    where = {"String" if literal else "Regex": pattern}
    return {"type": "Split", "pattern": where, "behavior": behavior, "invert": False}
