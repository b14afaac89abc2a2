"""Loss and gradients of a perceptron with one hidden layer, over a batch.

    h = max(0, x W1 + b1)          scores = h W2 + b2          p = softmax of each row of the scores
    loss = mean over the rows of -ln p[label of the row]
"""

import numpy as np


def mlp_gradients(
    x: np.ndarray, labels: np.ndarray, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray
) -> tuple[float, dict[str, np.ndarray]]:
    """x (N, D), labels (N,) ints, w1 (D, H), b1 (H,), w2 (H, C), b2 (C,) -> the loss, and its gradients.

    The dictionary has the keys "w1", "b1", "w2", "b2"; each gradient has its parameter's shape. Where a hidden neuron's
    sum is exactly 0, its slope is 0. Large scores must not overflow. The arguments stay as they are.
    """
    raise NotImplementedError
