"""The smallest rank that is good enough (Eckart and Young 1936)."""

import numpy as np


def compress(matrix: np.ndarray, error: float) -> tuple[int, np.ndarray]:
    """The smallest rank (at least 1) whose best approximation is within `error` of the matrix, and that approximation.

    Within means: |matrix − approximation| ≤ error · |matrix|, both the root of the sum of squares.
    """
    raise NotImplementedError
