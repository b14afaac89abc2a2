import numpy as np


def tfidf(documents: list[list[str]]) -> tuple[list[str], np.ndarray]:
    vocabulary = sorted({word for document in documents for word in document})
    place = {word: i for i, word in enumerate(vocabulary)}
    counts = np.zeros((len(documents), len(vocabulary)))
    for row, document in enumerate(documents):
        for word in document:
            counts[row, place[word]] += 1
    with_it = (counts > 0).sum(0)
    idf = np.log((1 + len(documents)) / (1 + with_it)) + 1
    weights = counts * idf
    norms = np.sqrt((weights**2).sum(1, keepdims=True))
    return vocabulary, weights / np.where(norms > 0, norms, 1)
