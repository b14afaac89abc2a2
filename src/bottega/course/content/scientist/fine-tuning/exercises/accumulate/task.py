"""A batch in parts.

A step's loss is the mean over all its trained tokens. The batch does not fit at once, so it comes in parts. Each part gives
the *mean* loss over its own trained tokens, the gradient of that mean, and how many trained tokens it has.
"""

import numpy as np


def accumulate(parts: list[tuple[float, np.ndarray, int]], limit: float) -> tuple[float, np.ndarray]:
    """Parts (mean loss, gradient, trained tokens) -> the whole batch's mean loss, and its gradient, clipped.

    The gradient of the whole batch is clipped once: if its norm is above `limit`, it is scaled down to it. Parts without a
    trained token (their loss may be NaN) count for nothing. Raises ValueError if no part has any. The parts are not changed.
    """
    raise NotImplementedError
