"""Encode a category: a column for each value that the training rows have."""

import numpy as np


def one_hot(train: list[str], test: list[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """n and m values -> (n, k) and (m, k) of floats, and the k categories that the columns stand for.

    The categories are the different values of the training rows, sorted. A row has 1.0 in the column of its value and
    0.0 elsewhere; a value that the training rows do not have gives a row of zeros. Both tables have k columns, also
    where `test` is empty or lacks some categories.
    """
    raise NotImplementedError
