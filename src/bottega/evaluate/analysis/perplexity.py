"""Two models' perplexities on the same documents: document by document, as everything else is. Imports no torch.

ln perplexity is −Σ ln p / Σ units (words, bytes, or documents where each has one answer to foretell), so the difference
of two is a ratio of sums over documents (Cochran, "Sampling Techniques", ch. 6) and p is that of exact sign flips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottega.evaluate.analysis.pairing import Matched, match
from bottega.evaluate.items import Item
from bottega.evaluate.report.read import Measured
from bottega.evaluate.statistics import Estimate, ratio_interval

BITS = "bits_per_byte"
BY_UNIT = ("word_perplexity", "byte_perplexity", BITS)
PERPLEXITIES = ("perplexity", *BY_UNIT)


@dataclass(frozen=True)
class PairedPerplexity:
    """First − second in ln perplexity (`is_ratio`: exp of it is a ratio of perplexities), or in bits per byte.

    Attributes:
        matched: the documents.
        first, second: (documents,) −ln p of each, or −log₂ p.
        units: (documents,) words, bytes or ones.
    """

    metric: str
    matched: Matched
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    units: NDArray[np.float64]

    @property
    def is_ratio(self) -> bool:
        """Whether the difference is of logarithms."""
        return self.metric != BITS

    @property
    def differences(self) -> NDArray[np.float64]:
        """Document by document; what is tested."""
        return self.first - self.second

    @property
    def estimate(self) -> Estimate:
        """The difference with Student's interval over documents."""
        return ratio_interval(self.differences, self.units)

    @property
    def linearised(self) -> NDArray[np.float64]:
        """Values whose mean and standard error are those of the difference."""
        ratio = self.estimate.value
        return ratio + (self.differences - ratio * self.units) / self.units.mean()

    def figures(self) -> tuple[float, float]:
        """Both models' figures on these documents."""
        means = [float(side.sum() / self.units.sum()) for side in (self.first, self.second)]
        one, other = map(math.exp, means) if self.is_ratio else means
        return one, other


def paired_perplexity(first: Measured, second: Measured, task: str, metric: str) -> PairedPerplexity | None:
    """The documents that both were asked alike; None if `metric` is no perplexity that their log-likelihoods make."""
    if metric not in PERPLEXITIES:
        return None
    totals = [_units(model, task, metric) for model in (first, second)]
    matched = match(first, second, task)
    if totals[0] is None or totals[1] is None or not matched.pairs:
        return None
    # Of other documents on one side the totals may differ; of the same ones they cannot.
    if not matched.refused and not math.isclose(totals[0], totals[1], rel_tol=1e-4):
        return None
    items = [item for _, item in first.items[task].values()]
    share = totals[0] / _sizes(items, metric).sum()
    units = share * _sizes([one for one, _ in matched.pairs], metric)
    sides = np.array([[-item.loglikelihoods[0] for item in pair] for pair in matched.pairs])
    if metric == BITS:
        sides = sides / math.log(2)
    return PairedPerplexity(metric, matched, sides[:, 0], sides[:, 1], units)


def _units(model: Measured, task: str, metric: str) -> float | None:
    """How many words or bytes or documents the figure is over, by itself; None if it is of something else."""
    figure = model.data["results"].get(task, {}).get(metric)
    items = [item for _, item in model.items.get(task, {}).values()]
    if figure is None or not items or any(len(item.loglikelihoods) != 1 for item in items):
        return None
    total, value = -sum(item.loglikelihoods[0] for item in items), figure["value"]
    if not math.isfinite(total) or not math.isfinite(value) or value <= (0 if metric == BITS else 1):
        return None
    units = total / (value * math.log(2) if metric == BITS else math.log(value))
    if metric == "perplexity" and not math.isclose(units, len(items), rel_tol=1e-6):
        return None
    return units


def _sizes(items: Sequence[Item], metric: str) -> NDArray[np.float64]:
    """Documents' shares of the units: by the bytes of the text, and alike where each counts once or no text is kept."""
    sizes = np.array([len(item.target.encode()) for item in items], dtype=np.float64)
    return sizes if metric in BY_UNIT and sizes.all() else np.ones(len(items))
