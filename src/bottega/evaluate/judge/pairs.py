"""What a judge's comparisons come to. Every pair of answers is shown in both orders; a win counts only if both agree.

Source: Zheng et al. (2023), section 3.4. If the judge prefers one answer in one order and not in the other, the pair is
a tie; if it cannot be understood in one of them, the pair is undecided and counts nowhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bottega.core.hashing import digest_data
from bottega.evaluate.arena.votes import Vote
from bottega.evaluate.judge.agreement import kappa
from bottega.evaluate.judge.answers import Answer
from bottega.evaluate.judge.biases import Comparison, signed_mean
from bottega.evaluate.judge.calls import Judgement
from bottega.evaluate.statistics import Estimate, wilson

Winner = Literal["a", "b", "tie"]
AS_SHOWN: dict[str, Winner] = {"first": "a", "second": "b", "tie": "tie"}
SWAPPED: dict[str, Winner] = {"first": "b", "second": "a", "tie": "tie"}


@dataclass(frozen=True)
class Pair:
    """Two answers, judged as (a, b) and as (b, a)."""

    shown: Judgement
    swapped: Judgement

    @property
    def models(self) -> tuple[str, str]:
        """Models a and b."""
        first, second = self.shown.call.models
        return first, second

    @property
    def answers(self) -> tuple[Answer, Answer]:
        """Answers of a and b."""
        first, second = self.shown.call.answers
        return first, second

    @property
    def verdicts(self) -> tuple[Winner, Winner] | None:
        """Who won in either order; None if one of them is not known."""
        if self.shown.winner is None or self.swapped.winner is None:
            return None
        return AS_SHOWN[self.shown.winner], SWAPPED[self.swapped.winner]

    @property
    def winner(self) -> Winner | None:
        """Who won in both orders, else a tie; None if it is undecided."""
        if self.verdicts is None:
            return None
        return self.verdicts[0] if self.verdicts[0] == self.verdicts[1] else "tie"

    @property
    def to_the_first(self) -> float:
        """How far the place decided: 1 if the answer shown first won both times, −1 if the second did, 0 if neither."""
        points = {"first": 0.5, "second": -0.5, "tie": 0.0}
        return sum(points[each.winner] for each in (self.shown, self.swapped) if each.winner)

    @property
    def comparison(self) -> Comparison:
        """For the judge's biases; only of a pair that is decided."""
        points = {"a": 1.0, "b": 0.0, "tie": 0.5}
        return Comparison.of(*self.models, *self.answers, points[self.winner or "tie"])


def pairs_of_judgements(judgements: Sequence[Judgement]) -> list[Pair]:
    """Calls come in pairs, both orders one after the other."""
    return [Pair(shown, swapped) for shown, swapped in zip(judgements[::2], judgements[1::2], strict=True)]


def pair_figures(pairs: Sequence[Pair]) -> dict[str, Any]:
    """`models`, the best first, with the points they took (a tie is half a win), and every `matches` of two."""
    decided = [pair for pair in pairs if pair.winner is not None]
    names = dict.fromkeys(name for pair in pairs for name in pair.models)
    categories = sorted({pair.answers[0].category for pair in pairs} - {""})
    models = []
    for name in names:
        own = [pair for pair in decided if name in pair.models]
        of = {each: [pair for pair in own if pair.answers[0].category == each] for each in categories}
        each = {category: points_of(name, found).as_data() for category, found in of.items()}
        models.append({"model": name, "points": points_of(name, own).as_data(), "categories": each})
    models.sort(key=lambda row: -row["points"]["value"] if row["points"]["count"] else 1.0)
    matches = [_match(match, pairs) for match in dict.fromkeys(pair.models for pair in pairs)]
    return {"models": models, "matches": matches}


def points_of(model: str, pairs: Iterable[Pair]) -> Estimate:
    """Mean points of a model, 0 to 1, with an interval over questions."""
    by_question: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        sign = 1.0 if pair.models[0] == model else -1.0
        by_question[pair.answers[0].id].append(sign * {"a": 1.0, "b": -1.0}.get(pair.winner or "", 0.0))
    found = signed_mean([float(np.mean(own)) for own in by_question.values()])
    low, high = ((1 + end) / 2 if end is not None else None for end in (found.low, found.high))
    return Estimate((1 + found.value) / 2, low, high, found.count)


def position_figures(pairs: Sequence[Pair], *, seed: int) -> dict[str, Any]:
    """How often both orders agree, and how far the place decides: `bias` from −1 (the second) to 1 (the first)."""
    both = [pair for pair in pairs if pair.verdicts is not None]
    verdicts = [pair.verdicts for pair in both if pair.verdicts is not None]
    shares = [pair.to_the_first for pair in both]
    named = {
        "consistent": sum(first == second for first, second in verdicts),
        "favours_first": shares.count(1.0),
        "favours_second": shares.count(-1.0),
    }
    return {
        "pairs": len(both),
        **{name: wilson(count, len(both)).as_data() for name, count in named.items()},
        "kappa": kappa([first for first, _ in verdicts], [second for _, second in verdicts], seed=seed).as_data(),
        "bias": signed_mean(shares).as_data(),
    }


def votes_of(pairs: Iterable[Pair], judge: str) -> list[Vote]:
    """A vote of each decided pair. As both orders were shown, the one that is named is drawn by the question's hash."""
    votes = []
    for pair in pairs:
        if pair.winner is None:
            continue
        (model_a, model_b), (first, second) = pair.models, pair.answers
        id_ = f"{first.id}:{model_a}:{model_b}"
        votes.append(
            Vote(
                model_a,
                model_b,
                pair.winner,
                id=id_,
                time=max(pair.shown.time, pair.swapped.time),
                judge=judge,
                order="ab" if int(digest_data(id_)[:8], 16) % 2 else "ba",
                **_contents(first, second),
            )
        )
    return votes


def _match(models: tuple[str, str], pairs: Sequence[Pair]) -> dict[str, Any]:
    own = [pair for pair in pairs if pair.models == models]
    points = points_of(models[0], [pair for pair in own if pair.winner is not None])
    count = [sum(pair.winner == winner for pair in own) for winner in ("a", "b", "tie", None)]
    names = ("wins", "losses", "ties", "undecided")
    return {
        "first": models[0],
        "second": models[1],
        **dict(zip(names, count, strict=True)),
        "points": points.as_data(),
        "shown": points.low is not None and points.high is not None and not points.low <= 0.5 <= points.high,
    }


def _contents(first: Answer, second: Answer) -> dict[str, Any]:
    """Prompt and answers; a conversation's earlier turns only if both models said the same there."""
    last = {"answer_a": first.turns[-1].answer, "answer_b": second.turns[-1].answer}
    if len(first.turns) == 1 and not first.system:
        return {"prompt": first.turns[0].question, **last}
    if first.turns[:-1] != second.turns[:-1]:
        return {"answer_a": first.text, "answer_b": second.text}
    messages = [{"role": "system", "content": first.system}] if first.system else []
    for turn in first.turns[:-1]:
        messages += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
    return {"messages": [*messages, {"role": "user", "content": first.turns[-1].question}], **last}
