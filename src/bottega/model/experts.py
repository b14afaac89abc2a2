"""A mixture of experts (Shazeer et al. 2017, arXiv:1701.06538; Mixtral: Jiang et al. 2024, arXiv:2401.04088).

A router scores the experts for every token; the best few feed-forward layers see it, and their outputs are added,
weighted by the router's probabilities. Qwen 2 MoE adds one expert that sees every token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.switches import Experts
from bottega.model.feed_forward import FeedForward
from bottega.model.linear import Linear


class MixtureOfExperts(nn.Module):
    """(..., hidden) → (..., hidden)."""

    def __init__(self, config: ModelConfig, experts: Experts) -> None:
        super().__init__()
        self.per_token, self.normalised = experts.per_token, experts.normalised
        self.gate = Linear(config.hidden_size, experts.count, bias=False)
        self.experts = nn.ModuleList(FeedForward(config, experts.intermediate_size) for _ in range(experts.count))
        self.shared_expert = self.shared_expert_gate = None
        self.sigmoid: Callable[[Tensor], Tensor] = torch.sigmoid
        if experts.shared_intermediate_size:
            self.shared_expert = FeedForward(config, experts.shared_intermediate_size)
            self.shared_expert_gate = Linear(config.hidden_size, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Route, compute the chosen experts, add."""
        flat = x.flatten(0, -2)
        weights, chosen = self.route(flat)
        out = torch.zeros_like(flat)
        for expert in chosen.unique().tolist():
            tokens, places = (chosen == expert).nonzero(as_tuple=True)
            said = self.experts[expert](flat[tokens]) * weights[tokens, places, None]
            out = out.index_add(0, tokens, said.to(out.dtype))
        if self.shared_expert is not None and self.shared_expert_gate is not None:
            out = out + self.sigmoid(self.shared_expert_gate(flat)) * self.shared_expert(flat)
        return out.view_as(x)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, hidden) → weights (N, per_token) in the precision of x and the experts they are for, int64.

        The softmax is over all experts and in float32 whatever the model's precision.
        """
        probabilities = self.gate(x).float().softmax(-1)
        weights, chosen = probabilities.topk(self.per_token, dim=-1)
        if self.normalised:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights.to(x.dtype), chosen
