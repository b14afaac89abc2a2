import numpy as np


def dropout(x: np.ndarray, p: float, training: bool, draw: np.random.Generator) -> np.ndarray:
    if not 0 <= p < 1:
        raise ValueError("p is a probability below 1")
    if not training:
        return x.copy()
    kept = draw.random(x.shape) >= p
    return x * kept / (1 - p)


def dropout_gradient(gradient: np.ndarray, x: np.ndarray, out: np.ndarray, p: float) -> np.ndarray:
    return gradient * (out != 0) / (1 - p)
