"""Nucleus (top-p) sampling: which tokens may be drawn, and with which probabilities.

Keep the smallest set of most probable tokens whose probabilities sum to at least p (Holtzman et al. 2020); all others
get 0; what is kept sums to 1 again.
"""

import numpy as np


def top_p(probabilities: np.ndarray, p: float) -> np.ndarray:
    """(V,) -> (V,): the probabilities to draw from, each at the place of its own token; 0 < p <= 1."""
    raise NotImplementedError
