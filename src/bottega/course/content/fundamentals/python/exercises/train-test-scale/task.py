"""Scale without a leak: find the bugs.

This function stands in many notebooks. It runs, and it is wrong in more than one way. Make it do what its docstring says.
"""

import numpy as np


def train_test_scale(X: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split the rows of X (n, d) by chance, and scale the columns by what the training rows tell.

    `round(share * n)` rows are for the test. Which ones is drawn with `seed`: the same seed gives the same split, and
    another seed another one. Every column of the training rows ends with mean 0 and standard deviation 1 (divide by n,
    not by n - 1); a column that is constant in the training rows ends as X minus its mean. X itself is not changed.

    Returns: scaled training rows, scaled test rows, and the places in X of the training rows and of the test rows, each
    in the order in which the rows are returned.
    """
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    size = round(share * len(X))
    rows = np.arange(len(X))
    return X[size:], X[:size], rows[size:], rows[:size]
