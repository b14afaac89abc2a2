"""Advantages of GRPO (Shao et al. 2024) and of Dr. GRPO (Liu et al. 2025)."""

import numpy as np


def advantages(rewards: np.ndarray, scale: bool = True) -> np.ndarray:
    """(groups, n) rewards -> (groups, n) advantages, n > 1.

    reward − mean of its group; with `scale`, over (the group's standard deviation + 1e-4), n − 1 in its denominator.
    """
    raise NotImplementedError
