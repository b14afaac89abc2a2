"""Bytes that a parameter takes: its weight, its gradient, the optimiser's states; and a quantised weight's. No torch.

Whatever is counted here is counted for a tensor, because the rules differ by tensor; tests compare the counts with the
bytes that the optimisers and the layers really hold.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

Optimizer = Literal["adamw", "muon", "adamw8bit", "adamw_kahan", "lion", "paged_adamw8bit", "adamw_masters"]
"""`adamw_masters` is AdamW over float32 copies of bfloat16 weights."""
Base = Literal["none", "nf4", "int8"]
SMALLEST_8BIT = 4096
"""Tensors of fewer values keep float32 moments."""
LARGEST_BFLOAT16_BETA = 1 - 1 / 32
"""Second moments that change more slowly are not kept in bfloat16."""
_STATE_BLOCK, _NF4_BLOCK, _SCALE_BLOCK = 256, 64, 256
_STEP = 4  # each parameter's count of steps


class ParameterBytes(NamedTuple):
    """Bytes by purpose."""

    weights: int
    gradients: int
    states: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.states


def parameter_bytes(
    optimizer: Optimizer, shape: tuple[int, ...], *, bits: int = 0, beta: float = 0.95, inside: bool = True
) -> ParameterBytes:
    """What a trained tensor of `shape` takes with this optimiser between two steps.

    Args:
        optimizer: weights and gradients are bfloat16 with `adamw_kahan` and `adamw_masters`, else float32.
        shape: of the tensor.
        bits: 32 for tensors whose group says so (embeddings with `adamw8bit`).
        beta: the second moment's; above 1 − 1/32 `adamw_kahan` keeps it in float32.
        inside: whether it is in a block: `muon` moves the matrices there, and AdamW the rest.
    """
    count = math.prod(shape)
    item = 2 if optimizer in ("adamw_kahan", "adamw_masters") else 4
    if optimizer == "lion" or (optimizer == "muon" and inside and len(shape) == 2):
        states = 4 * count
    elif optimizer in ("adamw8bit", "paged_adamw8bit") and bits != 32 and count >= SMALLEST_8BIT:
        states = 2 * (count + 4 * math.ceil(count / _STATE_BLOCK)) + _STEP
    elif optimizer == "adamw_kahan":
        first = 4 if bits == 32 else 2
        states = (first + (4 if beta > LARGEST_BFLOAT16_BETA else first) + 2) * count + _STEP
    else:
        states = (12 if optimizer == "adamw_masters" else 8) * count + _STEP
    return ParameterBytes(item * count, item * count, states)


def frozen_bytes(base: Base, shape: tuple[int, ...], item: int = 4, *, double_quant: bool = True) -> int:
    """What a frozen tensor takes: dense at `item` bytes a value, or as a matrix (out, in) of a quantised base.

    NF4 takes 4 + 8/64 + 32/(64 · 256) = 4.127 bits a value (QLoRA, arXiv:2305.14314, §3), 4.5 without double
    quantisation.
    """
    count = math.prod(shape)
    if base == "none":
        return item * count
    if base == "int8":
        return count + 4 * shape[0]
    blocks = math.ceil(count / _NF4_BLOCK)
    scales = blocks + 4 * math.ceil(blocks / _SCALE_BLOCK) + 4 if double_quant else 4 * blocks
    return math.ceil(count / 2) + scales
