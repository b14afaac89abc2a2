"""From the values of items to one figure with its standard error and interval. Imports no torch.

Every aggregation but the median is a function of sums over items, so that a resample is a vector of weights, and the
statistics of an item are counted once. Names and values are those of lm-evaluation-harness 0.4.13. Errors:

- means: sample sd / √n, as there. The 95 % interval is Wilson's where all values are 0 or 1, else Student's.
- perplexities, bits per byte, Brier scores: the delta method for a ratio of sums, a perplexity's interval that of its
  logarithm, transformed. (There: the bootstrap, or nothing.)
- F1, Matthews' correlation, BLEU, chrF, TER, median: the bootstrap over items, as there; percentile interval.
- groups: pooled as there; the interval by Zou & Donner 2008 ("MOVER"), which keeps the asymmetry of the members'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottega.core.errors import BottegaError, UserError, did_you_mean
from bottega.evaluate.metrics.bleu import bleu_score, bleu_statistics
from bottega.evaluate.metrics.chrf import chrf_score, chrf_statistics
from bottega.evaluate.metrics.ter import ter_score, ter_statistics
from bottega.evaluate.statistics import (
    BLOCK_DRAWS,
    CONFIDENCE,
    RESAMPLES,
    Estimate,
    mean_interval,
    ratio_interval,
    wilson,
)

Array = NDArray[np.float64]
CORPUS_RESAMPLES = 1000


@dataclass(frozen=True)
class Aggregation:
    """A figure over items as a function of sums: `score(statistics(values).sum(axis=0))`."""

    statistics: Callable[[Sequence[Any]], Array]
    """(items, d) of the items' values."""
    score: Callable[[Array], Array]
    """(…) of sums (…, d)."""
    interval: Callable[[Array], Estimate] | None = None
    """The closed form, of statistics (items, d); without one there is the bootstrap."""
    resamples: int = RESAMPLES

    def __call__(self, values: Sequence[Any]) -> float:
        """The bare figure."""
        return float(self.score(self.statistics(values).sum(axis=0)))

    def estimate(self, statistics: Array, seed: int) -> Estimate:
        """The figure of `statistics` (items, d) with its error and interval."""
        if self.interval is not None:
            return self.interval(statistics)
        replicates = resampled(self.score, statistics, seed=seed, resamples=self.resamples)
        return _from_replicates(float(self.score(statistics.sum(axis=0))), replicates, len(statistics))


