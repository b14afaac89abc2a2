"""ggml's K types: 256 values a block, in sub-blocks whose own scales are small whole numbers.

    Q2_K  [scales 16][qs 64][d f16][dmin f16]           16 × 16   d·(s & 15)·q − dmin·(s >> 4)
    Q3_K  [hmask 32][qs 64][scales 12][d f16]           16 × 16   d·(s − 32)·(q − 4)
    Q4_K  [d f16][dmin f16][scales 12][qs 128]           8 × 32   d·s·q − dmin·m
    Q5_K  [d f16][dmin f16][scales 12][qh 32][qs 128]    8 × 32   d·s·q − dmin·m
    Q6_K  [ql 128][qh 64][scales 16 × int8][d f16]      16 × 16   d·s·(q − 32)

Two-bit fields: byte l of each 32 holds values l, l + 32, l + 64, l + 96 of its 128, lowest bits
first. Four-bit fields: byte l of each 32 holds l and l + 32 of its 64 (Q6_K: byte l of 64 holds
l and l + 64 of its 128). One-bit fields: bit k of byte l belongs to value 32k + l. The 6-bit
scales of Q3_K to Q5_K are spread over 12 bytes, see below. Source: `ggml/src/ggml-common.h`,
`ggml-quants.c` of llama.cpp. Each function takes blocks (n, bytes) uint8 and gives (n, 256) float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bottega.codec.ggml_simple import bits, half, nibbles


def _q2_k(blocks: Tensor) -> Tensor:
    scales, quants = blocks[:, :16], blocks[:, 16:80]
    scale = half(blocks, 80) * (scales & 15).float()
    least = half(blocks, 82) * (scales >> 4).float()
    values = bits(quants.reshape(-1, 2, 32), 2).reshape(-1, 16, 16).float()
    return (scale.unsqueeze(-1) * values - least.unsqueeze(-1)).reshape(-1, 256)


def _q3_k(blocks: Tensor) -> Tensor:
    high, quants, packed = blocks[:, :32], blocks[:, 32:96], blocks[:, 96:108]
    # Scales 0–7 have their low four bits in the low halves of bytes 0–7, scales 8–15 in the high
    # halves; two more bits of scale i lie in byte 8 + i % 4, from bit 2·(i // 4) on.
    scales = nibbles(packed[:, :8]) | bits(packed[:, 8:], 2).reshape(-1, 16) << 4
    scale = half(blocks, 108) * (scales.float() - 32)
    low = bits(quants.reshape(-1, 2, 32), 2).reshape(-1, 256)
    values = (low | bits(high, 1).reshape(-1, 256) << 2).float() - 4  # the mask says which are not lowered by 4
    return (scale.unsqueeze(-1) * values.reshape(-1, 16, 16)).reshape(-1, 256)


def _scales_and_mins(packed: Tensor) -> tuple[Tensor, Tensor]:
    """The 8 scales and 8 mins (6 bits each) of Q4_K and Q5_K from 12 bytes.

    byte 0–3: scale 0–3, above it the high two bits of scale 4–7; byte 4–7: the same for mins;
    byte 8–11: low four bits of scale 4–7, above them those of min 4–7.
    """
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat((first & 63, third & 15 | first >> 6 << 4), dim=-1)
    mins = torch.cat((second & 63, third >> 4 | second >> 6 << 4), dim=-1)
    return scales.float(), mins.float()


def _eight_scaled(blocks: Tensor, values: Tensor) -> Tensor:
    scales, mins = _scales_and_mins(blocks[:, 4:16])
    scale, least = half(blocks, 0) * scales, half(blocks, 2) * mins
    return (scale.unsqueeze(-1) * values.reshape(-1, 8, 32).float() - least.unsqueeze(-1)).reshape(-1, 256)


def _q4_k(blocks: Tensor) -> Tensor:
    return _eight_scaled(blocks, bits(blocks[:, 16:].reshape(-1, 4, 32), 4))


def _q5_k(blocks: Tensor) -> Tensor:
    low = bits(blocks[:, 48:].reshape(-1, 4, 32), 4).reshape(-1, 256)
    return _eight_scaled(blocks, low | bits(blocks[:, 16:48], 1).reshape(-1, 256) << 4)


def _q6_k(blocks: Tensor) -> Tensor:
    low = bits(blocks[:, :128].reshape(-1, 2, 64), 4).reshape(-1, 256)
    high = bits(blocks[:, 128:192].reshape(-1, 2, 32), 2).reshape(-1, 256)
    values = (low | high << 4).float() - 32
    scale = half(blocks, 208) * blocks[:, 192:208].contiguous().view(torch.int8).float()
    return (scale.unsqueeze(-1) * values.reshape(-1, 16, 16)).reshape(-1, 256)


K_TYPES: dict[str, Callable[[Tensor], Tensor]] = {
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
