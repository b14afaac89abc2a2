"""Placement: twelve questions, each the one that tells most (adaptive testing, a three-parameter logistic model).

    P(θ) = g + (1 − g) σ(θ − b)        I(θ) = ((1 − g) σ (1 − σ))² / (P (1 − P))

θ is the learner's ability, b an item's difficulty, g its chance of a guess. The posterior of θ over a grid starts as
N(0, 1.2²); the next item has the largest information at its mean, and is of a concept that was not asked yet.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from bottega.course.schema import Item

QUESTIONS = 12
SPREAD = 1.2
GRID = tuple(i / 10 for i in range(-40, 41))


class Ability:
    """The posterior of θ."""

    def __init__(self) -> None:
        self.weights = [math.exp(-0.5 * (theta / SPREAD) ** 2) for theta in GRID]

    def observe(self, item: Item, right: bool) -> None:
        """Take an answer in."""
        for i, theta in enumerate(GRID):
            p = probability(theta, item)
            self.weights[i] *= p if right else 1 - p
        total = sum(self.weights)
        self.weights = [weight / total for weight in self.weights]

    @property
    def mean(self) -> float:
        """The posterior mean."""
        return sum(w * theta for w, theta in zip(self.weights, GRID, strict=True)) / sum(self.weights)

    @property
    def deviation(self) -> float:
        """The posterior standard deviation."""
        mean, total = self.mean, sum(self.weights)
        return math.sqrt(sum(w * (theta - mean) ** 2 for w, theta in zip(self.weights, GRID, strict=True)) / total)


def probability(theta: float, item: Item) -> float:
    """P of a right answer at ability `theta`."""
    return item.guess + (1 - item.guess) / (1 + math.exp(item.difficulty - theta))


def information(theta: float, item: Item) -> float:
    """Fisher information of an item at `theta`."""
    rise = 1 / (1 + math.exp(item.difficulty - theta))
    p = probability(theta, item)
    return ((1 - item.guess) * rise * (1 - rise)) ** 2 / (p * (1 - p))


def next_item(items: Sequence[Item], asked: Collection[str], ability: Ability) -> Item | None:
    """The item that tells most, of a concept not in `asked`; None where there is none."""
    left = [item for item in items if item.concept not in asked]
    mean = ability.mean
    return max(left, key=lambda item: information(mean, item), default=None)
