import numpy as np


def ppmi(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, float)
    n = counts.sum()
    rows = counts.sum(1, keepdims=True)
    columns = counts.sum(0, keepdims=True)
    ratio = counts / (rows * columns / n)
    pmi = np.log(ratio, out=np.zeros_like(ratio), where=ratio > 0)
    return np.maximum(pmi, 0)
