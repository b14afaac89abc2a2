"""The eigenvalue of largest magnitude, by multiplying."""

import numpy as np


def power_iteration(matrix: np.ndarray, steps: int = 10_000, tolerance: float = 1e-9) -> tuple[float, np.ndarray]:
    """The eigenvalue of largest magnitude of a symmetric matrix (n, n), with its sign, and a unit eigenvector (n,).

    Begins with a vector drawn with seed 0; ends when |A v − λ v| < tolerance, or after so many steps.
    """
    raise NotImplementedError
