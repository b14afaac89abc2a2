"""What guesses the next tokens of a request, so that the model can check several in one step.

A guess may be wrong, or missing; it changes how fast an answer comes, never what it says (`verify`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Draft(NamedTuple):
    """What is asked of a proposer: up to `length` tokens behind `tokens`, the request's prompt and answer so far."""

    request: Hashable
    tokens: list[int]
    length: int


class Proposer(ABC):
    """Proposes tokens request by request, and remembers what it needs of each until `forget`.

    From one call to the next the tokens of a request only grow; what was proposed need not be among them.
    """

    def propose(self, request: Hashable, tokens: list[int], k: int) -> list[int]:
        """At most `k` tokens that may follow `tokens`; none where nothing is worth a guess."""
        return self.propose_many([Draft(request, tokens, k)])[0]

    @abstractmethod
    def propose_many(self, drafts: Sequence[Draft]) -> list[list[int]]:
        """`propose` for requests that stand in one step, each at most once."""

    @abstractmethod
    def forget(self, request: Hashable) -> None:
        """The request has ended; one that was never seen is no error."""
