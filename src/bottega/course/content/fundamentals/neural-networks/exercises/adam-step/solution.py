import numpy as np


def adam_step(
    w: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, t: int, rate: float = 1e-3,
    b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-8,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    if t < 1:
        raise ValueError("the first step has t = 1")
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    mean = m / (1 - b1**t)
    square = v / (1 - b2**t)
    return w - rate * mean / (np.sqrt(square) + epsilon), m, v
