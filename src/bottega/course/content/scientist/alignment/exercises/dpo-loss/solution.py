import numpy as np


def dpo(chosen: np.ndarray, rejected: np.ndarray, reference_chosen: np.ndarray, reference_rejected: np.ndarray, beta: float):
    margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return float(np.logaddexp(0, -margin).mean()), margin