class Median(Aggregation):
    """The upper median. Its bootstrap needs no resamples: see `estimate`."""

    def __call__(self, values: Sequence[Any]) -> float:
        """The bare figure."""
        return float(np.sort(self.statistics(values)[:, 0])[len(values) // 2])

    def estimate(self, statistics: Array, seed: int) -> Estimate:
        """Of n drawn ranks, n times a uniform, the k-th smallest is n times a Beta(k, n + 1 - k): draw it at once."""
        ordered, count = np.sort(statistics[:, 0]), len(statistics)
        rank = count // 2 + 1
        drawn = np.random.default_rng(seed).beta(rank, count + 1 - rank, size=self.resamples)
        replicates = ordered[np.minimum((drawn * count).astype(np.int64), count - 1)]
        return _from_replicates(float(ordered[rank - 1]), replicates, count)


def resampled(score: Callable[[Array], Array], statistics: Array, *, seed: int, resamples: int) -> Array:
    """`score` of `resamples` bootstrap samples of the rows of `statistics` (items, d); equal rows are drawn as one."""
    rows, counts = np.unique(statistics, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_DRAWS // len(rows))
    share = counts / counts.sum()
    drawn = (
        generator.multinomial(len(statistics), share, size=min(block, resamples - start))
        for start in range(0, resamples, block)
    )
    return np.concatenate([score(weights @ rows) for weights in drawn])


def _from_replicates(value: float, replicates: Array, count: int) -> Estimate:
    # Where no resample differs, the bootstrap knows nothing of what it has not seen.
    if count < 2 or replicates.min() == replicates.max():
        return Estimate(value, None, None, count)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), count, float(replicates.std(ddof=1)))


def _columns(rows: Sequence[Any], width: int, what: str) -> Array:
    found = np.asarray(rows)
    if found.shape != (len(rows), width) or found.dtype.kind not in "biuf":
        raise ValueError(f"it takes {what} of each item")
    return found.astype(np.float64)


def _numbers(values: Sequence[Any]) -> Array:
    return _columns([[value] for value in values], 1, "a number")


def _means(values: Sequence[Any]) -> Array:
    return np.pad(_numbers(values), ((0, 0), (0, 1)), constant_values=1.0)


def _present(values: Sequence[Any]) -> Array:
    numbers = _numbers(values)
    return np.hstack([np.nan_to_num(numbers), ~np.isnan(numbers)])


def _likelihoods(values: Sequence[Any]) -> Array:
    """−ln p beside 1, or beside the item's size."""
    if isinstance(values[0], (list, tuple)):
        return _columns(values, 2, "(log-likelihood, size)") * [-1.0, 1.0]
    return _means(values) * [-1.0, 1.0]


def _bits(values: Sequence[Any]) -> Array:
    return _likelihoods(values) * [1.0, math.log(2)]


def _quotient(sums: Array) -> Array:
    return sums[..., 0] / sums[..., 1]


def _perplexity(sums: Array) -> Array:
    return np.exp(_quotient(sums))


def _ratio(statistics: Array) -> Estimate:
    return ratio_interval(statistics[:, 0], statistics[:, 1])


def _exponential(statistics: Array) -> Estimate:
    """Of exp(ratio): the interval of the ratio, transformed; none where it has no upper end among floats."""
    plain = _ratio(statistics)
    with np.errstate(over="ignore"):
        value = float(np.exp(plain.value))
        if plain.low is None or plain.high is None or plain.error is None or not np.isfinite(np.exp(plain.high)):
            return Estimate(value, None, None, plain.count)
    return Estimate(value, math.exp(plain.low), math.exp(plain.high), plain.count, value * plain.error)


def _mean(statistics: Array) -> Estimate:
    """Of the values that are there (the second column says); all are counted, as a group weighs by documents."""
    column = statistics[statistics[:, 1] > 0, 0]
    found = mean_interval(column)
    if ((column == 0) | (column == 1)).all():
        found = replace(wilson(int(column.sum()), len(column)), error=found.error)
    return replace(found, count=len(statistics))


def _brier(values: Sequence[Any]) -> Array:
    """Per item the squared distance of the probabilities from the right answer's."""
    losses = [
        sum((share - (index == gold)) ** 2 for index, share in enumerate(probabilities))
        for gold, probabilities in values
    ]
    return _means(losses)


def _all_right(values: Sequence[Any]) -> Array:
    """Per question (of SuperGLUE's MultiRC): whether each of its answers is judged rightly."""
    right: dict[tuple[Any, Any], bool] = {}
    for predicted, doc in values:
        key = (doc["idx"]["paragraph"], doc["idx"]["question"])
        right[key] = right.get(key, True) and predicted == (doc["label"] == 1)
    return _means(list(right.values()))


def _yes_no(values: Sequence[Any]) -> Array:
    """True positives, and half of all other positives: F1 is the share of the first in both."""
    pairs = _columns(values, 2, "(gold, predicted)")
    if not ((pairs == 0) | (pairs == 1)).all():
        raise ValueError("it is of two classes, 0 and 1")
    both = pairs.prod(axis=1)
    return np.stack([both, pairs.sum(axis=1) / 2 - both], axis=1)


def _f1(sums: Array) -> Array:
    return np.divide(sums[..., 0], sums.sum(axis=-1), out=np.zeros(sums.shape[:-1]), where=sums.any(axis=-1))


def _confusion(values: Sequence[Any]) -> Array:
    """Per item one 1, at (gold, predicted), flattened."""
    pairs = _columns(values, 2, "(gold, predicted)")
    labels, codes = np.unique(pairs, return_inverse=True)
    codes = codes.reshape(pairs.shape)
    return np.eye(len(labels) ** 2)[codes[:, 0] * len(labels) + codes[:, 1]]


def _matthews(sums: Array) -> Array:
    """Correlation of K classes (Gorodkin 2004); 0 where one side has a single class."""
    size = math.isqrt(sums.shape[-1])
    table = sums.reshape(*sums.shape[:-1], size, size)
    gold, predicted, total = table.sum(axis=-1), table.sum(axis=-2), sums.sum(axis=-1)
    covariance = np.trace(table, axis1=-2, axis2=-1) * total - (gold * predicted).sum(axis=-1)
    scale = np.sqrt((total**2 - (gold**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1)))
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)


def _texts(count: Callable[[Sequence[str], str], Sequence[float]], values: Sequence[Any]) -> Array:
    """Statistics of (references, prediction) pairs; one reference may stand alone."""
    return np.asarray([count([gold] if isinstance(gold, str) else gold, found) for gold, found in values], np.float64)


