"""Naive Bayes on counts of words, the baseline of text classification.

    score(c) = ln P(c) + sum over the words w of the text of ln P(w | c)
    P(c)     = the share of the training texts with label c
    P(w | c) = (count of w in the texts of class c + 1) / (count of all words in them + size of the vocabulary)
"""


def train(texts: list[list[str]], labels: list[str]) -> object:
    """Whatever `scores` needs. The vocabulary is every word of the training texts, of all classes."""
    raise NotImplementedError


def scores(model: object, text: list[str]) -> dict[str, float]:
    """The score of each class for a text. Words that are not in the vocabulary are passed over."""
    raise NotImplementedError


def classify(model: object, text: list[str]) -> str:
    """The class with the highest score; of equal ones the first in alphabetical order."""
    raise NotImplementedError
