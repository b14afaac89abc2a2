import numpy as np


def power_iteration(matrix: np.ndarray, steps: int = 10_000, tolerance: float = 1e-9) -> tuple[float, np.ndarray]:
    v = np.random.default_rng(0).normal(size=len(matrix))
    v = v / np.linalg.norm(v)
    value = 0.0
    for _ in range(steps):
        value = float(v @ (matrix @ v))
        if np.linalg.norm(matrix @ v - value * v) < tolerance:
            break
        w = matrix @ v
        v = w / np.linalg.norm(w)
    return value, v
