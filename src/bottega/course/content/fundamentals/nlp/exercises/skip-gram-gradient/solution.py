import numpy as np


def skip_gram(centre: np.ndarray, context: np.ndarray, word: int, neighbour: int, negatives: np.ndarray):
    others = np.concatenate([[neighbour], np.asarray(negatives, int)]).astype(int)
    signs = np.where(np.arange(len(others)) == 0, 1.0, -1.0)
    scores = signs * (context[others] @ centre[word])
    loss = np.logaddexp(0, -scores).sum()
    slopes = -signs * np.exp(-np.logaddexp(0, scores))
    by_centre, by_context = np.zeros_like(centre), np.zeros_like(context)
    by_centre[word] = slopes @ context[others]
    np.add.at(by_context, others, slopes[:, None] * centre[word])
    return float(loss), by_centre, by_context
