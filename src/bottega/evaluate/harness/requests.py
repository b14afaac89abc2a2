"""From prompts to what a model is asked in tokens. Imports no torch.

Source: lm-evaluation-harness's `_encode_pair`, `loglikelihood` and `loglikelihood_rolling`: white space at the end of a
context moves to the continuation; context and continuation are encoded together and cut where the context's own tokens
end; where nothing stands before, the model's first token does. Nothing is cut to fit: what does not is refused.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from math import isfinite, nan
from typing import Any

from bottega.core.errors import UserError
from bottega.evaluate.tasks.prompts import Prompt
from bottega.evaluate.tasks.schema import DEFAULT_MAX_TOKENS, TaskConfig
from bottega.generate.settings import Sampling
from bottega.tokenizer.tokenizer import Tokenizer

ENCODED_TOGETHER = 256  # prompts: the tokenizer's own account of a text is some hundred bytes a token
MAX_TOKENS_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class Score:
    """Tokens of which those from `start` on are scored, given those before them."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Generation:
    """A prompt to be continued: until one of `stop` or `max_tokens`; `number` tells repeats apart."""

    ids: tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...]
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    number: int = 0


Request = Score | Generation


@dataclass(frozen=True)
class Asked:
    """A prompt with its requests: `scores[i]` are those of continuation i, several where a text is long."""

    prompt: Prompt
    scores: list[list[Score]] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)

    @property
    def requests(self) -> Iterable[Request]:
        """All of them."""
        yield from (score for scores in self.scores for score in scores)
        yield from self.generations


class Encoder:
    """Makes requests for one model. `markup`: texts come from its chat template, special tokens and all."""

    def __init__(self, tokenizer: Tokenizer, context_length: int, *, markup: bool) -> None:
        self.tokenizer, self.context_length, self.markup = tokenizer, context_length, markup
        first = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        self.first = first
        self._known: dict[str, list[int]] = {}
        self._same: dict[int, int] = {}  # one object for each number: requests hold tens of millions of them

    def ask(self, task: TaskConfig, prompts: Sequence[Prompt], overrides: dict[str, Any]) -> list[Asked]:
        """The requests of a task's prompts; raises UserError that names the document which cannot be asked."""
        settings = generation_settings(task, overrides)
        found = []
        for place, prompt in enumerate(prompts):
            if place % ENCODED_TOGETHER == 0 and not self.markup:
                self._encode_all(prompts[place : place + ENCODED_TOGETHER])
            try:
                found.append(self._ask(task, prompt, settings))
            except UserError as error:
                where = f"task {task.task}, document {prompt.doc_id}"
                raise UserError(f"{where}: {error.message}", hint=error.hint) from None
        self._known = {}
        return found

    def _ask(self, task: TaskConfig, prompt: Prompt, settings: dict[str, Any]) -> Asked:
        if task.output_type == "generate_until":
            ids = tuple(self.encode(prompt.contexts[0])) or (self._first(),)
            self._require_room(len(ids), settings["max_tokens"])
            repeats = range(task.repeats)
            return Asked(prompt, generations=[Generation(ids, **settings, number=number) for number in repeats])
        if task.output_type == "loglikelihood_rolling":
            return Asked(prompt, [self.rolling(text) for text in prompt.continuations])
        contexts = prompt.contexts * (len(prompt.continuations) // len(prompt.contexts))
        pairs = list(zip(contexts, prompt.continuations, strict=True))
        if any(metric.name == "acc_mutual_info" for metric in task.metrics):
            pairs += [("", continuation) for continuation in prompt.continuations]
        return Asked(prompt, [[self.pair(*pair)] for pair in pairs])

    def pair(self, context: str, continuation: str) -> Score:
        """The request for ln p(continuation | context)."""
        context, continuation = _split(context, continuation)
        if not context:
            ids = self._encode(continuation)
            if ids and ids[0] == self._first():
                return self._score(ids, 1)
            return self._score([self._first(), *ids], 1)
        whole, before = self.encode(context + continuation), self.encode(context)
        start = len(before)
        if start >= len(whole):  # a token reaches over the border: it is scored, which lm-evaluation-harness cannot do
            start = common(whole, before)
        return self._score(whole, max(1, start))

    def rolling(self, text: str) -> list[Score]:
        """The requests for ln p(text): windows of the context's length that score every token once."""
        ids = self.encode(text)
        if not ids:
            raise UserError("the text is empty")
        length = self.context_length
        whole = [self._first(), *ids]
        scores, done = [], 0
        while done < len(ids):
            last = min(done + length, len(ids))
            start = max(0, last - length)
            scores.append(Score(tuple(whole[start : last + 1]), done + 1 - start))
            done = last
        return scores

    def encode(self, text: str) -> list[int]:
        """The tokens of a text that begins a document; a template has written its first token itself."""
        if self.markup:
            prefix = self.tokenizer.document_prefix()
            ids = self.tokenizer.encode_markup(text)
            return ids if ids[: len(prefix)] == prefix else [*prefix, *ids]
        return [*self.tokenizer.document_prefix(), *self._encode(text)]

    def _encode(self, text: str) -> list[int]:
        known = self._known.get(text)
        return self.tokenizer.encode(text) if known is None else known

    def _encode_all(self, prompts: Sequence[Prompt]) -> None:
        """Encode all texts that these need, in parallel."""
        texts: dict[str, None] = {}
        for prompt in prompts:
            contexts = prompt.contexts * max(1, len(prompt.continuations) // len(prompt.contexts))
            for context, continuation in zip(contexts, prompt.continuations or [""], strict=False):
                before, after = _split(context, continuation)
                texts |= dict.fromkeys((before, before + after) if before else (after,))
        self._known = dict(zip(texts, self.tokenizer.encode_batch(list(texts)), strict=True))

    def _first(self) -> int:
        if self.first is None:
            raise UserError(
                "nothing stands before the text, and the tokenizer has neither a bos nor an eos token to begin with"
            )
        return self.first

    def _score(self, ids: Sequence[int], start: int) -> Score:
        if start >= len(ids):
            raise UserError("the continuation has no tokens of its own behind its context")
        self._require_room(len(ids) - 1, 0)  # the last token predicts nothing
        return Score(tuple([self._same.setdefault(id_, id_) for id_ in ids]), start)

    def _require_room(self, prompt: int, answer: int) -> None:
        if prompt + answer > self.context_length:
            what = f"{prompt} tokens and {answer} for the answer exceed" if answer else f"{prompt} tokens exceed"
            short = ", a shorter answer with --gen-kwargs max_gen_toks=N" if answer else ""
            hint = f"Fewer examples (--num-fewshot){short}, or a longer context; --keep-going measures the other tasks."
            raise UserError(f"{what} the model's context of {self.context_length}", hint=hint)


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(first), len(second)))


