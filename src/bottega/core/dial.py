"""The one dial: from a size follow depth, width, heads, vocabulary, batch, learning rate and token budget.

A size stands for a depth; the rest follows by the rules below, and `docs/dial.md` has the measurements
behind them. This module imports nothing heavy, so that every room can read the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Size = Literal["tiny", "small", "base"]
HEAD_SIZE = 64


@dataclass(frozen=True)
class Dial:
    """What follows from a depth. Only the budgets are chosen freely: they decide how long a size takes."""

    layers: int
    pretrain_tokens: int
    finetune_tokens: int

    @property
    def hidden_size(self) -> int:
        """32 channels per layer, in whole heads."""
        return width(self.layers)

    @property
    def vocab_size(self) -> int:
        """1024 tokens per layer: the embedding stays about a third of a small model."""
        return 1024 * self.layers

    @property
    def context(self) -> int:
        """Longest sequence the model is built for, in tokens."""
        return 1024

    @property
    def row_length(self) -> int:
        """Length of a training row, in tokens."""
        return 512

    @property
    def tokens_per_step(self) -> int:
        """Batch, in tokens: a short run needs many steps more than it needs quiet gradients."""
        return 1024 * self.layers

    @property
    def learning_rate(self) -> float:
        """Peak of pre-training; it falls with the square root of the width."""
        return round(0.01 * (128 / self.hidden_size) ** 0.5, 5)


SIZES: dict[str, Dial] = {
    "tiny": Dial(layers=2, pretrain_tokens=800_000, finetune_tokens=800_000),
    "small": Dial(layers=4, pretrain_tokens=1_500_000, finetune_tokens=2_000_000),
    "base": Dial(layers=8, pretrain_tokens=7_000_000, finetune_tokens=2_000_000),
}


def dial(size: str) -> Dial:
    """What follows from a size."""
    return SIZES[size]


def width(layers: int) -> int:
    """Channels of a model of so many layers."""
    return max(1, round(32 * layers / HEAD_SIZE)) * HEAD_SIZE


def key_value_heads(heads: int) -> int:
    """Two query heads share a key head wherever they come in pairs."""
    return heads // 2 if heads % 2 == 0 else heads


def intermediate_size(hidden_size: int) -> int:
    """8/3 of the width (a gated layer with the parameters of an ungated one of four times), in steps of 32."""
    return -(-hidden_size * 8 // 3 // 32) * 32
