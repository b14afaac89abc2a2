"""A sequence that a search found, when it is over, and what may follow it.

This file is the searches' only tie to the sampler: `scores_of` is what it makes of the model's scores where a search
chooses by itself, `draw` its own choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from bottega.core.errors import UserError
from bottega.generate.candidates import Candidates
from bottega.generate.draws import fresh_seed
from bottega.generate.processors import process
from bottega.generate.samplers import SAMPLERS
from bottega.generate.sampling import Row, choose
from bottega.generate.settings import CHANGES_SCORES, Sampling
from bottega.generate.stopping import StopStrings
from bottega.tokenizer.tokenizer import Detokenizer, Tokenizer

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Hypothesis:
    """A finished answer.

    Attributes:
        tokens: the answer without its prompt, with the stop token that ended it.
        score: what the search ranks it by.
        logprob: its log-probability in nats, sum over the tokens, in the rows' own scores (before any processor).
        text: the answer without what ended it.
        finish_reason: as a `Piece` has it.
    """

    tokens: list[int]
    score: float
    logprob: float
    text: str
    finish_reason: FinishReason


class Reader:
    """Reads one answer as it grows: its text, and whether it is over."""

    def __init__(self, sampling: Sampling, tokenizer: Tokenizer | None = None, previous: int | None = None) -> None:
        """`previous` is the prompt's last token. Without a tokenizer there is no text, and nothing but tokens stops."""
        self._enders, self._shortest = frozenset(sampling.stop_token_ids), sampling.min_new_tokens
        self._detokenizer = Detokenizer(tokenizer, previous=previous) if tokenizer is not None else None
        self._stops, self._count, self._text = StopStrings.of(sampling), 0, ""

    def fork(self) -> Reader:
        """One that goes on from here by itself."""
        other = copy(self)
        other._stops = self._stops.fork()
        other._detokenizer = self._detokenizer.fork() if self._detokenizer is not None else None
        return other

    def add(self, token: int) -> bool:
        """Read on; whether the answer is over with this token."""
        self._count += 1
        if token in self._enders:
            return True
        if self._detokenizer is not None:
            self._show(self._detokenizer.add(token))
        return self._stops.found

    def finish(self) -> str:
        """The answer as text, without what ended it; nothing may be read behind."""
        if self._detokenizer is not None and not self._stops.found:
            self._show(self._detokenizer.flush())
        return self._text + self._stops.flush()

    def _show(self, text: str) -> None:
        self._text += self._stops.add(text, may_stop=self._count >= self._shortest)


def scores_of(logits: Tensor, prompt: Sequence[int], answers: Sequence[Sequence[int]], sampling: Sampling) -> Tensor:
    """Log-probabilities of what may follow each answer so far, (R, V) → (R, V); −inf is what may not.

    The sampler's processors and penalties are applied to the logits, as where tokens are drawn, and the result is
    normalised again, so that sums of it are log-probabilities of sequences.
    """
    rows = [Row(sampling, 0, [*prompt, *answer], len(prompt)) for answer in answers]
    candidates = Candidates.whole(range(len(rows)), process(logits, rows))
    for name in sampling.chain:
        if name in CHANGES_SCORES - {"temperature"}:
            candidates = SAMPLERS[name](candidates, rows)
    scores = candidates.scores
    return scores.log_softmax(-1).masked_fill(scores.isneginf(), float("-inf"))  # of nothing but −inf it makes NaN


def new_rows(prompt: Sequence[int], sampling: Sampling, number: int) -> list[Row]:
    """Answers to one prompt that are drawn, each with draws of its own: row i has the seed plus i."""
    seeds = [fresh_seed() if sampling.seed is None else sampling.seed + row for row in range(number)]
    return [Row(sampling, seed, list(prompt), len(prompt)) for seed in seeds]


def draw(logits: Tensor, rows: Sequence[Row]) -> list[int | None]:
    """The next token of each row, which is put behind its text; None where nothing may follow. `logits` (R, V)."""
    chosen = [choice.token for choice in choose(logits, rows)]
    for row, token in zip(rows, chosen, strict=True):
        if token >= 0:
            row.tokens.append(token)
    return [token if token >= 0 else None for token in chosen]


def nothing_follows() -> UserError:
    """Every token is forbidden before an answer is over: what was said so far is none."""
    return UserError("every token is forbidden before an answer is over", hint="Allow more tokens, or ban fewer.")
