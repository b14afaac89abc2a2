"""Rewards from pairwise votes by maximum likelihood (Bradley and Terry 1952)."""

import numpy as np


def fit(winners: np.ndarray, losers: np.ndarray, count: int, steps: int = 3000, rate: float = 0.5) -> np.ndarray:
    """Rewards (count,) with mean 0 that make the votes likeliest, P(i beats j) = σ(r_i − r_j).

    winners, losers: (votes,) int, the answers of each vote. Gradient descent on the mean of −ln σ, from zero; every
    answer wins and loses at least once.
    """
    raise NotImplementedError
