"""The clipped objective of proximal policy optimisation (Schulman et al. 2017), as a loss."""

import numpy as np


def clipped_loss(log_probs: np.ndarray, old: np.ndarray, advantages: np.ndarray, epsilon: float = 0.2) -> float:
    """The loss of some tokens; all arrays are (tokens,).

    The mean of -min(w A, clip(w, 1 - e, 1 + e) A), with w = π / π_old of each token and e = epsilon.
    """
    raise NotImplementedError
