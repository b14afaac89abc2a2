"""Attention with linear biases (Press et al. 2021, arXiv:2108.12409): no positions but a fee on distance.

A head's scores get -slope · distance; the slopes are a geometric series over the heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def alibi_slopes(heads: int) -> Tensor:
    """The slope of each head, (heads,) float32: 2^(-8/n), 2^(-16/n), …; the paper's rule where n is no power of 2."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = _series(power, torch.arange(1, 1 + power, device="cpu"))
    if power == heads:
        return slopes
    between = torch.arange(1, 1 + 2 * min(power, heads - power), 2, device="cpu")
    return torch.cat((slopes, _series(2 * power, between)))


def _series(power: int, exponents: Tensor) -> Tensor:
    base = torch.tensor(2 ** (-(2 ** -(math.log2(power) - 3))), dtype=torch.float32, device="cpu")
    return torch.pow(base, exponents.int())
