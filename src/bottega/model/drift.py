"""How far a changed model is from the one it should be: the change of its predictions on the same tokens.

KL(reference ‖ model) in nats at every token, its mean and its 99th percentile; the share of tokens with the same
likeliest next token; the greatest change of a logit. Hidden states are compared chunk by chunk, so that no more than
a few rows of logits exist at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_VALUES = 1 << 22


@dataclass(frozen=True)
class Drift:
    """The change of a model's predictions against a reference's. KL in nats, `top1_agreement` a share."""

    kl_mean: float
    kl_p99: float
    top1_agreement: float
    largest_logit_change: float
    tokens: int

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@torch.no_grad()
def drift(
    reference: Tensor, model: Tensor, reference_head: Tensor, head: Tensor, cap: Callable[[Tensor], Tensor]
) -> Drift:
    """From hidden states (N, H) and heads (V, H) of both; `cap` is what the family does to its logits."""
    divergences, agree, largest = [], 0, 0.0
    size = max(1, CHUNK_VALUES // len(head))
    for start in range(0, len(model), size):
        rows = slice(start, start + size)
        wanted, found = cap(reference[rows] @ reference_head.T), cap(model[rows] @ head.T)
        agree += int((wanted.argmax(-1) == found.argmax(-1)).sum())
        largest = max(largest, float((wanted - found).abs().max()))
        p, q = wanted.double().log_softmax(-1), found.double().log_softmax(-1)
        divergences.append((p.exp() * (p - q)).sum(-1).clamp_min(0))
    kl = torch.cat(divergences)
    return Drift(float(kl.mean()), float(kl.quantile(0.99)), agree / len(kl), largest, len(kl))
