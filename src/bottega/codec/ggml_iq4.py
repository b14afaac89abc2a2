"""ggml's two non-linear 4-bit types: a value is an index into sixteen fixed levels.

    IQ4_NL  [d f16][qs 16]                                     32 values     d·level[q]
    IQ4_XS  [d f16][scales_h u16][scales_l 4][qs 128]          8 × 32        d·(s − 32)·level[q]

Byte j of each 16 of `qs` holds value j (low half) and value j + 16 of its 32. Scale i of IQ4_XS
has four bits in `scales_l` (half i % 2 of byte i // 2) and two in `scales_h`, from bit 2i on.
Source: `ggml/src/ggml-common.h`, `ggml-quants.c` of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bottega.codec.ggml_simple import bits, half, nibbles

LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _levels(quants: Tensor) -> Tensor:
    return torch.tensor(LEVELS, dtype=torch.float32)[nibbles(quants).long()]


def _iq4_nl(blocks: Tensor) -> Tensor:
    return half(blocks, 0) * _levels(blocks[:, 2:])


def _iq4_xs(blocks: Tensor) -> Tensor:
    low = bits(blocks[:, 4:8], 4).transpose(1, 2).reshape(-1, 8)
    high = bits(blocks[:, 2:4], 2).transpose(1, 2).reshape(-1, 8)
    scale = half(blocks, 0) * ((low | high << 4).float() - 32)
    return (scale.unsqueeze(-1) * _levels(blocks[:, 8:].reshape(-1, 8, 16))).reshape(-1, 256)


IQ4: dict[str, Callable[[Tensor], Tensor]] = {"IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs}
