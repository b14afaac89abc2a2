"""TF-IDF, smoothed and normalised as scikit-learn does it."""

import numpy as np


def tfidf(documents: list[list[str]]) -> tuple[list[str], np.ndarray]:
    """Documents as lists of words -> the vocabulary in alphabetical order, and a matrix (documents, vocabulary).

        tf(d, w)  = how often w stands in d
        idf(w)    = ln((1 + N) / (1 + df(w))) + 1       N documents, df(w) of them have w
        row of d  = tf · idf, divided by its Euclidean norm

    The row of a document without words is all zeros.
    """
    raise NotImplementedError
