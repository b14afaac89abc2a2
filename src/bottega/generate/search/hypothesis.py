"""A sequence that a search found, when it is over, and what may follow it.

This file is the searches' only tie to the sampler: `scores_of` is what changes the model's scores, `draw` the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bottega.generate.sampling import Sampling, choose, penalise, random_stream
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

    @property
    def mean_logprob(self) -> float:
        """Nats per token."""
        return self.logprob / len(self.tokens)


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
    """Log-probabilities of what may follow each answer so far, the sampler's processors applied. (R, V) → (R, V).

    They are normalised again behind the processors, so that sums of them are log-probabilities of sequences.
    """
    if sampling.repetition_penalty != 1.0:
        history = torch.tensor([[*prompt, *answer] for answer in answers], device=logits.device)
        logits = penalise(logits, history, sampling.repetition_penalty)
    return logits.log_softmax(-1)


class Draws:
    """Several answers to one prompt under way, each with a source of draws of its own."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling, number: int) -> None:
        self.sampling, self.length = sampling, len(prompt)
        self.tokens = [list(prompt) for _ in range(number)]
        self.streams = [random_stream(None if sampling.seed is None else sampling.seed + row) for row in range(number)]

    def next(self, logits: Tensor, live: Sequence[int]) -> list[int]:
        """Draw the next token of the answers `live` from (R, V) logits, and note it."""
        history = torch.tensor([self.tokens[index] for index in live], device=logits.device)
        chosen = choose(logits, history, self.sampling, [self.streams[index] for index in live]).tolist()
        for index, token in zip(live, chosen, strict=True):
            self.tokens[index].append(token)
        return chosen

    def answer(self, index: int) -> list[int]:
        """The tokens of an answer so far."""
        return self.tokens[index][self.length :]
