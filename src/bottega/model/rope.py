"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-rotation layout of Hugging Face.

Channel i of the first half and channel i of the second half are one pair; position p turns
the pair by the angle p · theta^(-2i/d). The Llama 3.1 rescaling of the slow frequencies is
Meta's rule as `rope_scaling = {"rope_type": "llama3", …}` states it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """Angle per position of each pair of channels, float32, (head_dim / 2,)."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    plain = 1.0 / (config.rope_theta**exponent)
    scaling = config.rope_scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return plain
    if kind == "linear":
        return plain / scaling["factor"]
    if kind == "llama3":
        return _llama3(plain, scaling)
    raise UserError(f"rope scaling {kind!r} is not supported", hint="Supported: default, linear, llama3.")


def _llama3(plain: Tensor, scaling: dict[str, float]) -> Tensor:
    """Long waves are slowed by `factor`, short ones kept, those between interpolated."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    wavelength = 2 * math.pi / plain
    slowed = torch.where(wavelength > original / low, plain / factor, plain)
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * slowed / factor + smooth * slowed
    is_between = ~(wavelength < original / high) & ~(wavelength > original / low)
    return torch.where(is_between, between, slowed)


def rotation_table(config: ModelConfig, positions: int) -> tuple[Tensor, Tensor]:
    """cos and sin of every angle, float32, each (positions, head_dim); the first half of sin is negative (`rotate`)."""
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), inverse_frequencies(config))
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of channels of `x`.

    Args:
        x: (..., T, heads, head_dim).
        cos: (T, head_dim), of `rotation_table`.
        sin: like `cos`.
    """
    cos, sin = cos.to(x.dtype).unsqueeze(-2), sin.to(x.dtype).unsqueeze(-2)
    # Rolling by half swaps the halves: (a, b) → (a cos - b sin, b cos + a sin), in three operations.
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
