"""What happened in one step, as plain data, for a decoding explorer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bottega.generate.candidates import best

CANDIDATES = 50


@dataclass(frozen=True)
class TracedCandidate:
    """A token: the model's own probability, the one it was drawn with, and what cut it off (None: nothing did)."""

    token: int
    raw_probability: float
    probability: float
    cut_by: str | None


@dataclass(frozen=True)
class StepTrace:
    """One step.

    `candidates` are the likeliest by the model, at most 50, and the drawn one; `entropy` is that of the model's own
    distribution in nats; `steps` names what ran, in order. The token was drawn because `uniform` falls into its
    `share` of [0, 1); greedy steps have neither. `xtc_uniform` decided whether XTC cut, `mu` is mirostat's before it.
    """

    candidates: list[TracedCandidate]
    entropy: float
    steps: list[str]
    token: int
    uniform: float | None
    share: tuple[float, float] | None
    xtc_uniform: float | None
    mu: float | None

    def as_data(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class Drawn:
    """The end of a step: probabilities (K,) of tokens (K,), and what was drawn from them (as in `StepTrace`)."""

    tokens: Tensor
    probabilities: Tensor
    token: int
    uniform: float | None
    share: tuple[float, float] | None
    xtc_uniform: float | None
    mu: float | None


class Recorder:
    """Watches one row's likeliest tokens while samplers cut."""

    def __init__(self, logits: Tensor) -> None:
        """`logits` (V,): the model's own."""
        logits = logits.double()
        self._raw = logits.softmax(-1)
        self._entropy = float(-(self._raw * logits.log_softmax(-1)).nan_to_num(nan=0.0).sum())
        self._shown: list[int] = best(logits, min(CANDIDATES, len(logits))).tolist()
        self._cut_by: dict[int, str] = {}
        self._steps: list[str] = []

    def note(self, name: str, scores: Tensor, tokens: Tensor | None = None) -> None:
        """Scores (K,) after the step `name`, of `tokens` (K,) or of the whole vocabulary."""
        self._steps.append(name)
        left = scores > -torch.inf
        alive = torch.zeros(len(self._raw), dtype=torch.bool, device=scores.device)
        alive[left.nonzero().squeeze(1) if tokens is None else tokens[left]] = True
        for token, is_alive in zip(self._shown, alive[self._shown].tolist(), strict=True):
            if not is_alive:
                self._cut_by.setdefault(token, name)

    def trace(self, drawn: Drawn) -> StepTrace:
        """The step, once it is over."""
        final = torch.zeros_like(self._raw)
        final[drawn.tokens] = drawn.probabilities.to(final)
        shown = self._shown
        if drawn.token >= 0 and drawn.token not in shown:
            shown = [*shown[: CANDIDATES - 1], drawn.token]
        raw, probabilities = self._raw[shown].tolist(), final[shown].tolist()
        cut_by = [self._cut_by.get(token) for token in shown]
        rows = zip(shown, raw, probabilities, cut_by, strict=True)
        return StepTrace(
            candidates=[TracedCandidate(*row) for row in rows],
            entropy=self._entropy,
            steps=self._steps,
            token=drawn.token,
            uniform=drawn.uniform,
            share=drawn.share,
            xtc_uniform=drawn.xtc_uniform,
            mu=drawn.mu,
        )
