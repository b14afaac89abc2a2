"""What a judge's scores come to: means with intervals by model, turn and category, and differences between models.

The unit is the question: the turns of one conversation are not independent of each other. A mean is over all scored
turns, as MT-bench's is; its interval is that of a ratio of sums over questions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from bottega.evaluate.judge.answers import Answer
from bottega.evaluate.judge.biases import Comparison
from bottega.evaluate.judge.calls import Judgement
from bottega.evaluate.statistics import Estimate, paired_difference, ratio_interval

ByTurn = dict[tuple[str, int], Judgement]


def score_figures(judgements: Sequence[Judgement], *, seed: int) -> dict[str, Any]:
    """`models`, the best first, with their means, and `differences` between each two of them."""
    own = by_model(judgements)
    models = [_model(name, each) for name, each in own.items()]
    models.sort(key=lambda row: -row["score"]["value"] if row["score"]["count"] else 1.0)
    names = [row["model"] for row in models if row["score"]["count"]]
    return {"models": models, "differences": [_difference(own, *pair, seed=seed) for pair in combinations(names, 2)]}


def by_model(judgements: Iterable[Judgement]) -> dict[str, ByTurn]:
    """Model → (id, turn) → judgement."""
    found: dict[str, ByTurn] = defaultdict(dict)
    for each in judgements:
        found[each.call.models[0]][each.call.id, each.call.turn] = each
    return dict(found)


def score_comparisons(judgements: Sequence[Judgement]) -> list[Comparison]:
    """Of each two models and each question, whose mean score over the turns that both have is higher."""
    own, found = by_model(judgements), []
    for one, other in combinations(own, 2):
        for id_, (left, right) in _paired(own[one], own[other]).items():
            difference = float(np.mean(left) - np.mean(right))
            first, second = (_longest(own[name], id_) for name in (one, other))
            found.append(Comparison.of(one, other, first, second, 0.5 + 0.5 * float(np.sign(difference))))
    return found


def _model(name: str, judgements: ByTurn) -> dict[str, Any]:
    scored = [each for each in judgements.values() if each.score is not None]
    turns = sorted({each.call.turn for each in judgements.values()})
    categories = sorted({each.call.category for each in judgements.values()} - {""})
    of_turn = {turn: [each for each in scored if each.call.turn == turn] for turn in turns}
    of_category = {name: [each for each in scored if each.call.category == name] for name in categories}
    return {
        "model": name,
        "score": _mean(scored).as_data(),
        "turns": {str(turn): _mean(each).as_data() for turn, each in of_turn.items()} if len(turns) > 1 else {},
        "categories": {category: _mean(each).as_data() for category, each in of_category.items()},
        "without_score": len(judgements) - len(scored),
    }


def _mean(scored: Sequence[Judgement]) -> Estimate:
    by_question: dict[str, list[float]] = defaultdict(list)
    for each in scored:
        by_question[each.call.id].append(each.score or 0.0)
    return ratio_interval([sum(own) for own in by_question.values()], [len(own) for own in by_question.values()])


def _paired(one: ByTurn, other: ByTurn) -> dict[str, tuple[list[float], list[float]]]:
    """Question → the scores of both models, of the turns that both have a score of."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for place, first in one.items():
        second = other.get(place)
        if second is not None and first.score is not None and second.score is not None:
            left, right = found.setdefault(place[0], ([], []))
            left.append(first.score)
            right.append(second.score)
    return found


def _difference(own: Mapping[str, ByTurn], first: str, second: str, *, seed: int) -> dict[str, Any]:
    pairs = _paired(own[first], own[second]).values()
    left, right = ([float(np.mean(pair[side])) for pair in pairs] for side in (0, 1))
    found = paired_difference(left, right, seed=seed)
    shown = found.low is not None and found.high is not None and not found.low <= 0 <= found.high
    return {"first": first, "second": second, "difference": found.as_data(), "shown": shown}


def _longest(own: ByTurn, id_: str) -> Answer:
    """The whole conversation that was judged."""
    return max((each.call.answers[0] for (other, _), each in own.items() if other == id_), key=lambda a: len(a.turns))
