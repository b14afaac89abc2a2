"""Skip-gram with negative samples: the loss of one centre word, and its gradients.

With the centre word's vector u, the true neighbour's context vector v, and k random words' context vectors n_1 … n_k,
    loss = -ln sigma(u · v) - sum over i of ln sigma(-u · n_i),        sigma(z) = 1 / (1 + exp(-z))
"""

import numpy as np


def skip_gram(centre: np.ndarray, context: np.ndarray, word: int, neighbour: int, negatives: np.ndarray):
    """centre and context are (V, D), negatives is (k,) ints, in which a word may stand more than once.

    Returns the loss and the gradients by `centre` and by `context`, both (V, D), with zeros for the words that do not
    take part. k may be 0. Scores of a thousand must not overflow. The arguments stay as they are.
    """
    raise NotImplementedError
