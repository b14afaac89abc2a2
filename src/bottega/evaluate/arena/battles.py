"""Votes as arrays, and who is connected to whom.

Ratings compare two models only along chains of votes. *Groups* of models that never met each other's members have no
common scale. Within a group, the likelihood of Bradley and Terry has a finite maximum only among models that each
beat, in steps, every other (Ford, 1957): the *rated* ones. A tie counts as half a win of each side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottega.evaluate.arena.votes import Vote

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Battles:
    """Votes by number of the models: in vote v, `first[v]` met `second[v]` and got `score[v]`: 1, ½ or 0."""

    models: tuple[str, ...]
    first: Integers
    second: Integers
    score: Reals

    def __len__(self) -> int:
        return len(self.score)

    def wins(self, weights: Reals | None = None) -> Reals:
        """W (models, models): points that the row's model took from the column's; votes count `weights` times."""
        count = len(self.models)
        each = np.ones(len(self)) if weights is None else weights
        won = np.bincount(self.first * count + self.second, each * self.score, count * count)
        lost = np.bincount(self.second * count + self.first, each * (1 - self.score), count * count)
        return (won + lost).astype(np.float64).reshape(count, count)

    def among(self, kept: Flags) -> Battles:
        """The votes between models of `kept` (models,), numbered anew."""
        inside = kept[self.first] & kept[self.second]
        number = np.cumsum(kept) - 1
        names = tuple(name for name, keep in zip(self.models, kept, strict=True) if keep)
        return Battles(names, number[self.first[inside]], number[self.second[inside]], self.score[inside])


def battles_of(votes: Sequence[Vote]) -> Battles:
    """The votes in the order given, models in the order of their names."""
    models = sorted({name for vote in votes for name in (vote.model_a, vote.model_b)})
    number = {name: place for place, name in enumerate(models)}
    return Battles(
        tuple(models),
        np.array([number[vote.model_a] for vote in votes], dtype=np.int64),
        np.array([number[vote.model_b] for vote in votes], dtype=np.int64),
        np.array([vote.score for vote in votes], dtype=np.float64),
    )


def reached(edges: Flags, start: int) -> Flags:
    """Which models a path of `edges` (…, models, models) leads to from `start`, itself included: (…, models)."""
    found = np.zeros(edges.shape[:-1], dtype=bool)
    found[..., start] = True
    while True:
        more = found | (found[..., :, None] & edges).any(axis=-2)
        if (more == found).all():
            return found
        found = more


def connected_groups(wins: Reals) -> list[list[int]]:
    """Models that are connected by votes, the largest group first."""
    met = (wins + wins.T) > 0
    left, groups = set(range(len(wins))), []
    while left:
        group = np.flatnonzero(reached(met, min(left))).tolist()
        groups.append(group)
        left -= set(group)
    return sorted(groups, key=len, reverse=True)


def rated_models(wins: Reals) -> Flags:
    """The largest set of models that each beat every other in steps (of equals, the one with the most votes)."""
    beat, games = wins > 0, (wins + wins.T).sum(axis=1)
    best, left = np.zeros(len(wins), dtype=bool), np.ones(len(wins), dtype=bool)
    while left.any():
        start = int(np.argmax(left))
        found = reached(beat, start) & reached(beat.T, start)
        if (found.sum(), games[found].sum()) > (best.sum(), games[best].sum()):
            best = found
        left &= ~found
    return best
