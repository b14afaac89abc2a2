"""The gated feed-forward layer (Shazeer 2020, arXiv:2002.05202): `down(act(gate(x)) · up(x))`."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError, did_you_mean

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "swish": F.silu, "gelu": F.gelu}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function that `hidden_act` names."""
    if name not in ACTIVATIONS:
        raise UserError(f"hidden_act {name!r} is not supported", hint=did_you_mean(name, ACTIVATIONS))
    return ACTIVATIONS[name]


class FeedForward(nn.Module):
    """(..., hidden) → (..., hidden) through `intermediate_size` gated channels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        wide, bias = config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(config.hidden_size, wide, bias=bias)
        self.up_proj = nn.Linear(config.hidden_size, wide, bias=bias)
        self.down_proj = nn.Linear(wide, config.hidden_size, bias=bias)
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        """Gate, widen, narrow."""
        gate, up = self.project(x)
        return self.down_proj(self.act(gate) * up)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., hidden) → gate, up, (..., intermediate) each."""
        return self.gate_proj(x), self.up_proj(x)
