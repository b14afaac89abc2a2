"""What moves a judge beside the answers' merit: their length, their decoration, and its own hand.

*Slopes*: the log-odds of a win are θ_a − θ_b + γ·x, with x = (s_a − s_b) / (s_a + s_b) for a style s of arena's STYLES
(+ 1 below, for what is counted), centred within each two models: so γ comes from how answers of the same two models
differ, and a better model that also writes more is no bias. A ridge (½·0.1·θ², and ½·½·γ² of the standardised x, as
in arena) keeps everything finite. The interval takes the wider of two errors: the curvature's, and the sandwich's over
questions, whose comparisons are not independent of each other (Liang & Zeger, 1986).
*Correlation*: of scores with the logarithm of the length, within each model, by a bootstrap over questions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bottega.evaluate.arena.style import style_counts
from bottega.evaluate.arena.votes import STYLES
from bottega.evaluate.judge.answers import Answer
from bottega.evaluate.judge.calls import Judgement
from bottega.evaluate.statistics import Estimate, bootstrap, normal_quantile, signed_mean

Reals = NDArray[np.float64]
RIDGE_MODELS, RIDGE_STYLES = 0.1, 0.5
ITERATIONS = 100
LEAST = 20  # comparisons that differ in a style; of fewer nothing is said


@dataclass(frozen=True)
class Comparison:
    """Of two answers to one question, what model a got of the point: 1, ½ or 0."""

    id: str
    model_a: str
    model_b: str
    answer_a: str
    answer_b: str
    score: float
    question: str = ""

    @classmethod
    def of(cls, model_a: str, model_b: str, answer_a: Answer, answer_b: Answer, score: float) -> Self:
        """Of two conversations."""
        question = answer_a.turns[-1].question
        return cls(answer_a.id, model_a, model_b, answer_a.text, answer_b.text, score, question)


def style_figures(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """`length` alone, then `format`: every style at equal others. Each is a slope, None where nothing can be said."""
    counts = [(np.array(style_counts(each.answer_a)), np.array(style_counts(each.answer_b))) for each in comparisons]
    if not counts:
        return {"length": None, "format": {}}
    first, second = (np.array(side) for side in zip(*counts, strict=True))
    features = (first - second) / np.maximum(first + second + (np.arange(len(STYLES)) > 0), 1)
    length = slopes(comparisons, features[:, :1])[0]
    every = dict(zip(STYLES, slopes(comparisons, features), strict=True))
    return {
        "length": length.as_data() if length else None,
        "format": {name: slope.as_data() if slope else None for name, slope in every.items()},
    }


def slopes(comparisons: Sequence[Comparison], features: Reals) -> list[Estimate | None]:
    """γ of each feature (comparisons, features), in log-odds for a whole unit; None if it hardly varies."""
    models = sorted({name for each in comparisons for name in (each.model_a, each.model_b)})
    place = {name: number for number, name in enumerate(models)}
    design = np.zeros((len(comparisons), len(models)))
    for row, each in enumerate(comparisons):
        design[row, place[each.model_a]], design[row, place[each.model_b]] = 1.0, -1.0
    centred = _within_pairs(comparisons, features)
    spread = np.sqrt((centred**2).mean(axis=0))
    kept = (spread > 1e-6) & ((np.abs(centred) > 1e-9).sum(axis=0) >= LEAST)
    design = np.hstack([design, centred[:, kept] / spread[kept]])
    ridge = np.concatenate([np.full(len(models), RIDGE_MODELS), np.full(int(kept.sum()), RIDGE_STYLES)])
    score = np.array([each.score for each in comparisons])
    clusters = np.unique([each.id for each in comparisons], return_inverse=True)[1]
    values, errors = _fit(design, score, ridge, clusters)
    z, fitted = normal_quantile(0.95), iter(range(len(models), len(ridge)))
    found: list[Estimate | None] = []
    for number, keep in enumerate(kept):
        if not keep:
            found.append(None)
            continue
        column = next(fitted)
        value, error = values[column] / spread[number], errors[column] / spread[number]
        found.append(Estimate(value, value - z * error, value + z * error, len(comparisons), error))
    return found


def length_correlation(judgements: Sequence[Judgement], *, seed: int) -> Estimate:
    """Pearson's r of score and ln(characters) of the answer that was scored, both less their model's mean."""
    scored = [each for each in judgements if each.score is not None]
    lengths = [math.log(1 + len(each.call.answers[0].turns[-1].answer)) for each in scored]
    groups = [(each.call.models[0], each.call.turn) for each in scored]
    x, y = (_centred(values, groups) for values in (lengths, [each.score or 0.0 for each in scored]))
    sums: dict[str, Reals] = defaultdict(lambda: np.zeros(3))
    for each, one, other in zip(scored, x, y, strict=True):
        sums[each.call.id] += (one * one, other * other, one * other)
    table = np.array(list(sums.values())).reshape(-1, 3)

    def correlation(drawn: NDArray[Any], axis: int) -> Any:  # noqa: ARG001 (the form that bootstrap calls)
        xx, yy, xy = (table[drawn.astype(np.int64), column].sum(axis=-1) for column in range(3))
        return np.divide(xy, np.sqrt(xx * yy), out=np.zeros_like(xy), where=xx * yy > 0)

    return bootstrap(np.arange(len(table)), correlation, seed=seed)


def own_figures(judge: str, comparisons: Sequence[Comparison], people: Sequence[float | None]) -> dict[str, Any] | None:
    """How the judge treats its own answers: None if it is none of the models.

    `points` is what it gives itself, which may be merit; `over_people`, where people judged the same answers, is how
    much that is more than people give it (both from 0 to 1).
    """
    signs = [1.0 if each.model_a == judge else -1.0 if each.model_b == judge else 0.0 for each in comparisons]
    if not any(signs):
        return None
    given: dict[str, list[float]] = defaultdict(list)
    over: dict[str, list[float]] = defaultdict(list)
    for sign, each, points in zip(signs, comparisons, people, strict=True):
        if sign:
            given[each.id].append(sign * (2 * each.score - 1))
            if points is not None:
                over[each.id].append(sign * (each.score - points))
    points = signed_mean([float(np.mean(own)) for own in given.values()])
    low, high = ((1 + end) / 2 if end is not None else None for end in (points.low, points.high))
    more = signed_mean([float(np.mean(own)) for own in over.values()])
    return {
        "model": judge,
        "points": Estimate((1 + points.value) / 2, low, high, points.count).as_data(),
        "over_people": more.as_data() if over else None,
    }


def _within_pairs(comparisons: Sequence[Comparison], features: Reals) -> Reals:
    """Features less their mean over the comparisons of the same two models, whichever of them stands first."""
    flips = np.array([1.0 if each.model_a < each.model_b else -1.0 for each in comparisons])[:, None]
    pairs = [tuple(sorted((each.model_a, each.model_b))) for each in comparisons]
    columns = [_centred(column, pairs) for column in (features * flips).T]
    return np.array(columns).T.reshape(features.shape) * flips


def _centred(values: Sequence[float] | Reals, groups: Sequence[Any]) -> Reals:
    array = np.asarray(values, dtype=np.float64)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    places = np.array([numbers[group] for group in groups], dtype=np.int64)
    means = np.bincount(places, array, len(numbers)) / np.maximum(np.bincount(places, minlength=len(numbers)), 1)
    return array - means[places]


def _fit(design: Reals, score: Reals, ridge: Reals, clusters: NDArray[Any]) -> tuple[Reals, Reals]:
    """Parameters of the penalised logistic regression, by Newton's method, and their errors."""
    parameters = np.zeros(len(ridge))
    for _ in range(ITERATIONS):
        chance = 1 / (1 + np.exp(-design @ parameters))
        gradient = design.T @ (score - chance) - ridge * parameters
        curvature = (design.T * (chance * (1 - chance))) @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        # The penalised likelihood is concave; a bound on the step keeps the first ones from overshooting.
        parameters = parameters + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
        if float(np.abs(step).max()) < 1e-9:
            break
    else:
        raise ArithmeticError("the regression on style did not converge")
    inverse = np.linalg.inv(curvature)
    residuals = design * (score - chance)[:, None]
    grouped = np.array([np.bincount(clusters, column) for column in residuals.T]).T
    sandwich = inverse @ (grouped.T @ grouped) @ inverse
    return parameters, np.sqrt(np.maximum(np.diag(inverse), np.diag(sandwich)))
