"""How the next token is chosen from its logits.

Logits → repetition penalty → temperature → top-k → top-p → min-p → one draw, in the order of
transformers, so that equal settings mean equal distributions. Everything is in float32 or wider.
Sources: top-p Holtzman et al. 2019 (arXiv:1904.09751), repetition penalty Keskar et al. 2019
(arXiv:1909.05858), min-p Nguyen et al. 2024 (arXiv:2407.01082).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import torch
from torch import Tensor

from bottega.core.errors import UserError

# Below this temperature logits divided by it leave float32's range, and the draw is the greedy one anyway.
LEAST_TEMPERATURE = 1e-5
# A full sort of a large vocabulary costs more than a decoding step; this many candidates nearly
# always hold the nucleus, and where they do not, the sort is done.
FIRST_CANDIDATES = 1024


@dataclass(frozen=True)
class Sampling:
    """Settings of one request. `temperature` 0 (below 1e-5) is greedy; top_k 0, top_p 1, min_p 0, penalty 1 are off."""

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        """Raise UserError naming the setting that is out of range."""
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_k": (self.top_k >= 0, "0 (off) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
            "min_p": (0 <= self.min_p < 1, "0 or more, below 1"),
            "repetition_penalty": (0.01 <= self.repetition_penalty <= 100, "0.01 to 100"),
            "top_logprobs": (0 <= self.top_logprobs <= 100, "0 to 100"),
            "stop": (all(self.stop), "not empty"),
        }
        for name, (good, wanted) in rules.items():
            if not good:
                raise UserError(f"{name} is {getattr(self, name)!r}", hint=f"It must be {wanted}.")


def random_stream(seed: int | None) -> torch.Generator:
    """The source of a request's draws; without a seed it is another one each time."""
    return torch.Generator().manual_seed(secrets.randbits(63) if seed is None else seed)


def choose(logits: Tensor, history: Tensor, sampling: Sampling, streams: list[torch.Generator]) -> Tensor:
    """The next token of each row, (B,) int64.

    Args:
        logits: (B, V), any floating type.
        history: (B, T) tokens so far, prompt included (for the repetition penalty).
        sampling: settings of all rows.
        streams: one source of randomness per row; untouched when greedy.
    """
    scores = logits if logits.dtype == torch.float64 else logits.float()
    if sampling.repetition_penalty != 1.0:
        scores = penalise(scores, history, sampling.repetition_penalty)
    if sampling.temperature < LEAST_TEMPERATURE:
        return greedy(scores)
    tokens, probabilities = candidates(scores / sampling.temperature, sampling)
    cumulative = probabilities.double().cumsum(-1)
    draws = torch.stack([torch.rand((), generator=stream, dtype=torch.float64) for stream in streams])
    # Inverse of the cumulative distribution: the first candidate whose cumulative mass exceeds the draw.
    threshold = draws.to(cumulative.device).unsqueeze(1) * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, threshold, right=True).clamp_(max=cumulative.shape[1] - 1)
    return tokens.gather(1, place).squeeze(1)


def greedy(scores: Tensor) -> Tensor:
    """The most probable token of each row, the first of equals. (B, V) → (B,) int64."""
    if scores.device.type != "cpu":
        return scores.argmax(-1)
    return torch.from_numpy(scores.detach().numpy().argmax(-1))  # vectorised, unlike torch's


def penalise(scores: Tensor, history: Tensor, penalty: float) -> Tensor:
    """Divide the positive and multiply the negative scores of tokens seen before by `penalty`. (B, V) → (B, V)."""
    seen = scores.gather(1, history)
    return scores.scatter(1, history, torch.where(seen < 0, seen * penalty, seen / penalty))


def candidates(scores: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Tokens that may be drawn, most probable first, and their probabilities (0 for those cut off).

    Args:
        scores: (B, V), temperature applied.
        sampling: top_k, top_p and min_p are used.

    Returns:
        tokens (B, K) int64, probabilities (B, K) summing to 1 per row.
    """
    vocabulary = scores.shape[-1]
    size = min(sampling.top_k or vocabulary, vocabulary)
    truncates = sampling.top_p < 1 or sampling.min_p > 0
    if not sampling.top_k and not truncates:
        return torch.arange(vocabulary, device=scores.device).expand_as(scores), scores.softmax(-1)
    if not sampling.top_k and sampling.top_p < 1 and vocabulary > FIRST_CANDIDATES:
        top, tokens = scores.topk(FIRST_CANDIDATES)
        mass = (top - scores.logsumexp(-1, keepdim=True)).exp()
        if bool((mass.sum(-1) >= sampling.top_p).all()):
            return tokens, _truncate(mass, sampling)
    top, tokens = scores.topk(size)
    return tokens, _truncate(top.softmax(-1), sampling)


def _truncate(probabilities: Tensor, sampling: Sampling) -> Tensor:
    """top-p, then min-p of what is left, on descending probabilities (B, K); renormalised."""
    if sampling.top_p < 1:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    if sampling.min_p > 0:
        probabilities = probabilities.masked_fill(probabilities < sampling.min_p * probabilities[:, :1], 0.0)
    return probabilities / probabilities.sum(-1, keepdim=True)
