"""chrF and chrF++ of a corpus: F2 of n-grams of characters (with the pluses, also of words). Imports no torch.

Sources: Popović 2015 (WMT, chrF) and 2017 (WMT, chrF++). Equal to sacrebleu's `nc:6|nw:0|space:no|eff:yes` and `nw:2`:
precision and recall are averaged over the orders that both texts have.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CHARACTER_ORDER = 6
BETA = 2


def chrf_statistics(references: Sequence[str], prediction: str, *, word_order: int = 0) -> list[int]:
    """What an item adds to the corpus: n-grams of the prediction, of the reference and common ones, for each order.

    Of several references, the one with the highest score counts. `word_order` is 2 for chrF++.
    """
    predicted = _ngrams(prediction, word_order)
    found = []
    for reference in references:
        statistics: list[int] = []
        for ours, theirs in zip(predicted, _ngrams(reference, word_order), strict=True):
            statistics += [ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()]
        found.append(statistics)
    if len(found) == 1:
        return found[0]
    return found[int(chrf_score(np.asarray(found, dtype=np.float64)).argmax())]


def chrf_score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """chrF in percent of summed statistics (…, 3 × orders)."""
    predicted, reference, common = (sums[..., part::3] for part in range(3))
    present = (predicted > 0) & (reference > 0)
    orders = np.maximum(1, present.sum(axis=-1))
    precision = np.divide(common, predicted, out=np.zeros_like(common), where=present).sum(axis=-1) / orders
    recall = np.divide(common, reference, out=np.zeros_like(common), where=present).sum(axis=-1) / orders
    below = BETA**2 * precision + recall
    above = 100 * (1 + BETA**2) * precision * recall
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)


def _ngrams(text: str, word_order: int) -> list[Counter[str]]:
    characters, words = "".join(text.split()), _words(text)
    return [
        *(
            Counter(characters[at : at + n] for at in range(len(characters) - n + 1))
            for n in range(1, CHARACTER_ORDER + 1)
        ),
        *(Counter(" ".join(words[at : at + n]) for at in range(len(words) - n + 1)) for n in range(1, word_order + 1)),
    ]


def _words(text: str) -> list[str]:
    """Words with one punctuation mark split off: the last, else the first."""
    words: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            words += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            words += [word[0], word[1:]]
        else:
            words.append(word)
    return words
