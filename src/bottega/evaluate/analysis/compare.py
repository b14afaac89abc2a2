"""Two models on the same items: which is better, how sure that is, and what could have been seen. Imports no torch.

An item counts if both models were asked it alike. By task: the mean of first − second with the paired bootstrap's
interval; McNemar's exact p of yes/no metrics, the randomisation test's p of others; Holm's correction over the tasks.
A difference is shown if the corrected p is under 0.05 and the interval leaves out zero. Over all tasks: the mean of the
tasks' differences, each task with the same weight, items drawn within tasks; one test more, which is not corrected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottega.core.errors import UserError
from bottega.evaluate.analysis.pairing import Matched, item_metrics, match
from bottega.evaluate.analysis.perplexity import PairedPerplexity, paired_perplexity
from bottega.evaluate.analysis.significance import ALPHA, detectable, holm, is_binary, resampled_mean, sign_flip
from bottega.evaluate.figures import higher_is_better, is_share, shown_metric
from bottega.evaluate.report.read import Measured
from bottega.evaluate.statistics import Estimate, mcnemar

NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True)
class PairedTask:
    """A task whose metric is a perplexity, or bits per byte."""

    task: str
    pairs: PairedPerplexity


@dataclass(frozen=True)
class Pairs:
    """The values of both models on the items of a task that are the same."""

    task: str
    metric: str
    matched: Matched
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    higher: bool
    share: bool

    @property
    def differences(self) -> NDArray[np.float64]:
        """First − second."""
        return self.first - self.second

    @property
    def bound(self) -> float:
        """The most that an item can differ by; 0 if that is not known."""
        return 1.0 if is_binary(self.first) and is_binary(self.second) else 0.0


def compare(first: Measured, second: Measured, *, metric: str | None = None, seed: int = 0) -> dict[str, Any]:
    """Every task that both have, and all of them together, as plain data (docs/analysis.md); the first is A.

    Raises UserError if nothing can be compared, or the metric is none of a task's that are counted item by item.
    """
    not_compared: dict[str, str] = {}
    found: list[Pairs | PairedTask] = []
    for task in dict.fromkeys([*first.tasks, *second.tasks]):
        pairs = _pairs(first, second, task, metric)
        if isinstance(pairs, str):
            not_compared[task] = pairs
        else:
            found.append(pairs)
    if not found:
        causes = "; ".join(f"{task}: {cause}" for task, cause in not_compared.items())
        raise UserError(f"{first.name} and {second.name} have no items in common: {causes or 'no task'}")
    rows = [
        _row(each, len(found), seed) if isinstance(each, Pairs) else _perplexity_row(each, len(found), seed)
        for each in found
    ]
    for row, p_value in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = p_value
    for row in rows:
        _judge(row, row["p_holm"])
    return {
        "first": _side(first),
        "second": _side(second),
        "tasks": rows,
        "overall": _overall([each for each in found if isinstance(each, Pairs)], seed),
        "not_compared": not_compared,
    }


def _pairs(first: Measured, second: Measured, task: str, wanted: str | None) -> Pairs | PairedTask | str:
    """The paired values, or why there are none."""
    for model in (first, second):
        if task in model.data["errors"]:
            return f"failed for {model.name}: {model.data['errors'][task]}"
        if task not in model.data["results"]:
            return f"{model.name} was not asked"
        if not model.items.get(task):
            return f"the run of {model.name} kept no items of it"
    results = first.data["results"][task]
    perplexity = wanted or shown_metric(results, first.data["tasks"].get(task, {}))
    if (paired := paired_perplexity(first, second, task, perplexity)) is not None:
        return PairedTask(task, paired)
    common = [metric for metric in item_metrics(first, task) if metric in item_metrics(second, task)]
    if wanted is not None and wanted not in common:
        return f"{wanted} is not counted item by item" + (f" (but {', '.join(common)})" if common else "")
    if not common:
        return "no metric of it is the mean of its items'"
    matched, metric = match(first, second, task), wanted or common[0]
    if not matched.pairs:
        return "; ".join(f"{reason}: {count}" for reason, count in matched.refused.items())
    values = np.array([[item.metrics[metric] for item in pair] for pair in matched.pairs], dtype=np.float64)
    higher = higher_is_better(first.data["tasks"].get(task, {}), metric)
    figures = [model.data["results"][task][metric] for model in (first, second)]
    share = all(is_share(metric, figure, higher_is_better=higher) for figure in figures)
    return Pairs(task, metric, matched, values[:, 0], values[:, 1], higher, share)


def _row(pairs: Pairs, tests: int, seed: int) -> dict[str, Any]:
    """A task's row, without what depends on the other tasks' p."""
    first, second = pairs.first, pairs.second
    row: dict[str, Any] = {
        "task": pairs.task,
        "metric": pairs.metric,
        "higher_is_better": pairs.higher,
        "is_share": pairs.share,
        "items": len(first),
        "refused": pairs.matched.refused,
        "first": float(first.mean()),
        "second": float(second.mean()),
        **_difference(resampled_mean([pairs.differences], bounds=[pairs.bound], seed=seed)),
        "detectable": detectable([pairs.differences], tests=tests),
    }
    if is_binary(first) and is_binary(second):
        paired = mcnemar([bool(each) for each in first], [bool(each) for each in second])
        return row | {"test": "McNemar", "only_first": paired.only_first, "only_second": paired.only_second,
                      "p_value": paired.p_value}  # fmt: skip
    p_value = sign_flip([pairs.differences], seed=seed)
    return row | {"test": "sign flips", "only_first": None, "only_second": None, "p_value": p_value}


def _perplexity_row(found: PairedTask, tests: int, seed: int) -> dict[str, Any]:
    """The row of a perplexity: the difference is of its logarithms ("is_ratio"), or of bits per byte."""
    pairs = found.pairs
    first, second = pairs.figures()
    return {
        "task": found.task,
        "metric": pairs.metric,
        "higher_is_better": False,
        "is_share": False,
        "is_ratio": pairs.is_ratio,
        "items": len(pairs.units),
        "refused": pairs.matched.refused,
        "first": first,
        "second": second,
        **_difference(pairs.estimate),
        "detectable": detectable([pairs.linearised], tests=tests),
        "test": "sign flips",
        "only_first": None,
        "only_second": None,
        "p_value": sign_flip([pairs.differences], seed=seed),
    }


def _overall(found: list[Pairs], seed: int) -> dict[str, Any] | None:
    """The mean over the tasks whose metric is a share; None if there are not two of them."""
    shares = [pairs for pairs in found if pairs.share]
    if len(shares) < 2:
        return None
    strata = [pairs.differences for pairs in shares]
    row: dict[str, Any] = {
        "tasks": [pairs.task for pairs in shares],
        "items": sum(map(len, strata)),
        "higher_is_better": True,
        "is_share": True,
        "first": float(np.mean([pairs.first.mean() for pairs in shares])),
        "second": float(np.mean([pairs.second.mean() for pairs in shares])),
        **_difference(resampled_mean(strata, bounds=[pairs.bound for pairs in shares], seed=seed)),
        "detectable": detectable(strata),
        "test": "sign flips",
        "p_value": sign_flip(strata, seed=seed),
    }
    _judge(row, row["p_value"])
    return row


def _difference(estimate: Estimate) -> dict[str, Any]:
    interval = None if estimate.low is None or estimate.high is None else [estimate.low, estimate.high]
    return {"difference": estimate.value, "ci95": interval}


def _judge(row: dict[str, Any], p_value: float) -> None:
    """Add whether a difference is shown, and what is said about it."""
    interval = row["ci95"]
    row["shown"] = p_value < ALPHA and interval is not None and (interval[0] > 0 or interval[1] < 0)
    better = "A" if (row["difference"] > 0) == row["higher_is_better"] else "B"
    row["verdict"] = f"{better} is better" if row["shown"] else NO_DIFFERENCE


def _side(model: Measured) -> dict[str, Any]:
    return {"model": model.name, "model_hash": model.data["model_hash"], "runs": [run.name for run in model.runs]}
