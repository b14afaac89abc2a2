"""Direct preference optimisation (Rafailov et al. 2023), from log-probabilities of whole answers."""

import numpy as np


def dpo(chosen: np.ndarray, rejected: np.ndarray, reference_chosen: np.ndarray, reference_rejected: np.ndarray, beta: float):
    """The mean loss of n pairs, and the margins (n,).

    All four are (n,) log-probabilities. margin = β ((chosen − reference_chosen) − (rejected − reference_rejected)),
    loss = mean of −ln σ(margin). Margins may be as large as ±1000.
    """
    raise NotImplementedError
