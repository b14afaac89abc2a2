"""Elo ratings, vote after vote: R_a += K (score − expected score), R_b −= the same (A. Elo, 1978).

Unlike Bradley–Terry they depend on the order of the votes, forget slowly, and start at 1000 for everyone: with
few votes they are drawn towards it. All resamples of the bootstrap are followed at once, one vote each at a time.
"""

from __future__ import annotations

import numpy as np

from bottega.evaluate.arena.battles import Battles, Integers, Reals
from bottega.evaluate.arena.bradley_terry import INITIAL, expected_score

K = 4.0
BLOCK_VOTES = 1 << 12


def elo_ratings(battles: Battles, k: float = K) -> Reals:
    """Ratings (models,) after all votes in their order."""
    ratings = np.full((1, len(battles.models)), INITIAL)
    _play(ratings, battles, np.arange(len(battles))[:, None], k)
    return ratings[0]


def bootstrap_elo(battles: Battles, k: float = K, *, seed: int, resamples: int) -> Reals:
    """Ratings (resamples, models) after votes drawn with replacement, as many as there are, in random order."""
    ratings = np.full((resamples, len(battles.models)), INITIAL)
    generator = np.random.default_rng(seed)
    for start in range(0, len(battles), BLOCK_VOTES):
        rounds = min(BLOCK_VOTES, len(battles) - start)
        _play(ratings, battles, generator.integers(0, len(battles), size=(rounds, resamples)), k)
    return ratings


def _play(ratings: Reals, battles: Battles, drawn: Integers, k: float) -> None:
    """Update ratings (samples, models) in place by the votes drawn (rounds, samples)."""
    sample = np.arange(len(ratings))
    for first, second, score in zip(battles.first[drawn], battles.second[drawn], battles.score[drawn], strict=True):
        one, other = ratings[sample, first], ratings[sample, second]
        change = k * (score - expected_score(one - other))
        ratings[sample, first] = one + change
        ratings[sample, second] = other - change
