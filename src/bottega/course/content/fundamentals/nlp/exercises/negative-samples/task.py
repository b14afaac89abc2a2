"""Skip-gram with negative samples (Mikolov et al. 2013): the loss of one pair, and its gradients."""

import numpy as np


def loss_and_gradients(centre: np.ndarray, context: np.ndarray, negatives: np.ndarray):
    """The loss −ln σ(u·v) − Σ ln σ(−n·v), and its gradients.

    Args:
        centre: v (d,), the vector of the word in the middle.
        context: u (d,), that of a true neighbour.
        negatives: n (k, d), those of the samples.

    Returns (loss, gradient of centre (d,), of context (d,), of negatives (k, d)). Scores may be as large as ±1000.
    """
    raise NotImplementedError
