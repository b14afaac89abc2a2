import math

import numpy as np


def fit(x: np.ndarray) -> tuple[float, float, float]:
    n = len(x)
    if n < 2:
        raise ValueError("at least two numbers")
    mean = float(x.mean())
    squares = float(((x - mean) ** 2).sum())
    likeliest = squares / n
    return mean, likeliest, squares / (n - 1)


def log_likelihood(x: np.ndarray, mean: float, variance: float) -> float:
    return float(-len(x) / 2 * math.log(2 * math.pi * variance) - ((x - mean) ** 2).sum() / (2 * variance))
