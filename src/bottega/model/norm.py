"""Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x²) + eps) · weight` over the last dimension.

    The statistics are taken in float32 whatever the model's precision (also for float64), as
    transformers does: with the same operations in the same order, so that logits agree to the last bits.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) → (..., size), in the precision of `x`."""
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(x.dtype)
