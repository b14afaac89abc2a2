"""The one dial: from `--size` (a depth) follow width, heads, vocabulary, batch, learning rate and token budget.

The rule is stated in `docs/dial.md` with the measurements behind it. It imports nothing, so that
the tokenizer, the data and the training room read the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Size = Literal["tiny", "small", "base"]


@dataclass(frozen=True)
class Dial:
    """What follows from the size."""

    layers: int
    vocab_size: int
    pretrain_tokens: int
    finetune_tokens: int

    @property
    def hidden_size(self) -> int:
        """48 channels per layer: width grows with depth (aspect ratio of the small models of Kaplan et al. 2020)."""
        return 64 * self.layers

    @property
    def num_attention_heads(self) -> int:
        """Heads of 64 channels, at least two."""
        return max(2, self.hidden_size // 64)

    @property
    def num_key_value_heads(self) -> int:
        """Two query heads share a key head where they can."""
        return self.num_attention_heads // 2 if self.num_attention_heads % 2 == 0 else self.num_attention_heads

    @property
    def intermediate_size(self) -> int:
        """8/3 of the width (a gated layer as large as an ungated one of 4 times), in steps of 32."""
        return -(-self.hidden_size * 8 // 3 // 32) * 32

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
        """Batch, in tokens."""
        return 8192

    @property
    def learning_rate(self) -> float:
        """Falls with the square root of the width."""
        return 0.01 * (192 / self.hidden_size) ** 0.5


SIZES: dict[str, Dial] = {
    "tiny": Dial(layers=2, vocab_size=2048, pretrain_tokens=400_000, finetune_tokens=150_000),
    "small": Dial(layers=4, vocab_size=4096, pretrain_tokens=1_600_000, finetune_tokens=500_000),
    "base": Dial(layers=6, vocab_size=8192, pretrain_tokens=8_000_000, finetune_tokens=2_000_000),
}


def dial(size: str) -> Dial:
    """The settings that follow from a size."""
    return SIZES[size]
