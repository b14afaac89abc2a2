import numpy as np

from bottega.course.grading import close, equal


def check_vocabulary(task):
    """The vocabulary is sorted, each word once."""
    words, weights = task.tf_idf([["b", "a", "b"], ["c"]])
    equal(list(words), ["a", "b", "c"], call='tf_idf([["b", "a", "b"], ["c"]])[0]')
    equal(np.asarray(weights).shape, (2, 3), call='tf_idf([["b", "a", "b"], ["c"]])[1].shape')


def check_idf(task):
    """A word of every document has the idf 1, a rarer one more."""
    _, weights = task.tf_idf([["a"], ["a"], ["a"], ["a", "b"]])
    rare = np.log(5 / 2) + 1
    expected = np.array([[1, 0]] * 3 + [[1 / np.hypot(1, rare), rare / np.hypot(1, rare)]])
    close(weights, expected, 1e-9, 'tf_idf([["a"], ["a"], ["a"], ["a", "b"]])[1]')


def check_repeated(task):
    """A word that occurs often in one document is still in one document."""
    _, weights = task.tf_idf([["a", "a", "a", "b"], ["b"]])
    rare = 3 * (np.log(3 / 2) + 1)
    close(weights, np.array([[rare / np.hypot(rare, 1), 1 / np.hypot(rare, 1)], [0, 1]]), 1e-9, 'tf_idf([["a", "a", "a", "b"], ["b"]])[1]')


def check_empty(task):
    """A document without words is a row of zeros, not of NaN."""
    _, weights = task.tf_idf([["a"], []])
    close(weights, np.array([[1.0], [0.0]]), 1e-12, 'tf_idf([["a"], []])[1]')


def check_like_scikit_learn(task):
    """Random documents: the numbers are scikit-learn's."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    draw = np.random.default_rng(3)
    for _ in range(10):
        documents = [[f"w{each}" for each in draw.integers(0, 12, size=draw.integers(1, 15))] for _ in range(draw.integers(2, 9))]
        vectorizer = TfidfVectorizer(analyzer=lambda document: document)
        expected = vectorizer.fit_transform(documents).toarray()
        words, weights = task.tf_idf(documents)
        equal(list(words), list(vectorizer.get_feature_names_out()), call=f"tf_idf({documents})[0]")
        close(weights, expected, 1e-9, f"tf_idf({documents})[1]")
