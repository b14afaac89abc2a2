"""What a request's tokens must obey: the interface between a grammar and the engine.

At each step the engine asks for the mask of the tokens that may come next, sets the logits of
the others to -inf, and tells the constraint what was chosen. A mask is packed: bit `t % 32` of
word `t // 32` is token t. Masks depend on the tokens so far and not on the logits, so that
`MaskFiller` computes them on a thread of its own while the forward pass runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Validity:
    """Whether a finished text is what was asked for; `error` says what is wrong with it."""

    valid: bool
    error: str = ""


class Constraint(ABC):
    """One request's constraint, and how far its tokens have come.

    `notes` are what the user should know (a keyword that is checked only afterwards). `error` is
    not empty once the grammar cannot go on (a limit was met, or nothing can follow): from then on
    only a stop token is allowed, and the answer must be reported as invalid.
    """

    notes: tuple[str, ...] = ()
    error: str = ""

    @abstractmethod
    def fill(self, mask: Tensor) -> None:
        """Write the tokens that may come next into `mask`, (W,) int32 on the CPU, contiguous, W ≥ ceil(V / 32)."""

    @abstractmethod
    def accept(self, token: int) -> None:
        """Go on by one token. Raises BottegaError if the mask did not allow it."""

    @abstractmethod
    def rollback(self, count: int) -> None:
        """Take the last `count` accepted tokens back."""

    @abstractmethod
    def copy(self) -> Constraint:
        """Another one at the same place, that goes on by itself (beams, n > 1)."""

    @abstractmethod
    def allowed(self, tokens: Sequence[int]) -> int:
        """How many of these tokens, in this order, could be accepted next (drafts of speculation)."""

    @property
    @abstractmethod
    def is_accepting(self) -> bool:
        """Whether the text may end here."""

    @property
    @abstractmethod
    def is_finished(self) -> bool:
        """Whether only a stop token may follow."""

    def forced(self) -> list[int]:
        """Tokens that must come next whatever the model says, as the tokenizer would write them; often none."""
        return []

    def judge(self, text: str) -> Validity:  # noqa: ARG002 - some constraints look at the text, not at their state
        """What to report of the finished answer: its whole text is `text`."""
        if self.error:
            return Validity(False, self.error)
        return Validity(True) if self.is_accepting else Validity(False, "the text ended before its grammar did")


def mask_words(vocabulary: int) -> int:
    """Length W of the mask of so many tokens, in 32-bit words."""
    return -(-vocabulary // 32)


def unpack(mask: Tensor, vocabulary: int) -> Tensor:
    """(…, W) packed int32 → (…, V) bool."""
    bits = mask.unsqueeze(-1) >> torch.arange(32, dtype=torch.int32, device=mask.device)
    return (bits & 1).bool().flatten(-2)[..., :vocabulary]


class MaskFiller:
    """The masks of one step, filled on one thread while another runs the forward pass.

    Filling releases the interpreter's lock. One thread is enough: a mask costs tens of
    microseconds, and more threads would take cores from the forward pass.
    """

    def __init__(self, vocabulary: int) -> None:
        self.words = mask_words(vocabulary)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")

    def start(self, constraints: Sequence[Constraint | None]) -> Future[list[Tensor | None]]:
        """Begin the masks of these requests (None: unconstrained); `result()` gives them in the same order.

        The constraints must not be touched before the result is there.
        """
        return self._pool.submit(self._fill, list(constraints))

    def _fill(self, constraints: list[Constraint | None]) -> list[Tensor | None]:
        masks: list[Tensor | None] = []
        for constraint in constraints:
            mask = None if constraint is None else torch.empty(self.words, dtype=torch.int32)
            if constraint is not None and mask is not None:
                constraint.fill(mask)
            masks.append(mask)
        return masks

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()
