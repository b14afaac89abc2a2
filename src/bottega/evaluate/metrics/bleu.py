"""BLEU of a corpus: geometric mean of n-gram precisions times a brevity penalty. Imports no torch.

Sources: Papineni et al. 2002 (ACL); tokens of NIST's mteval-v13a; zero precisions smoothed as there ("exp": Chen &
Cherry 2014, method 3). Equal to sacrebleu's signature `case:mixed|eff:no|tok:13a|smooth:exp`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ORDER = 4
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_SPLITS = (
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),
    # Period and comma unless between digits; a dash behind a digit.
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def tokens_13a(text: str) -> list[str]:
    """`text` as mteval-v13a splits it."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    text = f" {text} "
    for pattern, replacement in _SPLITS:
        text = pattern.sub(replacement, text)
    return text.split()


def bleu_statistics(references: Sequence[str], prediction: str) -> list[int]:
    """What an item adds to the corpus: tokens, tokens of the nearest reference, matches and totals of orders 1 to 4."""
    predicted = tokens_13a(prediction)
    counts = _ngrams(predicted)
    split = [tokens_13a(reference) for reference in references]
    allowed: Counter[tuple[str, ...]] = Counter()
    for words in split:
        allowed |= _ngrams(words)
    nearest = min((len(words) for words in split), key=lambda size: (abs(size - len(predicted)), size))
    matches = [0] * ORDER
    for ngram, count in (counts & allowed).items():
        matches[len(ngram) - 1] += count
    totals = [max(0, len(predicted) - order) for order in range(ORDER)]
    return [len(predicted), nearest, *matches, *totals]


def bleu_score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """BLEU in percent of summed statistics (…, 10)."""
    length, reference = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + ORDER], sums[..., 2 + ORDER :]
    missed = matches == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        # The i-th order without a match counts as 2^-i of one.
        precision = np.where(missed, 0.5 ** np.cumsum(missed, axis=-1), matches) / totals
        penalty = np.exp(np.minimum(0.0, 1 - reference / length))
        score = 100 * penalty * np.exp(np.log(precision).mean(axis=-1))
    return np.where((totals > 0).all(axis=-1) & matches.any(axis=-1), score, 0.0)


def _ngrams(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + n]) for n in range(1, ORDER + 1) for at in range(len(words) - n + 1))
