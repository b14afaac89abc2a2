import numpy as np


def tf_idf(documents: list[list[str]]) -> tuple[list[str], np.ndarray]:
    vocabulary = sorted({word for document in documents for word in document})
    place = {word: at for at, word in enumerate(vocabulary)}
    counts = np.zeros((len(documents), len(vocabulary)))
    for row, document in enumerate(documents):
        for word in document:
            counts[row, place[word]] += 1
    df = (counts > 0).sum(0)
    idf = np.log((1 + len(documents)) / (1 + df)) + 1
    weights = counts * idf
    lengths = np.sqrt((weights**2).sum(1, keepdims=True))
    return vocabulary, weights / np.where(lengths > 0, lengths, 1)
