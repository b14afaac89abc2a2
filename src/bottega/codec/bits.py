"""Whole numbers of 1 to 8 bits, packed densely into 32-bit words.

    value      0    1    2   …  first value in the lowest bits; a value may lie
    word  0  [000][111][222] …  across two words (3, 5, 6, 7 bits)

This is the packing of GPTQ (AutoGPTQ's `pack`, its split 3-bit words included) and of
compressed-tensors' `pack_to_int32`. Words are little-endian, so 8 values of b bits are exactly
b bytes: that is how both functions see them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pack_bits(values: Tensor, bits: int) -> Tensor:
    """Numbers from 0 to 2^bits − 1 (…, n), packed along the last dimension: int32 (…, ⌈n·bits / 32⌉)."""
    *front, count = values.shape
    padded = values.new_zeros(*front, -(-count // 32) * 32, dtype=torch.uint8)
    padded[..., :count] = values
    eights = padded.reshape(*front, -1, 8)
    packed = eights.new_zeros(*eights.shape[:-1], bits)
    for position in range(8):
        byte, shift = divmod(position * bits, 8)
        packed[..., byte] |= eights[..., position] << shift
        if shift + bits > 8:
            packed[..., byte + 1] |= eights[..., position] >> (8 - shift)
    words = packed.reshape(*front, -1).view(torch.int32)
    return words[..., : -(-count * bits // 32)].contiguous()


def unpack_bits(words: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` numbers of each row of int32 words (…, ≥ count·bits / 32): uint8 (…, count)."""
    front, length = words.shape[:-1], words.shape[-1] * 4
    stream = words.contiguous().reshape(-1).view(torch.uint8).reshape(*front, length)
    groups = -(-count // 8)
    if groups * bits > length:
        stream = torch.nn.functional.pad(stream, (0, groups * bits - length))
    packed = stream[..., : groups * bits].reshape(*front, groups, bits)
    values = packed.new_empty(*front, groups, 8)
    for position in range(8):
        byte, shift = divmod(position * bits, 8)
        value = packed[..., byte] >> shift
        if shift + bits > 8:
            value = value | packed[..., byte + 1] << (8 - shift)
        values[..., position] = value & ((1 << bits) - 1)
    return values.reshape(*front, groups * 8)[..., :count]
