import math
import random

import numpy as np

from bottega.course.grading import close, equal, expect


def _oracle(documents):
    words = sorted(set().union(*documents)) if documents else []
    rows = []
    for document in documents:
        row = []
        for word in words:
            df = sum(word in other for other in documents)
            row.append(document.count(word) * (math.log((1 + len(documents)) / (1 + df)) + 1))
        norm = math.sqrt(sum(each * each for each in row))
        rows.append([each / norm if norm else 0.0 for each in row])
    return words, np.array(rows).reshape(len(documents), len(words))


def _draw(draw, most=6):
    return [[draw.choice("abcdefgh") for _ in range(draw.randint(1, 9))] for _ in range(draw.randint(1, most))]


def check_vocabulary(task):
    """The vocabulary is every word once, in order."""
    got, matrix = task.tfidf([["the", "cat"], ["a", "cat", "sat"]])
    equal(list(got), ["a", "cat", "sat", "the"], "tfidf([['the', 'cat'], ['a', 'cat', 'sat']])[0]")
    equal(np.shape(matrix), (2, 4), "the shape of its matrix")


def check_common_and_rare(task):
    """A word of every document weighs 1, a rare one more."""
    _, got = task.tfidf([["the", "owl"], ["the"], ["the"]])
    close(got[0, 0] / got[0, 1], math.log(4 / 2) + 1, 1e-9, "weight of 'owl' over 'the' in [['the', 'owl'], ['the'], ['the']]",
          "idf of the owl is ln(4 / 2) + 1, of the article ln(4 / 4) + 1")


def check_repeated(task):
    """A word that stands twice in a document counts twice there, and once as a document."""
    _, got = task.tfidf([["a", "b", "b"], ["a"]])
    idf = math.log(3 / 2) + 1
    close(got[0, 1] / got[0, 0], 2 * idf, 1e-9, "weight of 'b' over 'a' in [['a', 'b', 'b'], ['a']]",
          "two times ln(3 / 2) + 1: one document has it")


def check_norm(task):
    """Every row has the length 1."""
    draw = random.Random(1)
    for _ in range(20):
        documents = _draw(draw)
        _, got = task.tfidf(documents)
        close((np.asarray(got) ** 2).sum(1), np.ones(len(documents)), 1e-9, f"squared norms of the rows of tfidf({documents})")


def check_random(task):
    """Random documents have the right weights."""
    draw = random.Random(2)
    for _ in range(30):
        documents = _draw(draw, 8)
        words, matrix = _oracle(documents)
        got = task.tfidf(documents)
        equal(list(got[0]), words, f"tfidf({documents})[0]")
        close(np.asarray(got[1]), matrix, 1e-8, f"tfidf({documents})[1]")


def check_empty(task):
    """A document without words has a row of zeros, and no warning of a division."""
    with np.errstate(all="raise"):
        _, got = task.tfidf([["a"], []])
    expect(np.isfinite(got).all(), "a row is not finite", "tfidf([['a'], []])[1]", "[[1], [0]]", got)
    close(np.asarray(got), np.array([[1.0], [0.0]]), 1e-9, "tfidf([['a'], []])[1]")
