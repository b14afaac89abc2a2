"""A list of merges from tokens and the order in which they are made.

SentencePiece and tiktoken keep no merges: they join any two neighbours whose joint text is a
token, the best token first, the leftmost of equals. A `tokenizer.json` lists merges. Every way
to write a token as two others is one; those of better tokens come first.

The result is the same as long as no two tokens are equally good. One case is left: three
neighbours A B C where AB and BC are one and the same token, but A and B are not C and B. Training
never makes a vocabulary in which that can come up, but a vocabulary put together by hand can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from bottega.core.errors import UserError

S = TypeVar("S", str, bytes)
# Copies of parts of tokens that are made: the sum of the squares of their lengths. Real ones: under 2**27.
MAX_WORK = 2**31


def splits(tokens: Sequence[S], known: Mapping[S, int]) -> list[tuple[S, S]]:
    """The merges that make `tokens`, in their order; both halves are in `known`, which gives the order of halves.

    Raises UserError if the tokens are so long that it would take too long.
    """
    work = sum(len(token) ** 2 for token in tokens)
    if work > MAX_WORK:
        raise UserError("the tokens of the vocabulary are too long to be taken apart")
    merges: list[tuple[S, S]] = []
    for token in tokens:
        halves = [
            (known[token[:at]], known[token[at:]], at)
            for at in range(1, len(token))
            if token[:at] in known and token[at:] in known
        ]
        merges += [(token[:at], token[at:]) for _, _, at in sorted(halves)]
    return merges
