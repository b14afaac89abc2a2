"""ggml's simple types: 32 values a block, one scale `d`, in some a least value `m`.

    F32, F16, BF16   the values themselves
    Q4_0  [d f16][qs 16 bytes]              (q − 8) · d
    Q4_1  [d f16][m f16][qs 16]             q · d + m
    Q5_0  [d f16][qh 4][qs 16]              (q − 16) · d
    Q5_1  [d f16][m f16][qh 4][qs 16]       q · d + m
    Q8_0  [d f16][qs 32 × int8]             q · d

Byte j of `qs` holds value j in its low half and value j + 16 in its high half; bit j of `qh`
(little-endian) is the fifth bit of value j. Source: `ggml/src/ggml-common.h`, `ggml-quants.c` of
llama.cpp. Each function takes blocks (n, bytes) uint8 and gives values (n, 32) float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def half(blocks: Tensor, start: int) -> Tensor:
    """The float16 at byte `start` of each block: (n, 1) float32."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def nibbles(packed: Tensor) -> Tensor:
    """(…, b) bytes → (…, 2b): all low halves, then all high ones."""
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def bits(packed: Tensor, width: int) -> Tensor:
    """(…, b) bytes → (…, 8/width, b): the fields of `width` bits, the lowest first."""
    shifts = torch.arange(0, 8, width, dtype=torch.uint8).reshape(-1, 1)
    return packed.unsqueeze(-2) >> shifts & ((1 << width) - 1)


def _q4_0(blocks: Tensor) -> Tensor:
    return (nibbles(blocks[:, 2:]).float() - 8) * half(blocks, 0)


def _q4_1(blocks: Tensor) -> Tensor:
    return nibbles(blocks[:, 4:]).float() * half(blocks, 0) + half(blocks, 2)


def _five(high: Tensor, low: Tensor) -> Tensor:
    fifth = bits(high, 1).transpose(1, 2).reshape(-1, 32)  # bit j of the four bytes together
    return (nibbles(low) | fifth << 4).float()


def _q5_0(blocks: Tensor) -> Tensor:
    return (_five(blocks[:, 2:6], blocks[:, 6:]) - 16) * half(blocks, 0)


def _q5_1(blocks: Tensor) -> Tensor:
    return _five(blocks[:, 4:8], blocks[:, 8:]) * half(blocks, 0) + half(blocks, 2)


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].contiguous().view(torch.int8).float() * half(blocks, 0)


def _plain(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda blocks: blocks.contiguous().view(dtype).float()


SIMPLE: dict[str, Callable[[Tensor], Tensor]] = {
    "F32": _plain(torch.float32),
    "F16": _plain(torch.float16),
    "BF16": _plain(torch.bfloat16),
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
}
