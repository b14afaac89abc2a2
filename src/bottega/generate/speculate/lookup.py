"""Prompt lookup: what followed the last few tokens when they stood in the text before is likely to follow again.

Saxena 2023 (github.com/apoorvumang/prompt-lookup-decoding); free of any model, and strong where answers quote
(summaries, edits, code, retrieval). The index is kept up token by token, so that a step costs the same at any length.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from bottega.core.errors import UserError
from bottega.generate.speculate.proposer import Draft, Proposer

BORDER = -1  # no token: between texts of the shared index


class NgramIndex:
    """A text that grows, and where each of its n-grams (n from `least` to `most`) last had a successor."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.tokens: list[int] = []
        self._follows: dict[int, int] = {}  # hash of an n-gram → place of the token behind it

    def extend(self, tokens: Iterable[int]) -> None:
        """Append tokens: a few dictionary entries each."""
        for token in tokens:
            place = len(self.tokens)
            for size in range(self.least, min(self.most, place) + 1):
                self._follows[hash(tuple(self.tokens[place - size :]))] = place
            self.tokens.append(token)

    def find(self, gram: list[int]) -> int | None:
        """The place behind the latest occurrence of `gram` that has a successor."""
        place = self._follows.get(hash(tuple(gram)))
        # Two n-grams may share a hash.
        return place if place is not None and self.tokens[place - len(gram) : place] == gram else None

    def continuation(self, place: int, k: int) -> list[int]:
        """Up to `k` tokens from `place` on; where the text ends, it repeats itself from there, as in LZ77."""
        found = self.tokens[place : place + k]
        period = len(self.tokens) - place
        while len(found) < k:
            found.append(found[-period])
        return found[: found.index(BORDER)] if BORDER in found else found


class PromptLookup(Proposer):
    """Proposes what followed the latest earlier occurrence of the last `most` tokens, else of fewer, down to `least`.

    `shared_tokens` > 0 also searches the last so many tokens of requests that have ended. That one user's
    text speeds up another's can be measured by them; it is off unless all requests are one owner's.
    """

    def __init__(self, *, least: int = 1, most: int = 3, shared_tokens: int = 0) -> None:
        """Raise UserError if the lengths are not 1 <= least <= most, or shared_tokens is negative."""
        if not 1 <= least <= most:
            raise UserError(
                f"prompt lookup from {least} to {most} tokens",
                hint="It must be 1 or more, the least not above the most.",
            )
        if shared_tokens < 0:
            raise UserError(f"shared_tokens is {shared_tokens}", hint="It must be 0 (off) or more.")
        self.least, self.most, self.shared_tokens = least, most, shared_tokens
        self._own: dict[Hashable, NgramIndex] = {}
        self._shared = NgramIndex(least, most)

    def propose_many(self, drafts: Sequence[Draft]) -> list[list[int]]:
        """One after another: there is nothing to gain together."""
        return [self._propose(draft) for draft in drafts]

    def _propose(self, draft: Draft) -> list[int]:
        own = self._own.get(draft.request)
        if own is None:
            own = self._own[draft.request] = NgramIndex(self.least, self.most)
        own.extend(draft.tokens[len(own.tokens) :])
        for size in range(min(self.most, len(draft.tokens)), self.least - 1, -1):
            gram = draft.tokens[-size:]
            for index in (own, self._shared):
                if (place := index.find(gram)) is not None and (found := index.continuation(place, draft.length)):
                    return found
        return []

    def forget(self, request: Hashable) -> None:
        """Drop the request's index; its text joins the shared one if there is one."""
        own = self._own.pop(request, None)
        if own is None or not self.shared_tokens:
            return
        self._shared.extend([*own.tokens[-self.shared_tokens :], BORDER])
        if len(self._shared.tokens) > 2 * self.shared_tokens:  # half is dropped at once: still O(1) per token
            kept = self._shared.tokens[-self.shared_tokens :]
            self._shared = NgramIndex(self.least, self.most)
            self._shared.extend(kept)
