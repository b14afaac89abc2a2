from collections.abc import Callable

import numpy as np


def gradient(f: Callable[[np.ndarray], float], x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    found = np.zeros(np.shape(x))
    for place in np.ndindex(found.shape):
        up, down = np.array(x, dtype=float), np.array(x, dtype=float)
        up[place] += h
        down[place] -= h
        found[place] = (f(up) - f(down)) / (2 * h)
    return found
