"""Which questions are put to the judge, and what came of each. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from bottega.clients.chat import Reply
from bottega.core.errors import UserError, did_you_mean
from bottega.evaluate.judge.answers import Answer, Answers
from bottega.evaluate.judge.config import Mode
from bottega.evaluate.judge.prompts import WITH_REFERENCE, Messages, Prompts, pair_prompt, single_prompt
from bottega.evaluate.judge.verdicts import Place, score_of, winner_of


@dataclass(frozen=True)
class Call:
    """One question to the judge: of `answers`, the one to be scored, or the two to be compared in the order shown."""

    models: tuple[str, ...]
    answers: tuple[Answer, ...]
    messages: Messages

    @property
    def id(self) -> str:
        """Of the question that was answered."""
        return self.answers[0].id

    @property
    def turn(self) -> int:
        """The turn that is judged, from 1."""
        return len(self.answers[0].turns)

    @property
    def category(self) -> str:
        """Of the question."""
        return self.answers[0].category


@dataclass(frozen=True)
class Judgement:
    """What the judge said to a call (`time` in seconds since 1970), or why it said nothing."""

    call: Call
    reply: Reply | None
    time: float = 0.0
    error: str = ""

    @property
    def score(self) -> float | None:
        """1 to 10, of a call for a score."""
        return score_of(self.reply.text) if self.reply and len(self.call.models) == 1 else None

    @property
    def winner(self) -> Place | None:
        """Of a comparison, the place at which the better answer was shown."""
        return winner_of(self.reply.text) if self.reply and len(self.call.models) == 2 else None

    @property
    def is_usable(self) -> bool:
        """Whether it says what was asked for."""
        return self.score is not None or self.winner is not None

    def as_row(self) -> dict[str, Any]:
        """The row of judgements.jsonl."""
        call, reply = self.call, self.reply
        row: dict[str, Any] = {"id": call.id, "category": call.category, "turn": call.turn, "models": list(call.models)}
        row |= {"score": self.score} if len(call.models) == 1 else {"winner": self.winner}
        if reply is None:
            return row | {"error": self.error}
        return row | {"text": reply.text, "finish_reason": reply.finish_reason, "time": self.time}


def calls_of(answers: Answers, mode: Mode, prompts: Prompts, baseline: str | None = None) -> list[Call]:
    """All questions to the judge; raises UserError where the answers do not fit the mode."""
    if mode == "pairwise":
        return list(_pair_calls(answers, prompts, baseline))
    if mode == "single":
        return [_single_call(model, each, prompts) for model, own in answers.items() for each in own.values()]
    return list(_turn_calls(answers, prompts))


def limited(answers: Answers, limit: int | None) -> Answers:
    """Of each model, the answers to the first `limit` questions; the order is that of the first model."""
    if limit is None:
        return answers
    kept = set(list(dict.fromkeys(id_ for own in answers.values() for id_ in own))[:limit])
    return {model: {id_: each for id_, each in own.items() if id_ in kept} for model, own in answers.items()}


def pairs_of(models: Iterable[str], baseline: str | None) -> list[tuple[str, str]]:
    """Which models are compared; raises UserError if there are none to compare."""
    names = list(models)
    if len(names) < 2:
        raise UserError(f"a comparison needs two models, and the answers are all of {names[0]!r}")
    if baseline is None:
        return list(combinations(names, 2))
    if baseline not in names:
        raise UserError(f"no answers are of the baseline {baseline!r}", hint=did_you_mean(baseline, names))
    return [(name, baseline) for name in names if name != baseline]


def only_one_has(answers: Answers, baseline: str | None) -> int:
    """How many answers of compared pairs have no counterpart."""
    return sum(len(answers[one].keys() ^ answers[other].keys()) for one, other in pairs_of(answers, baseline))


def _single_call(model: str, answer: Answer, prompts: Prompts) -> Call:
    return Call((model,), (answer,), single_prompt(prompts, answer))


def _pair_calls(answers: Answers, prompts: Prompts, baseline: str | None) -> Iterator[Call]:
    """Both orders of every pair, one after the other."""
    for one, other in pairs_of(answers, baseline):
        common = [id_ for id_ in answers[one] if id_ in answers[other]]
        if not common:
            raise UserError(f"{one!r} and {other!r} answered no question with the same id")
        for id_ in common:
            first, second = answers[one][id_], answers[other][id_]
            if first.questions != second.questions:
                raise UserError(f"{one!r} and {other!r} were asked different things under the id {id_!r}")
            yield Call((one, other), (first, second), pair_prompt(prompts, first, second))
            yield Call((other, one), (second, first), pair_prompt(prompts, second, first))


def _turn_calls(answers: Answers, prompts: Prompts) -> Iterator[Call]:
    """MT-bench: each turn with the conversation before it; a right answer where the category is judged with one."""
    for model, own in answers.items():
        for answer in own.values():
            for turn in range(1, len(answer.turns) + 1):
                part = answer.until(turn)
                if answer.category not in WITH_REFERENCE:
                    part = _without_reference(part)
                elif len(part.references) < turn:
                    raise UserError(
                        f"{answer.id!r} ({answer.category}) has no right answer for turn {turn}",
                        hint="MT-bench judges math, reasoning and coding against right answers: give --reference.",
                    )
                yield _single_call(model, part, prompts)


def _without_reference(answer: Answer) -> Answer:
    return Answer(answer.id, answer.turns, answer.system, answer.category)
