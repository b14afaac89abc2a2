"""Cross-entropy and Kullback-Leibler divergence of two distributions over the same outcomes, in nats."""

import math

import numpy as np


def cross_entropy(p: np.ndarray, q: np.ndarray) -> float:
    """−Σ p ln q, with 0 ln anything = 0; infinite where p > 0 and q = 0. Entropy is cross_entropy(p, p)."""
    raise NotImplementedError


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Σ p ln(p / q): what whoever believes q pays above the entropy."""
    raise NotImplementedError
