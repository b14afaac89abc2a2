"""Dropout, in the form in which it is used today (inverted)."""

import numpy as np


def dropout(x: np.ndarray, p: float, training: bool, draw: np.random.Generator) -> np.ndarray:
    """x with each entry set to 0 with probability p, independently, while training.

    What remains is scaled so that the expectation of every entry is what it was. Outside training the entries of x come
    back unchanged. p is in 0 ≤ p < 1, or ValueError, also outside training. Take chances from `draw` (draw.random), so
    that the same seed gives the same mask. x stays as it is.
    """
    raise NotImplementedError


def dropout_gradient(gradient: np.ndarray, x: np.ndarray, out: np.ndarray, p: float) -> np.ndarray:
    """The gradient by x, from the gradient by out = dropout(x, p, True, draw). No entry of x is 0."""
    raise NotImplementedError
