"""The loss of a causal language model on one text.

logits[t] are the scores for the token behind token t. The loss is the mean of -ln p over those tokens that have a
token before them and whose mask is True.
"""

import numpy as np


def causal_loss(logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> float:
    """(T, V), (T,) ints and (T,) bools -> the mean loss in nats."""
    raise NotImplementedError
