"""ROUGE of one text: F1 of n-grams, of the longest common subsequence, and of that line by line. Imports no torch.

Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries". Equal to rouge_score without stemming; words
are runs of a–z and 0–9 in lower case, so that other scripts have none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence


def rouge_n(reference: str, prediction: str, order: int) -> float:
    """F1 of n-grams of `order` words."""
    gold, found = (_ngrams(_words(text), order) for text in (reference, prediction))
    return _f1((gold & found).total(), gold.total(), found.total())


def rouge_l(reference: str, prediction: str) -> float:
    """F1 of the longest common subsequence of words."""
    gold, found = _words(reference), _words(prediction)
    return _f1(_common_lengths(gold, found)[-1][-1], len(gold), len(found))


def rouge_lsum(reference: str, prediction: str) -> float:
    """F1 of the union, over lines of the prediction, of what each has in common with a line of the reference."""
    gold, found = ([_words(line) for line in text.split("\n")] for text in (reference, prediction))
    left_gold, left_found = (Counter(word for line in lines for word in line) for lines in (gold, found))
    sizes = left_gold.total(), left_found.total()
    hits = 0
    for line in gold:
        # A word counts as often as both texts have it, whatever lines share it.
        for place in sorted(set().union(*(_common_places(line, other) for other in found))):
            word = line[place]
            if left_gold[word] > 0 and left_found[word] > 0:
                hits += 1
                left_gold[word] -= 1
                left_found[word] -= 1
    return _f1(hits, *sizes)


ROUGE: dict[str, Callable[[str, str], float]] = {
    "rouge1": lambda reference, prediction: rouge_n(reference, prediction, 1),
    "rouge2": lambda reference, prediction: rouge_n(reference, prediction, 2),
    "rougeL": rouge_l,
    "rougeLsum": rouge_lsum,
}


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + order]) for at in range(len(words) - order + 1))


def _f1(common: int, gold: int, found: int) -> float:
    return 2 * common / (gold + found) if common else 0.0


def _common_lengths(first: Sequence[str], second: Sequence[str]) -> list[list[int]]:
    """Entry [i][j]: length of the longest common subsequence of the first i and the first j words."""
    table = [[0] * (len(second) + 1)]
    for word in first:
        above, row = table[-1], [0]
        for column, other in enumerate(second):
            row.append(above[column] + 1 if word == other else max(above[column + 1], row[column]))
        table.append(row)
    return table


def _common_places(first: Sequence[str], second: Sequence[str]) -> set[int]:
    """Places in `first` of one longest common subsequence: read from the end, going back in `first` first."""
    table = _common_lengths(first, second)
    row, column = len(first), len(second)
    places = set()
    while row and column:
        if first[row - 1] == second[column - 1]:
            row, column = row - 1, column - 1
            places.add(row)
        elif table[row][column - 1] > table[row - 1][column]:
            column -= 1
        else:
            row -= 1
    return places
