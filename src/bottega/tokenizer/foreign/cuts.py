"""Where to cut a text so that no reserved piece is read in it.

A Unigram model of the tokenizers library finds every piece of its vocabulary in the text, also
control pieces like `</s>` and byte pieces like `<0x0A>`, which SentencePiece never takes from
text. A cut inside each of them prevents that. It changes nothing else where no other piece could
lie across it, and where the two characters are not both unknown (a run of those is one token).
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from bottega.tokenizer.foreign.pieces import Kind, PieceModel
from bottega.tokenizer.foreign.steps import split

RESERVED = (Kind.CONTROL, Kind.UNKNOWN, Kind.BYTE, Kind.UNUSED)
# Real vocabularies: a few thousand characters in reserved pieces, and a few pieces across each cut.
MAX_RESERVED_CHARACTERS = 50_000
MAX_CROSSING = 100


def cuts(model: PieceModel) -> tuple[list[dict[str, Any]], list[str]]:
    """The pre-tokenizer that cuts (none if nothing is to be cut), and the reserved pieces that cannot be cut."""
    reserved = [piece.text for piece in model.pieces if piece.kind in RESERVED]
    if sum(map(len, reserved)) > MAX_RESERVED_CHARACTERS:
        return [], reserved
    finder = _Cuts(model, {text[at : at + 2] for text in reserved for at in range(len(text) - 1)})
    chosen: set[str] = set()
    uncut: list[str] = []
    for text in reserved:
        found = finder.cuts_of(text)
        if not found:
            uncut.append(text)
        elif chosen.isdisjoint(found):
            chosen.add(found[0])
    return [split("|".join(sorted(chosen)), "MergedWithPrevious")] if chosen else [], uncut


class _Cuts:
    """The pieces that have two given characters in a row, by these two."""

    def __init__(self, model: PieceModel, pairs: set[str]) -> None:
        others = [piece.text for piece in model.pieces if piece.kind in (Kind.NORMAL, Kind.USER_DEFINED)]
        self.single = {text for text in others if len(text) == 1}
        self.byte_fallback = model.byte_fallback
        self.crossing: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for text in others:
            for at in range(1, len(text)):
                pair = text[at - 1 : at + 1]
                if pair in pairs and len(self.crossing[pair]) <= MAX_CROSSING:
                    self.crossing[pair].append((text, at))

    def cuts_of(self, text: str) -> list[str]:
        """Patterns for the safe cuts of a piece; first those that serve many pieces."""
        ways = [(text[:at], text[at:]) for at in range(1, len(text)) if self._is_safe(text[:at], text[at:])]
        # Between two characters that no piece has in a row, any text can be cut.
        everywhere = {_cut(a[-1], b[0]) for a, b in ways if not self.crossing[a[-1] + b[0]]}
        return [*sorted(everywhere), *(_cut(a, b) for a, b in ways)]

    def _is_safe(self, before: str, after: str) -> bool:
        if not (self.byte_fallback or before[-1] in self.single or after[0] in self.single):
            return False
        others = self.crossing[before[-1] + after[0]]
        return len(others) <= MAX_CROSSING and not any(
            _overlap(text[:at][::-1], before[::-1]) and _overlap(text[at:], after) for text, at in others
        )


def _overlap(one: str, other: str) -> bool:
    """Whether one begins with the other."""
    return one.startswith(other) or other.startswith(one)


def _cut(before: str, after: str) -> str:
    """A pattern for the character after which a text is cut."""
    behind = f"(?<={re.escape(before[:-1])})" if len(before) > 1 else ""
    return f"{behind}{re.escape(before[-1])}(?={re.escape(after)})"
