"""Generalised advantage estimation (Schulman et al. 2016), for one answer."""

import numpy as np


def gae(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Advantages (T,) and returns (T,) of the T tokens of an answer.

    δ_t = r_t + γ V_{t+1} − V_t with V_T = 0;  A_t = δ_t + γ λ A_{t+1};  returns are A + V.
    """
    raise NotImplementedError
