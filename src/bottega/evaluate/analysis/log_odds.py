"""Words that mistakes have more often than right answers: log-odds with an informative Dirichlet prior.

Source: B. Monroe, M. Colaresi, K. Quinn, "Fightin' Words" (2008), equations 15, 16, 20 and 22. With counts y of an
n-gram w among n in mistakes (i) and right answers (j), and a prior of α_w = α₀ · y_w / n as if seen before in each,

    δ_w = ln (y_i + α_w) / (n_i + α₀ − y_i − α_w) − ln (y_j + α_w) / (n_j + α₀ − y_j − α_w),
    σ²_w ≈ 1 / (y_i + α_w) + 1 / (y_j + α_w),    z_w = δ_w / σ_w.

An item counts an n-gram once, so that one long text is one witness. Tasks differ in words and in difficulty: δ is taken
within each task and averaged with the weights 1 / σ², so that an n-gram does not stand for its task. Imports no torch.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bottega.evaluate.analysis.significance import ALPHA, benjamini_hochberg, two_sided

LONGEST = 3
FEWEST_ITEMS = 5
PRIOR = 0.05
"""α₀ as a share of all that was counted in the task."""


@dataclass(frozen=True)
class Gram:
    """An n-gram: how many of the mistakes and of the right answers have it, log-odds ratio (nats), z and adjusted p."""

    words: str
    wrong: int
    right: int
    log_odds: float
    z: float
    p_adjusted: float

    @property
    def shown(self) -> bool:
        """Whether it is shown to be more frequent on one side."""
        return self.p_adjusted < ALPHA


def ngrams(parts: Iterable[Sequence[str]], longest: int = LONGEST) -> set[str]:
    """The n-grams of up to `longest` words within each of the parts."""
    return {
        " ".join(part[start : start + size])
        for part in parts
        for size in range(1, longest + 1)
        for start in range(len(part) - size + 1)
    }


def log_odds(strata: Iterable[tuple[Sequence[set[str]], Sequence[set[str]]]]) -> list[Gram]:
    """The n-grams of FEWEST_ITEMS items or more, those most typical of mistakes first.

    Each stratum (a task) is the n-grams of its wrong items and of its right ones. Of n-grams within each other that
    have the same counts the longest stands for all. p is adjusted after Benjamini and Hochberg.
    """
    wrongs, rights = Counter[str](), Counter[str]()
    weighted, weights = defaultdict[str, float](float), defaultdict[str, float](float)
    for wrong, right in strata:
        if not wrong or not right:
            continue
        ones, others = (Counter(gram for item in side for gram in item) for side in (wrong, right))
        wrongs.update(ones)
        rights.update(others)
        for gram, (delta, variance) in _deltas(ones, others).items():
            weighted[gram] += delta / variance
            weights[gram] += 1 / variance
    frequent = [gram for gram in weights if wrongs[gram] + rights[gram] >= FEWEST_ITEMS]
    kept = _longest(frequent, wrongs, rights)
    z_values = [weighted[gram] / math.sqrt(weights[gram]) for gram in kept]
    adjusted = benjamini_hochberg([two_sided(z) for z in z_values])
    found = [
        Gram(gram, wrongs[gram], rights[gram], weighted[gram] / weights[gram], z, p)
        for gram, z, p in zip(kept, z_values, adjusted, strict=True)
    ]
    return sorted(found, key=lambda gram: (-gram.z, gram.words))


def _deltas(ones: Counter[str], others: Counter[str]) -> dict[str, tuple[float, float]]:
    """δ and σ² of every n-gram of one task."""
    in_wrong, in_right = ones.total(), others.total()
    prior = PRIOR * (in_wrong + in_right)
    found = {}
    for gram in ones.keys() | others.keys():
        alpha = PRIOR * (ones[gram] + others[gram])
        y_i, y_j = ones[gram] + alpha, others[gram] + alpha
        delta = math.log(y_i / (in_wrong + prior - y_i)) - math.log(y_j / (in_right + prior - y_j))
        found[gram] = (delta, 1 / y_i + 1 / y_j)
    return found


def _longest(grams: Sequence[str], wrongs: Counter[str], rights: Counter[str]) -> list[str]:
    """Without the n-grams that lie within another of the same counts (and stand in the same items)."""
    by_counts: dict[tuple[int, int], list[str]] = {}
    for gram in sorted(grams, key=lambda gram: (-len(gram.split()), gram)):
        same = by_counts.setdefault((wrongs[gram], rights[gram]), [])
        if not any(f" {gram} " in f" {longer} " for longer in same):
            same.append(gram)
    return [gram for same in by_counts.values() for gram in same]
