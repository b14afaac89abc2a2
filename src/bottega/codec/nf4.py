"""NF4 with double quantisation: 4-bit numbers for weights that are normally distributed.

Dettmers et al. 2023, QLoRA (arXiv:2305.14314), §3: blocks of 64 values are divided by their greatest magnitude, and
each value becomes the nearest of 16 levels, quantiles of the normal distribution with an exact zero. Double
quantisation keeps the blocks' scales, less their mean, in 8 bits, in blocks of 256 with a scale each. Stored as
`codec/bitsandbytes.py` says, so what is made here is read there and the other way round.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from bottega.codec.blockwise import CPU, dequantise_blockwise, dynamic_levels, nearest, quantise_blockwise, search_table

BLOCK = 64
"""Values that share a scale."""
SCALE_BLOCK = 256
"""Scales that share a scale."""
# Quantiles as the appendix of the paper prints them (E), in the digits of bitsandbytes' table.
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
# At a time: on a CPU what its cache holds, on a GPU what keeps it busy.
_QUANTISE_VALUES = {"cpu": 1 << 18, "cuda": 1 << 24}
_DEQUANTISE_BYTES = {"cpu": 1 << 16, "cuda": 1 << 24}


@dataclass(frozen=True)
class FourBit:
    """A tensor in 4 bits: `codes` (⌈n / 2⌉,) uint8, two a byte, the first in the high half.

    `scales` (blocks,) are float32; or, doubly quantised, uint8, and then `outer` (⌈blocks / 256⌉,) float32 and
    `offset` () float32 say what they stand for. `levels` (16,) and `scale_levels` (256,) are the code books.
    """

    codes: Tensor
    scales: Tensor
    outer: Tensor | None
    offset: Tensor | None
    levels: Tensor
    scale_levels: Tensor
    block: int = BLOCK
    scale_block: int = SCALE_BLOCK

    def block_scales(self) -> Tensor:
        """The scale of each block, float32."""
        if self.outer is None or self.offset is None:
            return self.scales
        inner = dequantise_blockwise(self.scales, self.outer, levels=self.scale_levels, block=self.scale_block)
        return inner.add_(self.offset)

    def part(self, first: int, last: int) -> FourBit:
        """The values from `first` (which begins a block and a byte) to `last`, with the scales of their blocks only."""
        codes, blocks = self.codes[first // 2 : -(-last // 2)], slice(first // self.block, -(-last // self.block))
        if self.outer is None or self.offset is None:
            scales = self.scales[blocks]
        else:
            outer = self.outer.repeat_interleave(self.scale_block)[blocks]
            scales = self.scale_levels.index_select(0, self.scales[blocks].int()).mul_(outer).add_(self.offset)
        return FourBit(codes, scales, None, None, self.levels, self.scale_levels, self.block)

    def copied(self, device: torch.device) -> FourBit:
        """A copy on a device."""
        return FourBit(
            codes=self.codes.to(device, copy=True),
            scales=self.scales.to(device, copy=True),
            outer=None if self.outer is None else self.outer.to(device, copy=True),
            offset=None if self.offset is None else self.offset.to(device, copy=True),
            levels=self.levels.to(device, copy=True),
            scale_levels=self.scale_levels.to(device, copy=True),
            block=self.block,
            scale_block=self.scale_block,
        )


@functools.cache
def nf4_levels(device: torch.device = CPU) -> Tensor:
    """The 16 levels, float32, ascending. Made once for each device."""
    return torch.tensor(LEVELS, device=device)


@functools.cache
def _table(device: torch.device) -> tuple[Tensor, Tensor]:
    codes, border = search_table(nf4_levels())
    return codes.to(device), border.to(device)


def quantise_nf4(values: Tensor, *, double_quant: bool = True, block: int = BLOCK) -> FourBit:
    """The nearest 4-bit numbers to a tensor of any shape, a chunk at a time.

    A value in the middle between two levels takes the lower one. The work is done in float32 on the tensor's device.
    """
    flat, device = values.detach().reshape(-1), values.device
    table = _table(device)
    codes = torch.empty(-(-len(flat) // 2), dtype=torch.uint8, device=device)
    scales = torch.empty(-(-len(flat) // block), device=device)
    chunk = 2 * max(1, _QUANTISE_VALUES.get(device.type, 1 << 18) // 2 // block) * block
    for start in range(0, len(flat), chunk):
        part = flat[start : start + chunk].float()
        rows = torch.nn.functional.pad(part, (0, -len(part) % (2 * block))).view(-1, block)
        largest = rows.abs().amax(dim=1)
        blocks = -(-len(part) // block)
        scales[start // block : start // block + blocks] = largest[:blocks]
        scaled = rows * largest.clamp_min(1e-38).reciprocal().unsqueeze(1)
        found = nearest(scaled, table).reshape(-1)
        packed = found[::2] << 4 | found[1::2]
        count = -(-len(part) // 2)
        codes[start // 2 : start // 2 + count] = packed[:count]
    levels, scale_levels = nf4_levels(device), dynamic_levels(True, device)
    if not double_quant:
        return FourBit(codes, scales, None, None, levels, scale_levels, block)
    offset = scales.mean()
    inner, outer = quantise_blockwise(scales - offset, signed=True, block=SCALE_BLOCK)
    return FourBit(codes, inner, outer, offset, levels, scale_levels, block)


def dequantise_nf4(stored: FourBit, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """The values of `shape` in `dtype`: level · scale in float32, rounded once.

    A byte is looked up as the pair of its two levels, which is one 8-byte number to the processor; the chunk then
    takes its scales while it is still in the cache.
    """
    codes, block = stored.codes, stored.block
    values = torch.empty(2 * len(codes), dtype=dtype, device=codes.device)
    scales, pairs = stored.block_scales(), _pairs(stored.levels)
    step = 2 * max(1, _DEQUANTISE_BYTES.get(codes.device.type, 1 << 16) // block) * block
    room = values if dtype == torch.float32 else torch.empty(min(step, len(values)), device=codes.device)
    for start in range(0, len(values), step):
        part = values[start : start + step]
        looked_up = part if dtype == torch.float32 else room[: len(part)]
        bytes_ = codes[start // 2 : (start + step) // 2].int()
        torch.index_select(pairs, 0, bytes_, out=looked_up.view(torch.int64))
        own, full = scales[start // block :], len(part) // block
        looked_up[: full * block].view(full, block).mul_(own[:full].unsqueeze(1))
        if full * block < len(part):
            looked_up[full * block :].mul_(own[full])
        if looked_up is not part:
            part.copy_(looked_up)
    return values[: torch.Size(shape).numel()].view(shape)


@functools.lru_cache(maxsize=8)
def _pairs(levels: Tensor) -> Tensor:
    """The two levels of each byte, (256,): two float32 each, seen as one int64."""
    byte = torch.arange(256, device=levels.device)
    return torch.stack((levels[byte >> 4], levels[byte & 15]), dim=1).contiguous().view(torch.int64).reshape(-1)
