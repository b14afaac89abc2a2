import numpy as np


def top_p(probabilities: np.ndarray, p: float) -> np.ndarray:
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    kept = np.cumsum(ranked) - ranked < p
    result = np.zeros_like(probabilities)
    result[order[kept]] = ranked[kept]
    return result / result.sum()