def sampling_of(request: Generation) -> Sampling:
    """Its settings for the engine; raises UserError for one that is out of range.

    Repeats draw other numbers, and so do other prompts: else chance would favour or harm all documents alike.
    """
    seed = blake2b(array("q", [request.number, *request.ids]).tobytes(), digest_size=7).digest()
    return Sampling(
        max_new_tokens=request.max_tokens,
        stop=request.stop,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=int.from_bytes(seed, "big"),
    )


def generation_settings(task: TaskConfig, overrides: dict[str, Any]) -> dict[str, Any]:
    """A task's `generation_kwargs` as settings of `Generation`; raises UserError for one that is not understood."""
    given = _with_one_length(task.generation_kwargs or {}) | _with_one_length(overrides)
    if "temperature" in overrides and "do_sample" not in overrides:
        given.pop("do_sample", None)  # the temperature that is asked for decides, not what the task had
    given.setdefault("until", [task.fewshot_delimiter])
    until = given.pop("until")
    stops = [until] if isinstance(until, str) else until or []
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise UserError(f"task {task.task}: generation_kwargs.until is {until!r}, and no text or list of texts")
    number = partial(_number, task.task)
    temperature = number("temperature", given.pop("temperature", None), None)
    samples = given.pop("do_sample", bool(temperature))
    if not isinstance(samples, bool):
        raise UserError(f"task {task.task}: generation_kwargs.do_sample is {samples!r}, and neither true nor false")
    asked = 1.0 if temperature is None else temperature
    top_p, top_k = number("top_p", given.pop("top_p", None), 1.0), number("top_k", given.pop("top_k", None), 0)
    settings = {
        "max_tokens": int(number("max_gen_toks", given.pop("max_gen_toks", None), DEFAULT_MAX_TOKENS)),
        "stop": tuple(filter(None, stops)),
        "temperature": asked if samples else 0.0,
        "top_p": top_p if samples else 1.0,
        "top_k": int(top_k) if samples else 0,
    }
    if given:
        raise UserError(f"task {task.task}: generation_kwargs.{min(given)} is not understood")
    try:  # what the engine will refuse, before anything is computed
        rest = {"temperature": asked, "top_p": top_p, "top_k": int(top_k), "stop": settings["stop"]}
        Sampling(max_new_tokens=settings["max_tokens"], **rest)
    except UserError as error:
        raise UserError(f"task {task.task}: generation_kwargs: {error.message}", hint=error.hint) from None
    return settings


def _with_one_length(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the answer's length, which has several names, as `max_gen_toks`: the first of them counts."""
    lengths = [settings[name] for name in MAX_TOKENS_NAMES if name in settings]
    rest = {name: value for name, value in settings.items() if name not in MAX_TOKENS_NAMES}
    return rest | ({"max_gen_toks": lengths[0]} if lengths else {})


def _number(task: str, name: str, value: Any, default: Any) -> Any:
    if value is None:
        return default
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = nan
    if not isfinite(number):
        raise UserError(f"task {task}: generation_kwargs.{name} is {value!r}, and no number")
    return number


def _split(context: str, continuation: str) -> tuple[str, str]:
    """White space at the end of the context belongs to the continuation, whose first token it is part of."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation
