"""Weights of 8-bit floats with scales of their own: DeepSeek's and Qwen's blocks, and one scale a tensor or output.

    weight                  float8_e4m3fn (or e5m2) (out, in)
    weight_scale_inv        float (⌈out / 128⌉, ⌈in / 128⌉)     "fine-grained": a scale for every block
    or weight_scale         float (), (1,), (out,) or (out, 1)

    W = weight · scale        (`_inv` names what the quantiser divided by; reading multiplies by both)

Source: DeepSeek-V3 `inference/kernel.py` (`weight_dequant`), transformers' `finegrained_fp8` and
`fbgemm_fp8` integrations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bottega.codec.parts import Info, Sharing, check_spread, require, require_part, scaled, spread

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = ("float8_e4m3fn", "float8_e5m2")
SCALE_SUFFIXES = ("_scale_inv", "_scale")
_FLOATS = ("float32", "bfloat16", "float16")


def weight_shape(parts: Mapping[str, Info], sharing: Sharing) -> tuple[int, int]:
    """Shape (out, in) of `weight` with its `scale`; raises UserError if they do not fit."""
    weight, scale = parts["weight"], parts["scale"]
    shape = weight[0]
    require(len(shape) == 2 and min(shape) > 0, f"it has the shape {list(shape)}; two dimensions are needed")
    require_part("the weight", weight, shape, *DTYPES)
    require_part("its scale", scale, scale[0], *_FLOATS)
    check_spread("its scale", scale, (shape[0], shape[1]), sharing)
    return shape[0], shape[1]


def dequantise(parts: Mapping[str, Tensor], sharing: Sharing) -> Tensor:
    """The weight (out, in), float32, from `weight` and `scale`."""
    outputs, inputs = parts["weight"].shape
    return scaled(parts["weight"], spread(parts["scale"], (outputs, inputs), sharing), None)
