"""A sequence that a search found, when it is over, and what may follow it.

This file is the searches' only tie to the sampler: `scores_of` is what it makes of the model's scores where a search
chooses by itself, `draw` its own choice.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        finish_reason: as a `Piece` has it.
    """

    tokens: list[int]
    score: float
    logprob: float
    finish_reason: FinishReason


@dataclass(frozen=True)
class Ending:
    """What ends an answer: a stop token, or text that contains a stop string (which needs the tokenizer)."""

    stop_ids: frozenset[int] = frozenset()
    stop: tuple[str, ...] = ()
    tokenizer: Tokenizer | None = None
    previous: int | None = None
    """The prompt's last token."""

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether an answer that was not over before its last token is over with it."""
        return tokens[-1] in self.stop_ids or bool(self.stop and self._read(tokens)[0].found)

    def text(self, tokens: Sequence[int]) -> str:
        """The answer as text, up to its stop string or stop token."""
        stops, text = self._read([token for token in tokens if token not in self.stop_ids])
        return text if stops.found else text + stops.flush()

    def _read(self, tokens: Sequence[int]) -> tuple[StopStrings, str]:
        assert self.tokenizer is not None
        detokenizer, stops = Detokenizer(self.tokenizer, previous=self.previous), StopStrings(self.stop)
        text = "".join(stops.add(detokenizer.add(token)) for token in tokens if not stops.found)
        return stops, text if stops.found else text + stops.add(detokenizer.flush())


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
