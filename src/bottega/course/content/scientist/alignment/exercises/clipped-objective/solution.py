import numpy as np


def clipped_loss(log_probs: np.ndarray, old: np.ndarray, advantages: np.ndarray, epsilon: float = 0.2) -> float:
    ratio = np.exp(log_probs - old)
    clipped = np.clip(ratio, 1 - epsilon, 1 + epsilon)
    return float((-np.minimum(ratio * advantages, clipped * advantages)).mean())
