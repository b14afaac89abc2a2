"""How far two judges agree: Cohen's kappa (1960) with a bootstrap interval, and a judge held against people's votes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottega.evaluate.arena.votes import Vote
from bottega.evaluate.judge.biases import Comparison
from bottega.evaluate.statistics import Estimate, bootstrap, wilson

LABELS = ("a", "b", "tie")


def kappa(first: Sequence[str], second: Sequence[str], *, seed: int = 0) -> Estimate:
    """Cohen's kappa of two judges' labels (of LABELS) for the same items, resampled over items.

    (observed − expected) / (1 − expected) agreement; 0 where both only ever say one and the same, from which nothing
    follows.
    """
    codes = [3 * LABELS.index(one) + LABELS.index(other) for one, other in zip(first, second, strict=True)]
    return bootstrap(codes, _kappas, seed=seed)


def people_points(votes: Sequence[Vote], comparisons: Sequence[Comparison]) -> list[float | None]:
    """What people gave model a of each comparison: 1 or 0 by majority, ½ for a tie; None if nobody voted.

    A vote belongs to a comparison of the same two models with the same id or the same question; where it carries
    answers, they must be the same, too.
    """
    by_id: dict[tuple[frozenset[str], str], list[Vote]] = defaultdict(list)
    by_question: dict[tuple[frozenset[str], str], list[Vote]] = defaultdict(list)
    for vote in votes:
        models = frozenset((vote.model_a, vote.model_b))
        question = vote.messages[-1]["content"] if vote.messages else vote.prompt
        if question:
            by_question[models, question].append(vote)
        else:
            by_id[models, vote.id].append(vote)
    found: list[float | None] = []
    for each in comparisons:
        models = frozenset((each.model_a, each.model_b))
        own = by_question.get((models, each.question), []) + by_id.get((models, each.id), [])
        points = [point for vote in own if (point := _point(vote, each)) is not None]
        found.append(0.5 + 0.5 * float(np.sign(np.mean(points) - 0.5)) if points else None)
    return found


def people_figures(
    comparisons: Sequence[Comparison], people: Sequence[float | None], *, seed: int
) -> dict[str, Any] | None:
    """Agreement of the judge with people on the items that both judged; None if there are none.

    `agreement` counts ties as a verdict of their own, `agreement_on_winners` only items where both name a winner.
    """
    pairs = [(each.score, points) for each, points in zip(comparisons, people, strict=True) if points is not None]
    if not pairs:
        return None
    winners = [(judge, person) for judge, person in pairs if 0.5 not in (judge, person)]
    labels = {1.0: "a", 0.0: "b", 0.5: "tie"}
    first, second = ([labels[pair[side]] for pair in pairs] for side in (0, 1))
    return {
        "items": len(pairs),
        "agreement": wilson(sum(judge == person for judge, person in pairs), len(pairs)).as_data(),
        "agreement_on_winners": wilson(sum(judge == person for judge, person in winners), len(winners)).as_data(),
        "kappa": kappa(first, second, seed=seed).as_data(),
        "table": [[sum(pair == (one, other) for pair in pairs) for other in labels] for one in labels],
    }


def _kappas(codes: NDArray[Any], axis: int) -> NDArray[Any]:
    """Kappa of codes 3·first + second, along the last axis."""
    shares = np.stack([(codes == code).mean(axis=axis) for code in range(9)], axis=-1)
    table = shares.reshape(*shares.shape[:-1], 3, 3)
    observed = np.trace(table, axis1=-2, axis2=-1)
    expected = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1)
    return np.divide(observed - expected, 1 - expected, out=np.zeros_like(observed), where=expected < 1 - 1e-12)


def _point(vote: Vote, comparison: Comparison) -> float | None:
    """What the vote gives the comparison's model a; None if it is about other answers."""
    is_same_way = vote.model_a == comparison.model_a
    said = (vote.answer_a, vote.answer_b) if is_same_way else (vote.answer_b, vote.answer_a)
    for own, judged in zip(said, (comparison.answer_a, comparison.answer_b), strict=True):
        if own and own != judged and not judged.endswith("\n\n" + own):
            return None
    return vote.score if is_same_way else 1.0 - vote.score
