"""Which differences between models are shown, by the paired bootstrap over the same items. Imports no torch.

Source: B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", ch. 8 and 13: within each task items are drawn
with replacement, each with both models' values, and the averages' difference is taken again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottega.evaluate.analysis.perplexity import paired_perplexity
from bottega.evaluate.analysis.significance import ALPHA, fewest_different, is_binary, resampled_mean, sign_flip
from bottega.evaluate.figures import difference_text
from bottega.evaluate.report.leaderboard import Part, Row, Z, leaderboard, standard_error, task_cell
from bottega.evaluate.report.read import Measured
from bottega.evaluate.statistics import Estimate, mcnemar

# Of fewer items on which two models differ nothing can be shown at 95 %, however they fall.
FEWEST_DIFFERENT = fewest_different()


def difference(
    first: Row | tuple[Measured, Sequence[Part]], second: Row | tuple[Measured, Sequence[Part]]
) -> Estimate | None:
    """First minus second in the sum of their parts, item by item; None if it cannot be said.

    A part whose items are not at hand, or not the same, counts with its standard errors, as of independent samples:
    the interval is then wider than it need be. `count` is the number of items on which the two differ.
    """
    (one, left), (other, right) = _sides(first), _sides(second)
    strata: dict[str, NDArray[Any]] = {}
    bounds: dict[str, float] = {}
    value, variance, apart = 0.0, 0.0, 0
    for a, b in zip(left, right, strict=True):
        value += a.weight * a.figure["value"] - b.weight * b.figure["value"]
        found = _paired(one, other, a, b)
        if found is None:
            errors = [standard_error(a.figure), standard_error(b.figure)]
            if errors[0] is None or errors[1] is None:
                return None
            variance += (a.weight * errors[0]) ** 2 + (b.weight * errors[1]) ** 2
            apart += FEWEST_DIFFERENT  # which items differ is not known; the normal interval stands for itself
            continue
        for task, (differences, bound) in found.items():
            strata[task] = strata.get(task, 0.0) + differences
            bounds[task] = bounds.get(task, 0.0) + bound
    different = apart + sum(int(np.count_nonzero(each)) for each in strata.values())
    if not strata:
        half = Z * math.sqrt(variance)
        return Estimate(value, value - half, value + half, different)
    # The sum of the strata's means, as the mean of so many times each.
    scaled = [each * len(strata) for each in strata.values()]
    found = resampled_mean(scaled, bounds=[each * len(strata) for each in bounds.values()])
    if found.low is None or found.high is None:
        return None
    # The two parts' arms add as independent errors do.
    down, up = (math.hypot(arm, Z * math.sqrt(variance)) for arm in (found.value - found.low, found.high - found.value))
    return Estimate(value, value - down, value + up, different)


def is_shown(estimate: Estimate | None) -> bool:
    """Whether the difference is shown: its interval leaves out zero, and enough items differ."""
    if estimate is None or estimate.low is None or estimate.high is None or estimate.count < FEWEST_DIFFERENT:
        return False
    return estimate.low > 0 or estimate.high < 0


def rank(rows: Sequence[Row]) -> None:
    """Give each row with an average its rank, one more than the models that are shown to be better."""
    rated = [row for row in rows if row.average is not None]
    for row in rated:
        row.rank = 1
    for place, better in enumerate(rated):
        for worse in rated[place + 1 :]:
            found = difference(better, worse)
            if place == 0:
                worse.behind_best = found
            if is_shown(found) and found is not None and found.value > 0 and worse.rank is not None:
                worse.rank += 1


def comparisons(models: Sequence[Measured]) -> list[dict[str, Any]]:
    """Each task's difference between the model with the best average and each other.

    Rows of `{"task", "metric", "first", "second", "value", "ci95", "p_value", "shown", "said", "text", …}`; if
    "is_ratio", the value is the difference of ln perplexities, and its exponential, a ratio, is what is shown.
    """
    if not models:
        return []
    board = leaderboard(models, None)
    first, *others = board.rows
    return [
        found
        for second in others
        for column in board.columns
        if (found := compare_task(first.model, second.model, column.name)) is not None
    ]


def compare_task(first: Measured, second: Measured, task: str) -> dict[str, Any] | None:
    """Two models on one task or group; None if one of them has no figure, or no error is known."""
    one, other = task_cell(first, task), task_cell(second, task)
    if one.figure is None or other.figure is None or one.metric != other.metric:
        return None
    perplexities = paired_perplexity(first, second, task, one.metric)
    if perplexities is not None and not perplexities.matched.refused:
        estimate, chance = perplexities.estimate, sign_flip([perplexities.differences])
        shown = is_shown(estimate) and chance < ALPHA
    else:
        perplexities, estimate = None, difference((first, one.parts), (second, other.parts))
        chance, shown = p_value(first, second, one.parts[0], other.parts[0]), is_shown(estimate)
    if estimate is None or estimate.low is None or estimate.high is None:
        return None
    better = first if (estimate.value > 0) == one.higher else second
    said = f"{better.name} is better" if shown else "no difference shown"
    is_ratio = perplexities is not None and perplexities.is_ratio
    figures = (estimate.value, estimate.low, estimate.high)
    amount, low, high = (difference_text(each, share=one.share, is_ratio=is_ratio) for each in figures)
    unit = " points" if one.share else ""
    return {
        "task": task,
        "metric": one.metric,
        "first": first.name,
        "second": second.name,
        "value": estimate.value,
        "ci95": [estimate.low, estimate.high],
        "p_value": chance,
        "test": None if chance is None else "sign flips" if perplexities is not None else "McNemar",
        "is_ratio": is_ratio,
        "shown": shown,
        "amount": f"{amount}{unit}",
        "interval": f"[{low}, {high}]",
        "said": said,
        "text": f"{task}, {one.metric}: {first.name} against {second.name} {amount} [{low}, {high}]{unit}: {said}.",
    }


def p_value(first: Measured, second: Measured, a: Part, b: Part) -> float | None:
    """McNemar's p of the items that only one of them has right; None where items are not right or wrong, or missing."""
    if _paired(first, second, a, b) is None:
        return None
    rights: tuple[list[bool], list[bool]] = ([], [])
    for task, _ in a.leaves:
        for items, right in zip((first.items[task], second.items[task]), rights, strict=True):
            values = [items[doc_id][1].metrics[a.metric] for doc_id in sorted(items)]
            if not set(values) <= {0.0, 1.0}:
                return None
            right += [value == 1.0 for value in values]
    return mcnemar(*rights).p_value


