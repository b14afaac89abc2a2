"""A low-rank detour beside a frozen matrix (Hu et al. 2021)."""

import numpy as np


def start(d_in: int, d_out: int, r: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A (r, d_in) drawn from a normal distribution of mean 0, and B (d_out, r) of zeros."""
    raise NotImplementedError


def forward(x: np.ndarray, w: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """x Wᵀ + (alpha / r) x Aᵀ Bᵀ: (batch, d_in) -> (batch, d_out), w (d_out, d_in)."""
    raise NotImplementedError


def merged(w: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """The one matrix (d_out, d_in) that does the same."""
    raise NotImplementedError
