"""The tokens of a group of rows that may still be drawn, and their scores.

A full sort of a vocabulary of 131 072 costs 10 ms, a decoding step of a small model not much more; so the scores stay
in the vocabulary's order until a sampler needs the most probable first, and then only so many as it needs are sorted.
The order is by score, and of equals the lower id first: what is cut does not depend on a sort's whims.

Every operation here gives a row the same bits whatever rows stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

# Nearly every nucleus fits into so many; where one does not, its row alone is sorted whole.
FIRST = 1024
BLOCK = 256


@dataclass(frozen=True)
class Candidates:
    """R rows of K candidates.

    `numbers` says which rows of the batch they are; `tokens` (R, K) int64; `scores` (R, K) float, -inf for those
    cut off; `mass` (R, K) are the probabilities where the K are only the head of the distribution, else None;
    `surprise` (R, K) are bits, kept where mirostat wants to know them.
    """

    numbers: Sequence[int]
    vocabulary: int
    tokens: Tensor
    scores: Tensor
    is_whole: bool = False  # the vocabulary, in its order
    is_sorted: bool = False  # most probable first
    mass: Tensor | None = None
    surprise: Tensor | None = None

    @classmethod
    def whole(cls, numbers: Sequence[int], scores: Tensor) -> Candidates:
        """Every token of the vocabulary. `scores` (R, V)."""
        tokens = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        return cls(numbers, scores.shape[1], tokens, scores, is_whole=True)

    def probabilities(self) -> Tensor:
        """(R, K), in the scores' type."""
        return self.scores.softmax(-1) if self.mass is None else self.mass

    def entropy(self) -> Tensor:
        """(R, 1) nats."""
        return -row_sum((self.scores.softmax(-1) * self.scores.log_softmax(-1)).nan_to_num_(nan=0.0))  # 0 · -inf

    def cut(self, gone: Tensor, *, keeps_best: bool = True) -> Candidates:
        """Without those that `gone` (R, K) names; unless it `keeps_best`, the most probable may be among them."""
        scores = self.scores.masked_fill(gone, -torch.inf)
        return replace(self, scores=scores, is_sorted=self.is_sorted and keeps_best, mass=None)

    def find(self, number: int, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Where those of `tokens` (N,) that are candidates of a row stand, and which of them (N,) bool are."""
        if self.is_whole:
            return tokens, torch.ones_like(tokens, dtype=torch.bool)
        ascending, order = self.tokens[number].sort()
        places = torch.searchsorted(ascending, tokens).clamp_max(len(order) - 1)
        found = ascending[places] == tokens
        return order[places[found]], found

    def take(self, places: Tensor) -> Candidates:
        """Only the rows at `places` (S,) of these rows."""
        numbers = [self.numbers[place] for place in places.tolist()]
        mass = None if self.mass is None else self.mass[places]
        return replace(self, numbers=numbers, tokens=self.tokens[places], scores=self.scores[places], mass=mass)

    def head(self, size: int) -> Candidates:
        """The `size` most probable ones, sorted; their `mass` is what they have among all."""
        size = min(size, self.scores.shape[1])
        places = torch.stack([best(row, size) for row in self.scores])
        scores = self.scores.gather(1, places)
        mass = self.probabilities().gather(1, places)
        tokens = self.tokens.gather(1, places)
        return replace(self, tokens=tokens, scores=scores, is_whole=False, is_sorted=True, mass=mass)

    def sorted(self) -> Candidates:
        """All of them, most probable first."""
        return self if self.is_sorted else replace(self.head(self.scores.shape[1]), mass=None)


def best(row: Tensor, size: int) -> Tensor:
    """Places of the `size` highest scores of a row (K,), highest first, of equals the lower place first. (size,) int64.

    The highest of each block bound from below what may be among the first; only what reaches the bound is sorted.
    """
    if size == 0:
        return torch.zeros(0, dtype=torch.int64, device=row.device)
    length = row.shape[0]
    width = length // (2 * size)
    if row.device.type != "cpu" or width < 4:
        return row.sort(descending=True, stable=True).indices[:size]
    count = length // width
    bound = row[: count * width].view(count, width).amax(1).topk(size).values[-1]
    if bound == -torch.inf:
        bound = row.new_tensor(torch.finfo(row.dtype).min)
    values = row.detach().numpy()
    places = np.flatnonzero(values >= bound.item())
    places = places[np.argsort(-values[places], kind="stable")[:size]]
    if len(places) < size:  # fewer are left than asked for
        places = np.concatenate((places, np.flatnonzero(values == -np.inf)[: size - len(places)]))
    return torch.from_numpy(places)


def row_sum(values: Tensor) -> Tensor:
    """Sum of each row, (R, K) → (R, 1), by blocks, so that its bits do not depend on R."""
    rows, width = values.shape
    padded = torch.nn.functional.pad(values, (0, -width % BLOCK))
    return padded.view(rows, -1, BLOCK).sum(-1).double().cumsum(-1)[:, -1:].to(values.dtype)