def _sides(side: Row | tuple[Measured, Sequence[Part]]) -> tuple[Measured, Sequence[Part]]:
    return (side.model, side.parts) if isinstance(side, Row) else side


def _paired(first: Measured, second: Measured, a: Part, b: Part) -> dict[str, tuple[NDArray[Any], float]] | None:
    """By task, each item's part of the difference (times the number of items), and the most that it can be.

    The most is 0 where it is not known. None if items cannot be paired.
    """
    if not a.leaves or a.leaves != b.leaves:
        return None
    found = {}
    for task, share in a.leaves:
        left, right = first.items.get(task), second.items.get(task)
        if not left or not right or left.keys() != right.keys():
            return None
        if any(left[doc_id][0] != right[doc_id][0] for doc_id in left):
            return None  # other documents
        values = [_values(items, a.metric, sorted(left)) for items in (left, right)]
        if values[0] is None or values[1] is None:
            return None
        bound = share * abs(a.weight) if is_binary(values[0]) and is_binary(values[1]) else 0.0
        found[task] = share * (a.weight * values[0] - b.weight * values[1]), bound
    # The figure is not the mean of its items' values (a corpus's BLEU, a perplexity): they say nothing about it.
    means = sum(float(each.mean()) for each, _ in found.values())
    if abs(means - (a.weight * a.figure["value"] - b.weight * b.figure["value"])) > 1e-6:
        return None
    return found


def _values(items: dict[int, Any], metric: str, order: Sequence[int]) -> NDArray[Any] | None:
    found = [items[doc_id][1].metrics.get(metric) for doc_id in order]
    return None if any(value is None for value in found) else np.array(found, dtype=np.float64)
