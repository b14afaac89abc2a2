"""Tests and intervals of the analyses: paired resampling, two proportions, many tests at once. Imports no torch.

Sources: B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 8 (strata) and 15 (randomisation);
R. G. Newcombe (1998), "Interval estimation for the difference between independent proportions", method 10;
S. Holm (1979); Y. Benjamini, Y. Hochberg (1995); E. Miller, "Adding Error Bars to Evals" (2024), sec. 5 (power).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bottega.evaluate.statistics import BLOCK_DRAWS, CONFIDENCE, RESAMPLES, Estimate, mean_interval, signed_mean, wilson

ALPHA = 1 - CONFIDENCE
POWER = 0.8
EXACT_FLIPS = 16  # differences of which all signs are tried
Floats = NDArray[np.float64]


def resampled_mean(
    strata: Sequence[ArrayLike], *, bounds: Sequence[float] = (), seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """The mean over the strata of their means, with the percentile bootstrap's interval: items are drawn within strata.

    A resample is drawn as how often each distinct value comes, which is the same and takes no memory. Values that are
    all equal resample to themselves, though others could have been: if `bounds` says how far from 0 a stratum's values
    can lie (0: not known), its part of the interval is then Agresti and Min's.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in strata]
    value, count = float(np.mean([values.mean() for values in arrays])), sum(len(values) for values in arrays)
    if min(len(values) for values in arrays) < 2:
        return Estimate(value, None, None, count)
    generator = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for values in arrays:
        distinct, counts = np.unique(values, return_counts=True)
        for rows in _blocks(resamples, len(distinct)):
            drawn = generator.multinomial(len(values), counts / len(values), rows.stop - rows.start)
            total[rows] += drawn @ distinct / (len(values) * len(arrays))
    low, high = np.quantile(total, [ALPHA / 2, 1 - ALPHA / 2])
    down, up, error = [value - float(low)], [float(high) - value], [float(total.std(ddof=1))]
    for values, bound in zip(arrays, bounds or [0.0] * len(arrays), strict=True):
        if bound and (values == values[0]).all():
            found, scale = signed_mean(values / bound), bound / len(arrays)
            assert found.low is not None and found.high is not None and found.error is not None
            down.append(scale * (found.value - found.low))
            up.append(scale * (found.high - found.value))
            error.append(scale * found.error)
    return Estimate(value, value - math.hypot(*down), value + math.hypot(*up), count, math.hypot(*error))


