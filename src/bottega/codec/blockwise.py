"""Block-wise 8-bit numbers with a code book: each block of values is divided by its greatest magnitude, and each
value becomes the nearest of 256 numbers between −1 and 1.

The code books are the dynamic ones of Dettmers 2015 (arXiv:1511.04561): a decimal exponent of a varying number of
bits, and what is left of the 8 bits as a linear fraction, so that small numbers keep their size and large ones their
digits. Blocks: Dettmers et al. 2021, 8-bit optimisers (arXiv:2110.02861), §2. bitsandbytes has the same numbers
(`create_dynamic_map`, `quantize_blockwise`).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

BLOCK = 256
"""Values that share a scale."""
_CHUNK_VALUES = {"cpu": 1 << 18, "cuda": 1 << 24}  # on a CPU what its cache holds, on a GPU what keeps it busy
_LARGEST_EXPONENT = 7


CPU = torch.device("cpu")


@functools.cache
def dynamic_levels(signed: bool, device: torch.device = CPU) -> Tensor:
    """The 256 levels in ascending order, float32: of −1 to 1, or of 0 to 1. Made once for each device."""
    if device != CPU:
        return dynamic_levels(signed).to(device)
    found: list[Tensor] = []
    for exponent in range(_LARGEST_EXPONENT):
        count = 2**exponent if signed else 2 ** (exponent + 1)
        edges = torch.linspace(0.1, 1, count + 1, device=CPU)
        found.append((edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent + 1 - _LARGEST_EXPONENT))
    positive = torch.cat(found)
    whole = [positive, -positive] if signed else [positive]
    return torch.cat([*whole, torch.tensor([0.0, 1.0], device=CPU)]).sort().values


def search_table(levels: Tensor) -> tuple[Tensor, Tensor]:
    """What `nearest` looks up: by the upper half of a float32's bits, a code (uint8) and where the next one begins.

    Numbers that share their upper 16 bits lie within 1/128 of each other, and the levels lie further apart, so at
    most one border between two levels falls among them: a look-up and a comparison find the nearest level exactly,
    where a binary search would compare eight times.
    """
    borders = (levels[:-1] + levels[1:]) / 2
    prefixes = torch.arange(1 << 16, device=CPU) << 16
    ends = torch.stack((prefixes, prefixes + 0xFFFF)).to(torch.int32).view(torch.float32)
    codes = torch.bucketize(ends.amin(dim=0).nan_to_num(0.0), borders)
    return codes.to(torch.uint8), torch.cat([borders, torch.tensor([torch.inf], device=CPU)])[codes]


def nearest(scaled: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """The code of the level nearest to each number, uint8; in the middle between two, the lower. Float32 in.

    The table is on the numbers' device.
    """
    (codes, border), flat = table, scaled.reshape(-1)
    prefix = (flat.view(torch.int32) >> 16).bitwise_and_(0xFFFF)
    above = (flat > border.index_select(0, prefix)).view(torch.uint8)  # a byte of 0 or 1: the sum need not convert it
    return codes.index_select(0, prefix).add_(above).reshape(scaled.shape)


@functools.cache
def _dynamic_table(signed: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    codes, border = search_table(dynamic_levels(signed))
    return codes.to(device), border.to(device)


def quantise_blockwise(values: Tensor, *, signed: bool, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Codes uint8 of the values' shape, and the blocks' greatest magnitudes (blocks,) float32; the last may be short.

    A block of zeros has the scale 0 and reads back as zeros.
    """
    flat = values.reshape(-1)
    codes = torch.empty(flat.shape, dtype=torch.uint8, device=flat.device)
    table = _dynamic_table(signed, flat.device)
    scales = torch.empty(-(-len(flat) // block), device=flat.device)
    chunk = max(1, _CHUNK_VALUES.get(flat.device.type, 1 << 18) // block) * block
    for start in range(0, len(flat), chunk):
        part = flat[start : start + chunk].float()
        rows = torch.nn.functional.pad(part, (0, -len(part) % block)).view(-1, block)
        largest = rows.abs().amax(dim=1)
        scales[start // block : start // block + len(rows)] = largest
        scaled = rows * largest.clamp_min(1e-38).reciprocal().unsqueeze(1)
        codes[start : start + chunk] = nearest(scaled, table).reshape(-1)[: len(part)]
    return codes.reshape(values.shape), scales


def dequantise_blockwise(codes: Tensor, scales: Tensor, *, levels: Tensor, block: int = BLOCK) -> Tensor:
    """The values, float32, of the codes' shape; `levels` (256,), such as `dynamic_levels(True)`."""
    flat = codes.reshape(-1)
    values = levels.index_select(0, flat.int())
    full = len(flat) // block
    values[: full * block].view(full, block).mul_(scales[:full].unsqueeze(1))
    values[full * block :].mul_(scales[full:])
    return values.reshape(codes.shape)
