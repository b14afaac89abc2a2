"""The compressed-tensors formats of llm-compressor: packed whole numbers, plain 8-bit whole numbers, 8-bit floats.

    pack-quantized
    weight_packed      int32 (out, ⌈in · bits / 32⌉)     code + 2^(bits − 1), packed along the inputs (bits.py)
    weight_shape       int64 (2,)                        out, in
    weight_scale       float (out, groups), (out, 1) or one for all
    weight_zero_point  int32 (⌈out · bits / 32⌉, groups) the same for the zero points, packed along the outputs
    weight_g_idx       int32 (in,)                       the group of each input ("actorder"); −1: not used

    int-quantized, float-quantized, naive-quantized
    weight             int8 or float8_e4m3fn (out, in)
    weight_scale       as above, or (⌈out / b⌉, ⌈in / c⌉) for blocks of b × c
    weight_zero_point  int8, shape of the scale

    W[o, i] = (code[o, i] − zero[o, g(i)]) · scale[o, g(i)]

Source: compressed-tensors `compressors/pack_quantized`, `compressors/naive_quantized`,
`quantization/lifecycle/forward.py`. Bits follow from the shapes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from bottega.codec.parts import Info, Sharing, check_spread, require, require_part, scaled, spread
from bottega.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PACKED = "weight_packed"
PACKED_PARTS = (PACKED, "weight_scale", "weight_shape")
PLAIN_PARTS = ("weight", "weight_scale")
OPTIONAL = ("weight_zero_point", "weight_g_idx")
PLAIN_DTYPES = ("int8", "float8_e4m3fn", "float8_e5m2")
FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense")
_FLOATS = ("float32", "bfloat16", "float16")


def packed_layout(
    parts: Mapping[str, Info], shape_content: Callable[[], bytes], known: Collection[int], sharing: Sharing
) -> tuple[tuple[int, int], int]:
    """Shape (out, in) and bits of a packed weight; raises UserError if its parts do not fit.

    `shape_content` gives the bytes of `weight_shape`; `known` are the bits that the config speaks of.
    """
    require_part("weight_shape", parts["weight_shape"], (2,), "int64")
    shape = struct.unpack("<2q", shape_content())
    require(min(shape) > 0, f"weight_shape says {list(shape)}")
    outputs, inputs = shape
    words = parts[PACKED][0][-1] if parts[PACKED][0] else 0
    require_part(PACKED, parts[PACKED], (outputs, words), "int32")
    bits = _packed_bits(words, inputs, known)
    _check_scales(parts, shape, sharing)
    if "weight_zero_point" in parts:
        scale = parts["weight_scale"][0]
        require(len(scale) == 2 and scale[0] == outputs, f"zero points need a scale for each of {outputs} outputs")
        require_part("weight_zero_point", parts["weight_zero_point"], (-(-outputs * bits // 32), scale[1]), "int32")
    return shape, bits


def _packed_bits(words: int, inputs: int, known: Collection[int]) -> int:
    """Bits of a code, for rows of `inputs` codes in `words` words; where several fit, the config decides."""
    fitting = [bits for bits in range(1, 9) if -(-inputs * bits // 32) == words]
    agreed = [bits for bits in fitting if bits in known] if known else fitting
    if len(agreed) != 1:
        said = f"; the config says {', '.join(map(str, sorted(known)))} bits" if known else ""
        raise UserError(f"rows of {inputs} codes do not fill {words} words of 32 bits{said}")
    return agreed[0]


def plain_shape(parts: Mapping[str, Info], sharing: Sharing) -> tuple[int, int]:
    """Shape (out, in) of a weight that is not packed; raises UserError if its parts do not fit."""
    shape = parts["weight"][0]
    require(len(shape) == 2 and min(shape) > 0, f"it has the shape {list(shape)}; two dimensions are needed")
    require_part("the weight", parts["weight"], shape, *PLAIN_DTYPES)
    _check_scales(parts, (shape[0], shape[1]), sharing)
    if "weight_zero_point" in parts:
        require_part("weight_zero_point", parts["weight_zero_point"], parts["weight_scale"][0], *PLAIN_DTYPES)
    return shape[0], shape[1]


def _check_scales(parts: Mapping[str, Info], shape: tuple[int, int], sharing: Sharing) -> None:
    scale = parts["weight_scale"]
    require_part("weight_scale", scale, scale[0], *_FLOATS)
    check_spread("weight_scale", scale, shape, sharing)
    if "weight_g_idx" in parts:
        require_part("weight_g_idx", parts["weight_g_idx"], (shape[1],), "int32", "int64")


def dequantise_packed(parts: Mapping[str, Tensor], shape: tuple[int, int], bits: int, sharing: Sharing) -> Tensor:
    """The weight (out, in), float32, of packed parts."""
    from bottega.codec.bits import unpack_bits

    outputs, inputs = shape
    codes = unpack_bits(parts[PACKED], bits, inputs)
    zeros = None
    if "weight_zero_point" in parts:
        zeros = unpack_bits(parts["weight_zero_point"].T, bits, outputs).T
    else:
        codes = codes.short() - (1 << bits - 1)
    return _scaled(codes, zeros, parts, sharing)


def dequantise_plain(parts: Mapping[str, Tensor], sharing: Sharing) -> Tensor:
    """The weight (out, in), float32, of parts that are not packed."""
    return _scaled(parts["weight"], parts.get("weight_zero_point"), parts, sharing)


def _scaled(codes: Tensor, zeros: Tensor | None, parts: Mapping[str, Tensor], sharing: Sharing) -> Tensor:
    order = parts.get("weight_g_idx")
    if order is not None and bool((order == -1).any()):
        order = None
    shape = codes.shape[0], codes.shape[1]
    scales, zeros = (
        None if part is None else spread(part, shape, sharing, order) for part in (parts["weight_scale"], zeros)
    )
    assert scales is not None
    return scaled(codes, scales, zeros)


def pack(codes: Tensor, scales: Tensor, zeros: Tensor | None, bits: int) -> dict[str, Tensor]:
    """The parts of "pack-quantized", from signed codes (out, in), scales and signed zeros (out, groups)."""
    import torch

    from bottega.codec.bits import pack_bits

    half = 1 << bits - 1
    parts = {
        PACKED: pack_bits((codes.short() + half).to(torch.uint8), bits),
        "weight_shape": torch.tensor(codes.shape),
        "weight_scale": scales,
    }
    if zeros is not None:
        parts["weight_zero_point"] = pack_bits((zeros.short() + half).to(torch.uint8).T, bits).T.contiguous()
    return parts
