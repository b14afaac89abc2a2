"""Multiple choice by log-likelihood: which of the offered answers does the model find likeliest?

A question is asked through the model's chat template (then a choice is what the assistant says, with
the stop token that ends its turn), or plainly as `Question: …\\nAnswer: …` (then a choice is the text
alone). The context runs once; the choices run together on a copy of its cache. Scores of a
choice, from the sum of its tokens' log-probabilities:

    sum            the sum itself                              (lm-eval's acc)
    per_character  divided by the choice's characters          (lm-eval's acc_norm)
    per_byte       divided by its UTF-8 bytes                  (lm-eval's acc_bytes), the headline
    information    minus the sum without the question          (lm-eval's acc_mutual_info)

The likeliest wins, of equals the first. *Answers alone* is the same model's accuracy, per byte, with
a question that says nothing: what can be guessed from how the answers look. It stands
beside chance, and the difference is tested on the same questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bottega.core.errors import BottegaError, UserError
from bottega.core.progress import Bar
from bottega.evaluate.config import Prompt
from bottega.evaluate.likelihood import nats_of
from bottega.evaluate.statistics import mcnemar, paired_difference, wilson
from bottega.evaluate.texts import Question
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder
from bottega.tokenizer.chat import encode_chat
from bottega.tokenizer.tokenizer import Tokenizer

# The question that says nothing, for "answers alone".
NO_QUESTION = "What is the answer?"
SCORES = ("sum", "per_character", "per_byte", "information")
HEADLINE = "per_byte"


@dataclass(frozen=True)
class Offer:
    """A context and its choices as tokens: choice i is scored on `choices[i]`, behind `context`."""

    context: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Prediction:
    """One question with the log-likelihood (nats, ≤ 0) of each choice, with and without the question."""

    question: Question
    likelihoods: list[float]
    alone: list[float]

    def scores(self, name: str = HEADLINE) -> list[float]:
        """The score of each choice by one of SCORES."""
        if name == "information":
            return [with_it - without for with_it, without in zip(self.likelihoods, self.alone, strict=True)]
        return _normalised(self.likelihoods, self.question, name)

    def is_right(self, name: str = HEADLINE) -> bool:
        """Whether the best choice by that score is the right one."""
        return _best(self.scores(name)) == self.question.answer

    @property
    def right_alone(self) -> bool:
        """Whether the answers alone would have given it away."""
        return _best(_normalised(self.alone, self.question, HEADLINE)) == self.question.answer

    def as_row(self) -> dict[str, Any]:
        """The row of predictions.jsonl."""
        question = self.question
        return {
            "id": question.id,
            "group": question.group,
            "kind": question.kind,
            "question": question.question,
            "choices": list(question.choices),
            "answer": question.answer,
            "predicted": _best(self.scores()),
            "predicted_answers_alone": _best(_normalised(self.alone, question, HEADLINE)),
            "log_likelihoods": self.likelihoods,
            "log_likelihoods_alone": self.alone,
        }


def asks_by_chat(tokenizer: Tokenizer, prompt: Prompt) -> bool:
    """Whether questions go through the chat template; raises UserError if they should and there is none."""
    if prompt == "chat" and not tokenizer.chat_template:
        raise UserError("the model has no chat template", hint="Use --prompt plain.")
    return prompt == "chat" or (prompt == "auto" and tokenizer.chat_template is not None)


def offer(tokenizer: Tokenizer, question: str, choices: Sequence[str], *, chat: bool) -> Offer:
    """The tokens of a question and its choices; raises UserError if the template cannot be used for it."""
    if chat:
        asked = [{"role": "user", "content": question}]
        context = encode_chat(tokenizer, asked, add_generation_prompt=True).ids
        each = []
        for choice in choices:
            answered = encode_chat(tokenizer, [*asked, {"role": "assistant", "content": choice}])
            trained = [id_ for id_, mask in zip(answered.ids, answered.mask, strict=True) if mask]
            if answered.ids[: len(context) + len(trained)] != [*context, *trained]:
                raise UserError("the chat template puts no answer behind its prompt", hint="Use --prompt plain.")
            each.append(tuple(trained))
        return Offer(tuple(context), tuple(each))
    before = f"Question: {question}\nAnswer:"
    prefix = tokenizer.document_prefix()
    if not prefix and tokenizer.eos_id is not None:
        prefix = [tokenizer.eos_id]
    context = tokenizer.encode(before)
    # As lm-eval does: encode the whole and cut where the context's own tokens end.
    whole = [tokenizer.encode(f"{before} {choice}") for choice in choices]
    return Offer((*prefix, *context), tuple(tuple(ids[len(context) :]) for ids in whole))


class ChoiceScorer:
    """Scores choices behind a context. A context that comes again at once is not run again."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.dtype, self.device = decoder.dtype, decoder.device
        self._context: tuple[int, ...] = ()
        self._cache: KVCache | None = None
        self._last: Tensor | None = None

    @torch.inference_mode()
    def score(self, offered: Offer) -> list[float]:
        """Sum of ln p of each choice's tokens behind the context; raises UserError if it does not fit."""
        longest = max(map(len, offered.choices))
        limit = self.decoder.config.context_length
        if not offered.context or not min(map(len, offered.choices)):
            raise UserError("a question or a choice has no tokens")
        if len(offered.context) + longest > limit:
            raise UserError(
                f"a question of {len(offered.context)} tokens and a choice of {longest} exceed the context of {limit}"
            )
        cache, last = self._after(offered.context)
        count = len(offered.choices)
        # Row i of `inputs` is choice i without its last token; what pads it stands behind what counts.
        targets = torch.zeros(count, longest, dtype=torch.long)
        valid = torch.zeros(count, longest, dtype=torch.bool)
        for row, choice in enumerate(offered.choices):
            targets[row, : len(choice)] = torch.tensor(choice)
            valid[row, : len(choice)] = True
        rows = last.expand(count, 1, -1)
        if longest > 1:
            fork = cache.expand(count, capacity=cache.length + longest - 1)
            rows = torch.cat([rows, self.decoder.hidden(targets[:, :-1].to(self.device), cache=fork)], dim=1)
        nats = torch.zeros(count, longest, dtype=torch.float64)
        nats[valid] = nats_of(self.decoder.logits(rows[valid.to(self.device)]), targets[valid]).cpu().double()
        return [-value for value in nats.sum(dim=1).tolist()]

    def _after(self, context: tuple[int, ...]) -> tuple[KVCache, Tensor]:
        """The cache behind `context`, and its last hidden state (1, 1, H)."""
        if context != self._context or self._cache is None or self._last is None:
            self._cache = KVCache(self.decoder.config, 1, len(context), self.dtype, self.device)
            ids = torch.tensor([context], device=self.device)
            self._last = self.decoder.hidden(ids, cache=self._cache)[:, -1:]
            self._context = context
        return self._cache, self._last


