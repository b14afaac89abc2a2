"""One step of Adam.

    m <- b1 m + (1 - b1) g              v <- b2 v + (1 - b2) g²
    w <- w - rate · (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
"""

import numpy as np


def adam_step(
    w: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, t: int, rate: float = 1e-3,
    b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-8,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Weights, gradient, both averages and the number of this step -> new weights, new m, new v.

    The first step has t = 1; for t below 1 raise ValueError. The arrays that are given stay as they are.
    """
    raise NotImplementedError
