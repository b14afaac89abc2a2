"""A frozen base in 4 or 8 bits: what QLoRA trains its adapters on.

    nf4    4 bits a value and a scale for every 64, itself in 8 bits (Dettmers et al. 2023, arXiv:2305.14314)
    int8   8 bits a value and a scale for every row: the vector-wise half of LLM.int8 (Dettmers et al. 2022,
           arXiv:2208.07339) without its second half, which keeps outlying columns in 16 bits

A product dequantises the weight, multiplies and forgets it again, forwards and backwards: between the two passes
neither the dense weight nor the layer's input is kept, because nothing here is trained.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bottega.codec.nf4 import dequantise_nf4, quantise_nf4

Kind = Literal["nf4", "int8"]
LARGEST_INT8 = 127.0


def rounded(weight: Tensor, kind: Kind, double_quant: bool = True) -> Tensor:
    """What a base of this kind makes of a weight (out, in): quantised and read back, in the weight's dtype."""
    if kind == "nf4":
        return dequantise_nf4(quantise_nf4(weight, double_quant=double_quant), tuple(weight.shape), weight.dtype)
    codes, scales = quantise_int8(weight)
    return dequantise_int8(codes, scales, weight.dtype)


def quantise_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (out, in) int8 and the rows' greatest magnitudes (out,) float32: W = codes · scale / 127."""
    values = weight.detach().float()
    scales = values.abs().amax(dim=1)
    codes = (values * (LARGEST_INT8 / scales.clamp_min(1e-38)).unsqueeze(1)).round_().to(torch.int8)
    return codes, scales


def dequantise_int8(codes: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight (out, in) in `dtype`, from what `quantise_int8` gives."""
    return codes.float().mul_((scales / LARGEST_INT8).unsqueeze(1)).to(dtype)