def answer_questions(
    decoder: Decoder, tokenizer: Tokenizer, questions: Sequence[Question], *, chat: bool, bar: Bar | None = None
) -> list[Prediction]:
    """Score every choice of every question, with the question and without it."""
    scorer = ChoiceScorer(decoder)
    found = []
    for instead in (None, NO_QUESTION):
        likelihoods = []
        for question in questions:
            try:
                likelihood = scorer.score(offer(tokenizer, instead or question.question, question.choices, chat=chat))
            except UserError as error:
                raise UserError(f"question {question.id}: {error.message}", hint=error.hint) from None
            if not all(abs(value) < float("inf") for value in likelihood):
                raise BottegaError(f"question {question.id}: the model gives no finite probability to a choice")
            likelihoods.append(likelihood)
            if bar:
                bar.advance(0.5)
        found.append(likelihoods)
    return [Prediction(*each) for each in zip(questions, *found, strict=True)]


def summarise(predictions: Sequence[Prediction], *, chat: bool, seed: int = 0) -> dict[str, Any]:
    """Accuracy with 95 % Wilson intervals, beside chance and the answers alone; by group and by kind."""
    right, alone = [p.is_right() for p in predictions], [p.right_alone for p in predictions]
    paired = mcnemar(right, alone)
    gain = paired_difference(right, alone, seed=seed)
    return {
        "prompt": "chat" if chat else "plain",
        "score": HEADLINE,
        **_part(predictions),
        "over_answers_alone": {
            "difference": gain.value,
            "interval": None if gain.low is None else [gain.low, gain.high],
            "p_value": paired.p_value,
        },
        "accuracy_by_score": {name: _share(p.is_right(name) for p in predictions) for name in SCORES},
        "by_group": _parts(predictions, "group"),
        "by_kind": _parts(predictions, "kind"),
    }


def _part(predictions: Sequence[Prediction]) -> dict[str, Any]:
    count = len(predictions)
    right = wilson(sum(p.is_right() for p in predictions), count)
    alone = wilson(sum(p.right_alone for p in predictions), count)
    return {
        "questions": count,
        "accuracy": right.value,
        "accuracy_interval": [right.low, right.high],
        "answers_alone": alone.value,
        "answers_alone_interval": [alone.low, alone.high],
        "chance": sum(1 / len(p.question.choices) for p in predictions) / count,
    }


def _parts(predictions: Sequence[Prediction], key: str) -> dict[str, Any]:
    names = sorted({getattr(p.question, key) for p in predictions} - {""})
    return {name: _part([p for p in predictions if getattr(p.question, key) == name]) for name in names}


def _share(flags: Iterable[bool]) -> float:
    each = list(flags)
    return sum(each) / len(each)


def _normalised(likelihoods: Sequence[float], question: Question, name: str) -> list[float]:
    if name == "sum":
        return list(likelihoods)
    sizes = [len(choice) if name == "per_character" else len(choice.encode("utf-8")) for choice in question.choices]
    return [value / size for value, size in zip(likelihoods, sizes, strict=True)]


def _best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda index: scores[index])
