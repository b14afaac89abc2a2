"""Weights as kernels.c reads them: panels of 16 outputs, in float32, bfloat16, or whole numbers with scales.

INT8 and INT4 are rounded to the nearest: 32 weights of an output share a scale, the largest of them over 127 or 7,
kept in bfloat16 (8.5 and 4.5 bits a weight; the layout of llama.cpp's Q8_0 and Q4_0, in another order).
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from bottega.model.kernels.library import GROUP, LANES, WeightFormat

HUGE_PAGE = 2 << 20
_COLLAPSE = 25  # MADV_COLLAPSE, Linux 6.1


@dataclass(frozen=True)
class Packed:
    """A matrix (outputs, inner) in panels."""

    format: WeightFormat
    weight: Tensor
    scales: Tensor | None
    outputs: int

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return self.weight.nbytes + (self.scales.nbytes if self.scales is not None else 0)


def fits(format_: WeightFormat, inner: int) -> bool:
    """Whether rows of so many weights can be packed so: those with scales come in groups."""
    return format_ in ("float32", "bfloat16") or inner % GROUP == 0


def pack(weight: Tensor, format_: WeightFormat) -> Packed:
    """(outputs, inner), any floating type. What is narrower than the weight's own type rounds to the nearest."""
    outputs, inner = weight.shape
    missing = -outputs % LANES
    full = torch.cat((weight, weight.new_zeros(missing, inner))) if missing else weight
    panels = full.view(-1, LANES, inner).transpose(1, 2)  # (panels, inner, 16)
    if format_ in ("float32", "bfloat16"):
        stored = panels.to(getattr(torch, format_), memory_format=torch.contiguous_format).contiguous()
        return Packed(format_, _in_huge_pages(stored), None, outputs)
    groups = panels.float().reshape(len(panels), inner // GROUP, GROUP, LANES)
    most = 127 if format_ == "int8" else 7
    scales = (groups.abs().amax(2) / most).bfloat16()
    # A scale that bfloat16 rounds to nothing is of weights that are nothing.
    numbers = (groups / scales.float().clamp_min(1e-38).unsqueeze(2)).round().clamp(-most, most).to(torch.int8)
    numbers = numbers.view(len(panels), inner, LANES)
    if format_ == "int4":
        nibbles = (numbers + 8).to(torch.uint8).view(len(panels), inner // 2, 2, LANES)
        numbers = nibbles[:, :, 0] | nibbles[:, :, 1] << 4
    return Packed(format_, _in_huge_pages(numbers.contiguous()), scales.contiguous(), outputs)


def unpack(packed: Packed) -> Tensor:
    """The matrix (outputs, inner) that the panels stand for, float32."""
    weight = packed.weight
    if packed.scales is not None:
        if packed.format == "int4":
            nibbles = torch.stack((weight & 15, weight >> 4), dim=2).to(torch.int8) - 8
            weight = nibbles.view(len(nibbles), -1, LANES)
        groups = weight.float().view(len(weight), -1, GROUP, LANES) * packed.scales.float().unsqueeze(2)
        weight = groups.view(len(groups), -1, LANES)
    return weight.float().transpose(1, 2).reshape(-1, weight.shape[1])[: packed.outputs]


def _in_huge_pages(tensor: Tensor) -> Tensor:
    """Ask Linux to keep the tensor in pages of 2 MiB: fewer look-ups while all of it is read for every token."""
    if tensor.nbytes < HUGE_PAGE or sys.platform != "linux":
        return tensor
    libc = ctypes.CDLL(None, use_errno=True)
    start = -(-tensor.data_ptr() // HUGE_PAGE) * HUGE_PAGE
    length = (tensor.data_ptr() + tensor.nbytes - start) // HUGE_PAGE * HUGE_PAGE
    for advice in (mmap.MADV_HUGEPAGE, _COLLAPSE):
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), advice)  # a wish: it may be refused
    return tensor
