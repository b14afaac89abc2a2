import math

import numpy as np


def cross_entropy(p: np.ndarray, q: np.ndarray) -> float:
    kept = p > 0
    if np.any(q[kept] == 0):
        return math.inf
    return float(-(p[kept] * np.log(q[kept])).sum())


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return cross_entropy(p, q) - cross_entropy(p, p)
