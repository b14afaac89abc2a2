import numpy as np


def compress(matrix: np.ndarray, error: float) -> tuple[int, np.ndarray]:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    left = 1 - np.cumsum(s**2) / np.sum(s**2)
    rank = int(np.argmax(left <= error**2 + 1e-12) + 1)
    return rank, (u[:, :rank] * s[:rank]) @ vt[:rank]
