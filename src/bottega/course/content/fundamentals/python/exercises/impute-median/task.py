"""Fill gaps with the median, learned from the training rows alone."""

import numpy as np


def impute_median(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) and (m, d), with nan for what is missing -> (n, 2d) and (m, 2d), without nan.

    The first d columns are the table with its gaps filled: in each column with the median of the training rows' known
    values (the mean of the two in the middle where their number is even). A column without any known value in the
    training rows is filled with 0. The other d columns are 1.0 where the value was missing and 0.0 elsewhere. The
    tables that were given are not changed; `test` may have no rows.
    """
    raise NotImplementedError
