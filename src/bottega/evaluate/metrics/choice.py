"""What one multiple-choice item scores, from the log-likelihood of each choice. Imports no torch.

Source: `ConfigurableTask.process_results` of lm-evaluation-harness 0.4.13. Of equal scores the first wins; with several
right answers any of them counts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bottega.core.errors import UserError, did_you_mean

# Metrics that compare the answer with one label.
ONE_GOLD = frozenset({"f1", "mcc", "brier_score", "likelihood"})
CHOICE_METRICS = ONE_GOLD | {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"}


def choice_metrics(
    loglikelihoods: Sequence[float],
    greedy: Sequence[bool],
    choices: Sequence[str],
    gold: int | list[int],
    *,
    unconditional: Sequence[float] | None = None,
    wanted: Collection[str],
) -> dict[str, Any]:
    """The values of the `wanted` metrics for one item, as their aggregation takes them.

    Args:
        loglikelihoods: ln p of each choice behind the question, summed over its tokens (nats).
        greedy: whether each choice is what greedy decoding would have written.
        choices: the texts, without the delimiter before them; their lengths normalise.
        gold: index of the right choice, or of each right one.
        unconditional: ln p of each choice behind nothing, for `acc_mutual_info`.
        wanted: names out of `CHOICE_METRICS`.

    Returns:
        Per metric: 0 or 1; for `f1` and `mcc` the pair (gold, predicted); for `brier_score` (gold, probabilities); for
        `likelihood` (gold, log-likelihoods).

    Raises:
        UserError: if a metric is unknown or is not defined for this item.
    """
    scores = np.asarray(loglikelihoods, dtype=np.float64)
    right = [gold] if isinstance(gold, int) else gold
    _check(scores, greedy, choices, right, unconditional, wanted)
    predicted = int(scores.argmax())
    found: dict[str, Any] = {}
    for name in wanted:
        if name == "acc":
            found[name] = float(predicted in right)
        elif name == "acc_norm":
            found[name] = _accuracy(scores / _sizes(name, [len(choice) for choice in choices]), right)
        elif name == "acc_bytes":
            found[name] = _accuracy(scores / _sizes(name, [len(choice.encode()) for choice in choices]), right)
        elif name == "acc_mutual_info":
            found[name] = _accuracy(scores - np.asarray(unconditional), right)
        elif name == "exact_match":
            found[name] = int(any(greedy[index] for index in right))
        elif name == "brier_score":
            found[name] = (right[0], _softmax(scores))
        elif name == "likelihood":
            found[name] = (right[0], scores.tolist())
        else:
            found[name] = (right[0], predicted)
    return found


def _check(
    scores: np.ndarray,
    greedy: Sequence[bool],
    choices: Sequence[str],
    right: Sequence[int],
    unconditional: Sequence[float] | None,
    wanted: Collection[str],
) -> None:
    for name in wanted:
        if name not in CHOICE_METRICS:
            raise UserError(f"{name!r} is not a metric of multiple choice", hint=did_you_mean(name, CHOICE_METRICS))
        if name in ONE_GOLD and len(right) != 1:
            raise UserError(f"metric {name} needs one right choice, and there are {len(right)}")
    if not (len(scores) == len(greedy) == len(choices)):
        raise ValueError(f"{len(scores)} scores and {len(greedy)} flags for {len(choices)} choices")
    if not right or not all(0 <= index < len(choices) for index in right):
        raise UserError(f"the right choice {right} is none of the {len(choices)} choices (counted from 0)")
    if "acc_mutual_info" in wanted and len(unconditional or ()) != len(choices):
        raise ValueError("acc_mutual_info needs each choice's log-likelihood behind nothing")


def _accuracy(scores: np.ndarray, right: Sequence[int]) -> float:
    return float(int(scores.argmax()) in right)


def _sizes(metric: str, sizes: ArrayLike) -> np.ndarray:
    found = np.asarray(sizes, dtype=np.float64)
    if not found.all():
        raise UserError(f"metric {metric} divides by the length of a choice, and a choice is empty")
    return found


def _softmax(scores: np.ndarray) -> list[float]:
    weights = np.exp(scores - scores.max())
    return (weights / weights.sum()).tolist()
