import numpy as np


def advantages(rewards: np.ndarray, scale: bool = True) -> np.ndarray:
    centred = rewards - rewards.mean(1, keepdims=True)
    return centred / (rewards.std(1, ddof=1, keepdims=True) + 1e-4) if scale else centred
