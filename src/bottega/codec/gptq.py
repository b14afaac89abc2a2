"""GPTQ checkpoints: whole numbers of 2, 3, 4 or 8 bits, a scale and a zero point for every group of inputs.

    qweight  int32 (in · bits / 32, out)     codes, packed along the inputs (bits.py)
    qzeros   int32 (groups, out · bits / 32) zero points, packed along the outputs
    scales   float (groups, out)
    g_idx    int32 (in,)                     the group of each input; may be left out if they are in order

    W[o, i] = scales[g(i), o] · (q[i, o] − zero[g(i), o])

Zero points: the first version of the format ("gptq") stores zero − 1, modulo 2^bits; the second
("gptq_v2") stores zero. Sources: AutoGPTQ `qlinear_cuda_old.py`, GPTQModel `nn_modules/qlinear`.
Bits and sizes follow from the shapes alone, so that mixed checkpoints need no list of exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from bottega.codec.parts import Info, columns_per_group, group_indices, require, require_part, scaled

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("qweight", "qzeros", "scales")
OPTIONAL = ("g_idx",)
BITS = (2, 3, 4, 8)
ZERO_OFFSETS = {"gptq": 1, "gptq_v2": 0}
"""`checkpoint_format` → what is added to a stored zero point."""
_FLOATS = ("float16", "bfloat16", "float32")


class Layout(NamedTuple):
    """What the shapes of the parts say."""

    shape: tuple[int, int]
    bits: int
    groups: int


def layout(parts: Mapping[str, Info], group_size: int | None) -> Layout:
    """Shape (out, in) of the weight, bits and groups; raises UserError if the parts do not fit each other."""
    for name in ("qweight", "qzeros", "scales"):
        require(len(parts[name][0]) == 2, f"{name} has the shape {list(parts[name][0])}; two dimensions are needed")
    (words, outputs), (groups, zero_words) = parts["qweight"][0], parts["qzeros"][0]
    require(min(words, outputs, groups) > 0, "a part is empty")
    bits = zero_words * 32 // outputs
    require(
        bits in BITS and bits * outputs == zero_words * 32,
        f"qzeros of shape {list(parts['qzeros'][0])} does not hold zero points of 2, 3, 4 or 8 bits "
        f"for {outputs} outputs",
    )
    require(words * 32 % bits == 0, f"{words} rows of qweight are not whole numbers of {bits} bits")
    inputs = words * 32 // bits
    require_part("qweight", parts["qweight"], (words, outputs), "int32")
    require_part("qzeros", parts["qzeros"], (groups, zero_words), "int32")
    require_part("scales", parts["scales"], (groups, outputs), *_FLOATS)
    if "g_idx" in parts:
        require_part("g_idx", parts["g_idx"], (inputs,), "int32", "int64")
    else:
        columns_per_group(inputs, groups, group_size)
    return Layout((outputs, inputs), bits, groups)


def dequantise(parts: Mapping[str, Tensor], group_size: int | None, zero_offset: int) -> Tensor:
    """The weight (out, in), float32."""
    from bottega.codec.bits import unpack_bits

    infos = {name: (tuple(part.shape), str(part.dtype).removeprefix("torch.")) for name, part in parts.items()}
    (outputs, inputs), bits, groups = layout(infos, group_size)
    indices = group_indices(inputs, groups, group_size, parts.get("g_idx"))
    codes = unpack_bits(parts["qweight"].T, bits, inputs)
    zeros = unpack_bits(parts["qzeros"], bits, outputs) + zero_offset & (1 << bits) - 1
    return scaled(codes, parts["scales"].T[:, indices], zeros.T[:, indices])


def pack(
    codes: Tensor, scales: Tensor, zeros: Tensor, bits: int, zero_offset: int, g_idx: Tensor | None = None
) -> dict[str, Tensor]:
    """The parts, from codes (out, in) and zeros (out, groups), both uint8, and scales (out, groups)."""
    from bottega.codec.bits import pack_bits

    parts = {
        "qweight": pack_bits(codes, bits).T.contiguous(),
        "qzeros": pack_bits(zeros.T - zero_offset & (1 << bits) - 1, bits),
        "scales": scales.T.contiguous(),
    }
    return parts if g_idx is None else {**parts, "g_idx": g_idx.int()}