AGGREGATIONS: dict[str, Aggregation] = {
    "mean": Aggregation(_means, _quotient, _mean),
    "nanmean": Aggregation(_present, _quotient, _mean),
    "median": Median(_numbers, _quotient),
    "perplexity": Aggregation(_likelihoods, _perplexity, _exponential),
    "weighted_perplexity": Aggregation(_likelihoods, _perplexity, _exponential),
    "bits_per_byte": Aggregation(_bits, _quotient, _ratio),
    "brier_score": Aggregation(_brier, _quotient, _ratio),
    "acc_all": Aggregation(_all_right, _quotient, _mean),
    "f1": Aggregation(_yes_no, _f1),
    "matthews_corrcoef": Aggregation(_confusion, _matthews),
    "bleu": Aggregation(partial(_texts, bleu_statistics), bleu_score, resamples=CORPUS_RESAMPLES),
    "chrf": Aggregation(partial(_texts, chrf_statistics), chrf_score, resamples=CORPUS_RESAMPLES),
    "ter": Aggregation(partial(_texts, ter_statistics), ter_score, resamples=CORPUS_RESAMPLES),
    "chrf++": Aggregation(
        partial(_texts, partial(chrf_statistics, word_order=2)), chrf_score, resamples=CORPUS_RESAMPLES
    ),
}

# Metrics that are not averaged.
DEFAULT_AGGREGATION: dict[str, str] = {
    **{name: name for name in ("perplexity", "bits_per_byte", "brier_score", "f1", "bleu", "chrf", "chrf++", "ter")},
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "mcc": "matthews_corrcoef",
}
HIGHER_IS_BETTER: dict[str, bool] = {
    **dict.fromkeys(("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "likelihood"), True),
    **dict.fromkeys(("exact_match", "contains", "em", "f1", "mcc", "bleu", "chrf", "chrf++"), True),
    **dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), True),
    **dict.fromkeys(("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter"), False),
}


def estimate(aggregation: str, values: Sequence[Any], *, seed: int = 0) -> Estimate:
    """The figure of `values` with its standard error and 95 % interval (None where the items say nothing of them).

    Args:
        aggregation: a name of `AGGREGATIONS`.
        values: one per item, as `choice_metrics` and `score_text` give them.
        seed: of the bootstrap, where there is one.

    Raises:
        UserError: if the aggregation is unknown or does not fit the values.
        BottegaError: if there is nothing to count, or the figure is not a number.
    """
    if aggregation not in AGGREGATIONS:
        raise UserError(f"unknown aggregation {aggregation!r}", hint=did_you_mean(aggregation, AGGREGATIONS))
    if not len(values):
        raise BottegaError(f"aggregation {aggregation} has no items")
    if aggregation == "f1" and isinstance(values[0], (int, float)):
        aggregation = "mean"  # of the token F1 of texts
    try:
        statistics = AGGREGATIONS[aggregation].statistics(values)
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"aggregation {aggregation} does not fit {values[0]!r:.80}: {error}") from None
    found = AGGREGATIONS[aggregation].estimate(statistics, seed)
    if not math.isfinite(found.value):
        raise BottegaError(f"aggregation {aggregation} of {len(values)} items is no finite number")
    return found


def pooled(estimates: Sequence[Estimate], *, by_size: bool) -> Estimate:
    """A group's figure: the mean of its tasks' figures, weighted by their items or not.

    The standard error is lm-evaluation-harness's: of the pooled variance, or of the plain mean.
    """
    sizes = np.asarray([each.count if by_size else 1 for each in estimates], dtype=np.float64)
    weights = sizes / sizes.sum()
    values = np.asarray([each.value for each in estimates])
    value, count = float(weights @ values), sum(each.count for each in estimates)
    errors = [each.error for each in estimates if each.error is not None]
    error = None
    if len(errors) == len(estimates):
        squares = np.asarray(errors) ** 2
        if by_size:
            error = math.sqrt(float(((sizes - 1) * squares * sizes).sum()) / (count - len(sizes)) / count)
        else:
            error = math.sqrt(float(squares.sum())) / len(sizes)
    low = [each.low for each in estimates if each.low is not None]
    high = [each.high for each in estimates if each.high is not None]
    if not len(low) == len(high) == len(estimates):
        return Estimate(value, None, None, count, error)
    below = math.hypot(*(weights * (values - low)))
    above = math.hypot(*(weights * (high - values)))
    return Estimate(value, value - below, value + above, count, error)
