"""Intervals for what an evaluation measures. Every figure that is shown carries one where it can.

Sources: E. B. Wilson, "Probable inference" (1927) for proportions; Student's t for means, its
distribution function as the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4 and its quantile
beyond 200 degrees of freedom by the expansion 26.7.5; W. G. Cochran, "Sampling Techniques", ch. 6,
for ratios of sums; Efron's percentile bootstrap; Q. McNemar (1947), exact form, for paired yes/no.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
RESAMPLES = 10_000
# Draws that one block of the bootstrap may hold at once (8 bytes each).
BLOCK_DRAWS = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A value with its interval at `confidence`, from `count` observations.

    `low` and `high` are None where there are too few observations to say anything (never a guess).
    """

    value: float
    low: float | None
    high: float | None
    count: int
    error: float | None = None
    """Standard error, where the method has one."""
    confidence: float = CONFIDENCE

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def normal_quantile(confidence: float) -> float:
    """z such that a standard normal lies within ±z with probability `confidence`."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(successes: int, count: int, confidence: float = CONFIDENCE) -> Estimate:
    """A proportion with Wilson's score interval, which stays within [0, 1] and holds for small counts."""
    if not 0 <= successes <= count:
        raise ValueError(f"{successes} successes of {count}")
    if count == 0:
        return Estimate(math.nan, None, None, 0, None, confidence)
    z = normal_quantile(confidence)
    proportion = successes / count
    scale = 1 + z * z / count
    centre = (proportion + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(proportion * (1 - proportion) / count + z * z / (4 * count * count))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == count else min(1.0, centre + half)
    return Estimate(proportion, low, high, count, math.sqrt(proportion * (1 - proportion) / count), confidence)


def student_probability(t: float, degrees: int) -> float:
    """P(|T| ≤ t) for Student's T with an integer number of degrees of freedom (exact finite sum)."""
    theta = math.atan2(abs(t), math.sqrt(degrees))
    cosine, sine = math.cos(theta), math.sin(theta)
    total = 0.0
    if degrees % 2:  # 26.7.3
        term = cosine
        for index in range(1, (degrees - 1) // 2 + 1):
            total += term
            term *= cosine * cosine * 2 * index / (2 * index + 1)
        return 2 / math.pi * (theta + sine * total)
    term = 1.0
    for index in range(1, degrees // 2 + 1):  # 26.7.4
        total += term
        term *= cosine * cosine * (2 * index - 1) / (2 * index)
    return sine * total


def student_quantile(confidence: float, degrees: int) -> float:
    """t such that Student's T lies within ±t with probability `confidence`."""
    if degrees < 1:
        raise ValueError("Student's t needs at least one degree of freedom")
    z = normal_quantile(confidence)
    if degrees > 200:
        third = (z**3 + z) / 4
        fifth = (5 * z**5 + 16 * z**3 + 3 * z) / 96
        seventh = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + third / degrees + fifth / degrees**2 + seventh / degrees**3
    low, high = 0.0, 1.0
    while student_probability(high, degrees) < confidence:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        if student_probability(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """The mean with its standard error (sample sd / √n) and Student's t interval."""
    array = np.asarray(values, dtype=np.float64)
    count = int(array.size)
    if count < 2:
        return Estimate(float(array.mean()) if count else math.nan, None, None, count, None, confidence)
    mean, error = float(array.mean()), float(array.std(ddof=1)) / math.sqrt(count)
    half = student_quantile(confidence, count - 1) * error
    return Estimate(mean, mean - half, mean + half, count, error, confidence)


def ratio_interval(numerators: ArrayLike, denominators: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Σ numerators / Σ denominators over independent units, with the linearised (delta method) error.

    Bits per byte and perplexity are such ratios: their units are documents, because the tokens of
    one document are not independent of each other.
    """
    above = np.asarray(numerators, dtype=np.float64)
    below = np.asarray(denominators, dtype=np.float64)
    if above.shape != below.shape:
        raise ValueError("numerators and denominators must be as many")
    count, total = int(above.size), float(below.sum())
    ratio = float(above.sum()) / total if total else math.nan
    if count < 2 or not total:
        return Estimate(ratio, None, None, count, None, confidence)
    residuals = above - ratio * below
    error = math.sqrt(count / (count - 1) * float(residuals @ residuals)) / total
    half = student_quantile(confidence, count - 1) * error
    return Estimate(ratio, ratio - half, ratio + half, count, error, confidence)


def bootstrap(
    values: ArrayLike,
    statistic: Callable[..., NDArray[Any]] = np.mean,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Percentile bootstrap of `statistic(sample, axis=-1)`; the same seed gives the same interval.

    Memory stays bounded: resamples are drawn in blocks.
    """
    array = np.asarray(values, dtype=np.float64)
    count = int(array.size)
    value = float(statistic(array, axis=-1)) if count else math.nan
    if count < 2:
        return Estimate(value, None, None, count, None, confidence)
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK_DRAWS // count)
    replicates: list[NDArray[Any]] = []
    for start in range(0, resamples, rows):
        draws = generator.integers(0, count, size=(min(rows, resamples - start), count))
        replicates.append(np.asarray(statistic(array[draws], axis=-1)))
    replicate = np.concatenate(replicates)
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicate, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), count, float(replicate.std(ddof=1)), confidence)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean of first − second over the same items, by the paired bootstrap (items are drawn, not scores)."""
    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError("paired scores must be as many")
    return bootstrap(left - right, seed=seed, resamples=resamples, confidence=confidence)


def signed_mean(values: ArrayLike) -> Estimate:
    """The mean of values from −1 to 1, with an interval that is not empty where all of them are equal.

    Source: Agresti & Min, "Simple improved confidence intervals for comparing matched proportions" (2005): half an
    observation is added to each cell, which comes to two more observations with squares that sum to 1.
    """
    array = np.asarray(values, dtype=np.float64)
    count = int(array.size)
    if not count:
        return Estimate(math.nan, None, None, 0)
    centre = float(array.sum()) / (count + 2)
    variance = ((float(array @ array) + 1) / (count + 2) - centre**2) / (count + 2)
    half = normal_quantile(0.95) * math.sqrt(variance)
    value = float(array.mean())
    low, high = max(-1.0, min(centre - half, value)), min(1.0, max(centre + half, value))
    return Estimate(value, low, high, count, math.sqrt(variance))


@dataclass(frozen=True)
class Paired:
    """Two yes/no measurements of the same items: how often only one of them was right, and McNemar's p."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """McNemar's exact two-sided test: under no difference, disagreements fall either way like a fair coin."""
    if len(first) != len(second):
        raise ValueError("paired answers must be as many")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    disagreements, fewer = only_first + only_second, min(only_first, only_second)
    # Binomial coefficients one from the other, in integers: their quotient is rounded once.
    tail = term = 1
    for k in range(fewer):
        term = term * (disagreements - k) // (k + 1)
        tail += term
    return Paired(only_first, only_second, min(1.0, 2 * tail / 2**disagreements))
