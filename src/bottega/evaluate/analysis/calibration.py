"""Whether a model is as often right as it is sure: reliability bins and the expected calibration error.

Source: M. P. Naeini et al. (2015) and C. Guo et al., "On Calibration of Modern Neural Networks" (2017): items are put
into bins of equal width by confidence, and ECE = Σ_b n_b / n · |accuracy_b − confidence_b|. Confidence is the largest
of softmax(log-likelihoods of the choices), accuracy whether that choice is right. Noise never cancels in an absolute
value, so the ECE of few items is too high, and the bootstrap's still higher. `if_calibrated` says what ECE a model
would be given that is right exactly as often as it is sure; the interval is the basic bootstrap's, 2·ECE −
(percentiles), cut off at zero, and begins at zero if such a model might have come as high. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottega.evaluate.items import Item
from bottega.evaluate.statistics import CONFIDENCE, wilson

BINS = 10
RESAMPLES = 2000
Floats = NDArray[np.float64]


def calibration(items: Iterable[Item], *, bins: int = BINS, seed: int = 0) -> dict[str, Any] | None:
    """Calibration over the items that choose among two choices or more; None if there are none.

    `{"ece", "interval": [low, high], "if_calibrated", "count", "confidence", "accuracy", "bins": [{"low", "high",
    "confidence", "accuracy", "count", "interval"}]}`: means, Wilson's interval of the accuracy, empty bins left out.
    """
    found = [each for item in items if (each := confidence(item)) is not None]
    if not found:
        return None
    sure, right = np.array([each for each, _ in found]), np.array([float(each) for _, each in found])
    # A confidence of exactly 1 belongs to the last bin.
    place = np.minimum((sure * bins).astype(np.int64), bins - 1)
    value = float(_error(place, sure - right, bins))
    noise = _noise(place, sure, bins, seed)
    low, high = _interval(place, sure - right, bins, value, seed)
    if value <= np.quantile(noise, (1 + CONFIDENCE) / 2):
        low = 0.0
    return {
        "ece": value,
        "interval": [low, high],
        "if_calibrated": float(noise.mean()),
        "count": len(found),
        "confidence": float(sure.mean()),
        "accuracy": float(right.mean()),
        "bins": [_bin(number, bins, sure[place == number], right[place == number]) for number in np.unique(place)],
    }


def confidence(item: Item) -> tuple[float, bool] | None:
    """The probability of the likeliest choice among the choices, and whether it is right; None if nothing is chosen."""
    count = len(item.choices)
    scores = np.array(item.loglikelihoods[:count], dtype=np.float64)
    if count < 2 or len(scores) < count or item.gold is None or np.isnan(scores).any() or np.isneginf(scores).all():
        return None
    best = int(scores.argmax())
    right = best in item.gold if isinstance(item.gold, list) else best == item.gold
    return float(1 / np.exp(scores - scores[best]).sum()), right


def _bin(number: int, bins: int, sure: Floats, right: Floats) -> dict[str, Any]:
    accuracy = wilson(int(right.sum()), len(right))
    return {
        "low": int(number) / bins,
        "high": (int(number) + 1) / bins,
        "confidence": float(sure.mean()),
        "accuracy": accuracy.value,
        "count": len(right),
        "interval": [accuracy.low, accuracy.high],
    }


def _error(place: NDArray[np.int64], gap: Floats, bins: int) -> Floats:
    """Σ_b |Σ gap| / n of each row of `gap` (…, n), as the bins of a row have n_b · (confidence_b − accuracy_b)."""
    rows = gap.reshape(-1, gap.shape[-1])
    offsets = np.arange(len(rows))[:, None] * bins
    sums = np.bincount((place.reshape(-1, place.shape[-1]) + offsets).ravel(), rows.ravel(), len(rows) * bins)
    return (np.abs(sums.reshape(-1, bins)).sum(1) / gap.shape[-1]).reshape(gap.shape[:-1])


def _interval(place: NDArray[np.int64], gap: Floats, bins: int, value: float, seed: int) -> tuple[float, float]:
    generator, count = np.random.default_rng(seed), len(gap)
    replicates = np.empty(RESAMPLES)
    rows = max(1, (1 << 20) // count)
    for start in range(0, RESAMPLES, rows):
        draws = generator.integers(0, count, size=(min(rows, RESAMPLES - start), count))
        replicates[start : start + len(draws)] = _error(place[draws], gap[draws], bins)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return max(0.0, 2 * value - float(high)), max(0.0, 2 * value - float(low))


def _noise(place: NDArray[np.int64], sure: Floats, bins: int, seed: int, draws: int = 400) -> Floats:
    """The ECE of outcomes drawn with the confidences as their probabilities, many times."""
    generator = np.random.default_rng([seed, 1])
    gaps = (sure - (generator.random(len(sure)) < sure) for _ in range(draws))
    return np.array([_error(place, gap, bins) for gap in gaps])
