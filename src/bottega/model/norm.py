"""Normalisation: root-mean-square (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4) in three spellings, and LayerNorm.

The statistics of RMSNorm are taken in float32 whatever the model's precision (also for float64), as
transformers does: with the same operations in the same order, so that logits agree to the last bits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bottega.checkpoint.switches import Norm


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x²) + eps) · weight` over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) → (..., size), in the precision of `x`."""
        return self.weight * self.normalised(x).to(x.dtype)

    def normalised(self, x: Tensor) -> Tensor:
        """`x / sqrt(mean(x²) + eps)` in float32."""
        wide = x.float()
        return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)


class WideRMSNorm(RMSNorm):
    """RMSNorm that multiplies by the weight before it returns to the precision of `x` (OLMo 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) → (..., size), in the precision of `x`."""
        return (self.weight * self.normalised(x)).to(x.dtype)


class OffsetRMSNorm(RMSNorm):
    """RMSNorm whose factor is 1 + weight, so that a weight of zero changes nothing (Gemma)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size, eps)
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) → (..., size), in the precision of `x`."""
        return (self.normalised(x) * (1.0 + self.weight.float())).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """`(x - mean) / sqrt(variance + eps) · weight + bias` over the last dimension (Ba et al. 2016)."""


NORMS: dict[Norm, type[RMSNorm] | type[LayerNorm]] = {
    "rms": RMSNorm,
    "rms_wide": WideRMSNorm,
    "rms_offset": OffsetRMSNorm,
    "layer": LayerNorm,
}


def make_norm(kind: Norm, size: int, eps: float) -> nn.Module:
    """The norm that a family's switch names."""
    return NORMS[kind](size, eps)
