"""Weights of 8-bit floats with scales of their own: DeepSeek's and Qwen's blocks, and one scale a tensor or output.

    weight                  float8_e4m3fn (or e5m2) (out, in)
    weight_scale_inv        float (⌈out / 128⌉, ⌈in / 128⌉)     "fine-grained": a scale for every block
    or weight_scale         float (), (1,), (out,) or (out, 1)

    W = weight · scale        (`_inv` names what the quantiser divided by; reading multiplies by both)

Source: DeepSeek-V3 `inference/kernel.py` (`weight_dequant`), transformers' `finegrained_fp8` and
`fbgemm_fp8` integrations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottega.codec.parts import Info, Sharing, check_spread, require, require_part, scaled, spread

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = ("float8_e4m3fn", "float8_e5m2")
SCALES = ("weight_scale_inv", "weight_scale")
_FLOATS = ("float32", "bfloat16", "float16")


def weight_shape(weight: Info, name: str, scale: Info, sharing: Sharing) -> tuple[int, int]:
    """Shape (out, in) of a weight whose scale is called `name`; raises UserError if they do not fit."""
    shape = weight[0]
    require(len(shape) == 2 and min(shape) > 0, f"the weight has the shape {list(shape)}; two dimensions are needed")
    require_part("the weight", weight, shape, *DTYPES)
    require_part(name, scale, scale[0], *_FLOATS)
    check_spread(name, scale, (shape[0], shape[1]), sharing)
    return shape[0], shape[1]


def dequantise(weight: Tensor, scale: Tensor, sharing: Sharing) -> Tensor:
    """The weight (out, in), float32."""
    outputs, inputs = weight.shape
    return scaled(weight, spread(scale, (outputs, inputs), sharing), None)
