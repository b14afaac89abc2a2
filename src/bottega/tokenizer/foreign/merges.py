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

from bottega.core.errors import UserError

# Characters of the parts that are looked up: the sum of the squares of the lengths. Real vocabularies: under 2**24.
MAX_WORK = 2**28


def splits(tokens: Sequence[str], known: Mapping[str, int]) -> list[tuple[str, str]]:
    """The merges that make `tokens`, in their order; both halves are in `known`, which gives the order of halves.

    Raises UserError if the tokens are so long that it would take too long.
    """
    work = sum(len(token) ** 2 for token in tokens)
    if work > MAX_WORK:
        raise UserError("the tokens of the vocabulary are too long to be taken apart")
    merges: list[tuple[str, str]] = []
    for token in tokens:
        halves: list[tuple[int, int, str, str]] = []
        for at in range(1, len(token)):
            left = known.get(token[:at])
            right = None if left is None else known.get(token[at:])
            if left is not None and right is not None:
                halves.append((left, right, token[:at], token[at:]))
        merges += [(left, right) for _, _, left, right in sorted(halves)]
    return merges