def sign_flip(strata: Sequence[ArrayLike], *, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p of differences whose signs are coins if there is none (Fisher's randomisation test of paired values).

    The statistic is the mean over the strata of their means. Of values −1, 0, 1 it is McNemar's exact test but for the
    noise of drawing; p is never under 1 / (1 + resamples). Of few differences all signs are tried: p is exact.
    """
    parts = np.concatenate([np.asarray(each, dtype=np.float64) / len(np.asarray(each)) for each in strata])
    parts = parts[parts != 0]
    if len(parts) <= EXACT_FLIPS:
        heads = np.arange(1 << len(parts))[:, None] >> np.arange(len(parts)) & 1
        sums = np.abs((2 * heads - 1) @ parts)
        return float((sums >= abs(parts.sum()) - 1e-12 * np.abs(parts).sum()).mean())
    generator = np.random.default_rng(seed)
    total, value = np.zeros(resamples), 0.0
    for differences in strata:
        values = np.asarray(differences, dtype=np.float64)
        value += float(values.mean())
        sizes, counts = np.unique(np.abs(values), return_counts=True)
        for rows in _blocks(resamples, len(sizes)):
            heads = generator.binomial(counts, 0.5, (rows.stop - rows.start, len(sizes)))
            total[rows] += (2 * heads - counts) @ sizes / len(values)
    # What rounding makes of an equal sum counts as equal.
    as_large = int((np.abs(total) >= abs(value) - 1e-12 * max(1.0, abs(value))).sum())
    return (1 + as_large) / (1 + resamples)


def detectable(strata: Sequence[ArrayLike], *, tests: int = 1) -> float | None:
    """The smallest mean of `strata` (as of `resampled_mean`) that four of five such samples show, of `tests` made.

    (z_{1−α/2} + z_{0.8}) · standard error, with the spread that the differences have and α = 0.05 / tests; but not less
    than what `fewest_different` items make, if all are yes or no. None where nothing can be said.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in strata]
    if min(len(values) for values in arrays) < 2:
        return None
    alpha, normal = ALPHA / tests, NormalDist()
    error = math.sqrt(sum(float(values.var(ddof=1)) / len(values) for values in arrays)) / len(arrays)
    found = (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(POWER)) * error
    if not all(is_binary(np.abs(values)) for values in arrays):
        return found or None
    return min(1.0, max(found, fewest_different(tests) / (len(arrays) * max(len(values) for values in arrays))))


def fewest_different(tests: int = 1) -> int:
    """Items on which two models must differ, all one way, to be told apart by McNemar's exact test: 2 · ½ᵏ ≤ α."""
    return math.ceil(1 + math.log2(tests / ALPHA))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p: those under α are found with a chance of a single false one under α, whatever their bonds."""
    order = np.argsort(p_values, kind="stable")
    found, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        found[index] = largest
    return found


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p: of those under α at most a share α is false, in the mean."""
    order = np.argsort(p_values, kind="stable")
    found, smallest = [0.0] * len(p_values), 1.0
    for place in range(len(p_values) - 1, -1, -1):
        index = order[place]
        smallest = min(smallest, p_values[index] * len(p_values) / (place + 1))
        found[index] = smallest
    return found


def proportions_difference(first: tuple[int, int], second: tuple[int, int]) -> Estimate:
    """p₁ − p₂ of two independent samples, each (successes, count), with Newcombe's interval from Wilson's two."""
    one, other = wilson(*first), wilson(*second)
    value = one.value - other.value
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return Estimate(value, None, None, first[1] + second[1])
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - below, value + above, first[1] + second[1])


def proportions_p(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Two-sided p of equal proportions: the pooled z test. 1 where nothing varies."""
    count = first[1] + second[1]
    pooled = (first[0] + second[0]) / count
    error = math.sqrt(pooled * (1 - pooled) * (1 / first[1] + 1 / second[1]))
    return two_sided((first[0] / first[1] - second[0] / second[1]) / error) if error else 1.0


def means_difference(first: ArrayLike, second: ArrayLike) -> Estimate:
    """Mean of the first sample minus that of the second: proportions by Newcombe, other values by the normal."""
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if is_binary(one) and is_binary(other):
        return proportions_difference((int(one.sum()), len(one)), (int(other.sum()), len(other)))
    left, right = mean_interval(one), mean_interval(other)
    value, count = left.value - right.value, left.count + right.count
    if left.error is None or right.error is None:
        return Estimate(value, None, None, count)
    error = math.hypot(left.error, right.error)
    half = NormalDist().inv_cdf(1 - ALPHA / 2) * error
    return Estimate(value, value - half, value + half, count, error)


def mean_of(values: ArrayLike) -> Estimate:
    """The mean with Wilson's interval if the values are yes and no, else Student's."""
    array = np.asarray(values, dtype=np.float64)
    return wilson(int(array.sum()), len(array)) if is_binary(array) else mean_interval(array)


def is_binary(values: Any) -> bool:
    """Whether every value is 0 or 1."""
    return bool(np.isin(np.asarray(values, dtype=np.float64), (0.0, 1.0)).all())


def two_sided(z: float) -> float:
    """P(|Z| ≥ |z|) of a standard normal Z."""
    return math.erfc(abs(z) / math.sqrt(2))


def _blocks(rows: int, width: int) -> list[slice]:
    """Slices of `rows` whose draws fit into memory."""
    size = max(1, BLOCK_DRAWS // width)
    return [slice(start, min(rows, start + size)) for start in range(0, rows, size)]
