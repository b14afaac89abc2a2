"""Which side a text belongs to: decided once, by name, before anything is derived from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from bottega.core.errors import UserError

MAX_HELDOUT = 2**24
"""Bytes after which more held-out text buys no more precision; it bounds the memory of deduplication too."""
LARGE = 0.02
"""A document with more than this share of all bytes is cut, and its parts are split: else one book would decide."""
_PARTS = 100
_FULL = 0.95


def rank(seed: int, name: str) -> int:
    """A number from (seed, name) alone, uniform in 0 … 2^64 - 1."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "big")


def draw(sizes: Mapping[str, int], target: int, seed: int) -> tuple[list[str], list[str]]:
    """Names in order of rank, each that still fits into `target`; and those that were passed over as too large.

    The target is met closely from below; at 95 % of it the search ends, for otherwise the smallest
    would be picked to fill the rest.
    """
    left, chosen, passed = target, list[str](), list[str]()
    for name in sorted(sizes, key=lambda name: (rank(seed, name), name)):
        if left < target * (1 - _FULL):
            break
        if sizes[name] <= left:
            chosen.append(name)
            left -= sizes[name]
        else:
            passed.append(name)
    return chosen, passed


def choose_heldout(sizes: Mapping[str, int], share: float, seed: int) -> set[str]:
    """Names of the units to hold out: those that `draw` takes for `share` of the bytes.

    Raises UserError if there is only one unit.
    """
    chosen = set(draw(sizes, min(int(sum(sizes.values()) * share), MAX_HELDOUT), seed)[0])
    if not chosen and len(sizes) > 1:
        chosen.add(min(sizes, key=lambda name: (sizes[name], name)))
    if not chosen:
        raise UserError(
            "there is too little text to hold some of it out",
            hint="Give more documents, or a text of several paragraphs.",
        )
    return chosen


def parts(text: str, total: int) -> Iterator[str]:
    """A large text cut at blank lines into parts of about a hundredth of `total` characters, 500 at least.

    `total` is the size of all texts; one with no more than LARGE of it stays whole.

    A Markdown heading stays with what follows it. The parts joined are the text.
    """
    if len(text) <= total * LARGE:
        yield text
        return
    size = max(500, total // _PARTS)
    part: list[str] = []
    length = 0
    for paragraph in text.split("\n\n"):
        if length >= size and not part[-1].lstrip().startswith("#"):
            yield "\n\n".join(part) + "\n\n"
            part, length = [], 0
        part.append(paragraph)
        length += len(paragraph) + 2
    if part:
        yield "\n\n".join(part)
