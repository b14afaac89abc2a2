"""AWQ checkpoints of the "gemm" version: 4 bits, a scale and a zero point for every group of inputs.

    qweight  int32 (in, out / 8)       codes, eight neighbouring outputs to a word
    qzeros   int32 (groups, out / 8)   zero points, in the same way
    scales   float (groups, out)

    a word, lowest bits first: outputs 0 2 4 6 1 3 5 7 of its eight

    W[o, i] = scales[g(i), o] · (q[i, o] − zero[g(i), o])

Source: AutoAWQ `awq/modules/linear/gemm.py`, `awq/utils/packing_utils.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bottega.codec.parts import Info, columns_per_group, group_indices, require, require_part, scaled

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("qweight", "qzeros", "scales")
BITS = 4
ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
_PLACES = [ORDER.index(output) for output in range(8)]
_FLOATS = ("float16", "bfloat16", "float32")


def weight_shape(parts: Mapping[str, Info], group_size: int | None) -> tuple[int, int]:
    """Shape (out, in) of the weight; raises UserError if the parts do not fit each other."""
    shape = parts["qweight"][0]
    require(len(shape) == 2 and min(shape) > 0, f"qweight has the shape {list(shape)}; two dimensions are needed")
    inputs, words = shape
    groups = parts["scales"][0][0] if parts["scales"][0] else 0
    require_part("qweight", parts["qweight"], (inputs, words), "int32")
    require_part("qzeros", parts["qzeros"], (groups, words), "int32")
    require_part("scales", parts["scales"], (groups, words * 8), *_FLOATS)
    columns_per_group(inputs, groups, group_size)
    return words * 8, inputs


def dequantise(parts: Mapping[str, Tensor], group_size: int | None) -> Tensor:
    """The weight (out, in), float32."""
    scales = parts["scales"]
    indices = group_indices(len(parts["qweight"]), len(scales), group_size)
    codes, zeros = (_unpack(parts[name]).T for name in ("qweight", "qzeros"))
    return scaled(codes, scales.T[:, indices], zeros[:, indices])


def pack(codes: Tensor, scales: Tensor, zeros: Tensor) -> dict[str, Tensor]:
    """The parts, from codes (out, in) and zeros (out, groups), both uint8, and scales (out, groups)."""
    return {"qweight": _pack(codes.T), "qzeros": _pack(zeros.T), "scales": scales.T.contiguous()}


def _unpack(words: Tensor) -> Tensor:
    """(n, out / 8) words → (n, out)."""
    from bottega.codec.bits import unpack_bits

    rows, count = words.shape
    return unpack_bits(words, BITS, count * 8).reshape(rows, count, 8)[..., _PLACES].reshape(rows, count * 8)


def _pack(values: Tensor) -> Tensor:
    from bottega.codec.bits import pack_bits

    rows, count = values.shape
    return pack_bits(values.reshape(rows, count // 8, 8)[..., ORDER].reshape(rows, count), BITS)
