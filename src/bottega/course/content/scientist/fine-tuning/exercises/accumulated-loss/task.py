"""The loss of a batch that does not fit, computed part by part. As it stands it has the classic bug: mend it."""

import numpy as np


def accumulated(parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The mean loss of all trained tokens of a batch; 0.0 where none is trained.

    Each part has `losses` (n,) of its tokens and `trained` (n,) bool. Parts have different lengths. However the batch
    is cut into parts, the result is the same.
    """
    raise NotImplementedError("sum(losses[trained].mean() for losses, trained in parts) / len(parts) is not it")
