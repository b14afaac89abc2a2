"""TF-IDF as scikit-learn computes it, with NumPy alone."""

import numpy as np


def tf_idf(documents: list[list[str]]) -> tuple[list[str], np.ndarray]:
    """The vocabulary, sorted, and the weights, one row a document and one column a word.

    weight = count · (ln((1 + n) / (1 + df)) + 1), n documents, of which df have the word; then each row is divided by
    its Euclidean length (a row of zeros stays as it is).
    """
    raise NotImplementedError
