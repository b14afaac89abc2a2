"""The feed-forward layer: plain, `down(act(up(x)))`, or gated, `down(act(gate(x)) · up(x))`.

Gates: Shazeer 2020, arXiv:2002.05202.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError, did_you_mean
from bottega.model.linear import Linear


def _gelu_bloom(x: Tensor) -> Tensor:
    """GELU's tanh form with √(2/π) to eight digits, as BLOOM was trained with."""
    return x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "gelu": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_bloom": _gelu_bloom,
    "relu": F.relu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function that `hidden_act` names."""
    if name not in ACTIVATIONS:
        raise UserError(f"hidden_act {name!r} is not supported", hint=did_you_mean(name, ACTIVATIONS))
    return ACTIVATIONS[name]


class FeedForward(nn.Module):
    """Gated: (..., hidden) → (..., hidden) through `width` channels (default: the config's)."""

    def __init__(self, config: ModelConfig, width: int | None = None) -> None:
        super().__init__()
        wide, bias = width or config.intermediate_size, config.switches.mlp_bias
        self.gate_proj = Linear(config.hidden_size, wide, bias=bias)
        self.up_proj = Linear(config.hidden_size, wide, bias=bias)
        self.down_proj = Linear(wide, config.hidden_size, bias=bias)
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        """Gate, widen, narrow."""
        gate, up = self.project(x)
        return self.down_proj(self.act(gate) * up)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., hidden) → gate, up, (..., intermediate) each."""
        return self.gate_proj(x), self.up_proj(x)


class PlainFeedForward(nn.Module):
    """Without a gate: (..., hidden) → (..., hidden) through `intermediate_size` channels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        wide, bias = config.intermediate_size, config.switches.mlp_bias
        self.up_proj = Linear(config.hidden_size, wide, bias=bias)
        self.down_proj = Linear(wide, config.hidden_size, bias=bias)
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        """Widen, narrow."""
        return self.down_proj(self.act(self.up_proj(x)))
