"""bitsandbytes' two formats, as transformers stores them in safetensors.

4 bits (NF4, FP4): the values of a tensor in one row, cut into blocks (64) with one scale each.

    weight                     (⌈n / 2⌉, 1) bytes    two codes a byte, the first in the high half
    weight.quant_map           float (16,)           the value of each code
    weight.absmax              float (blocks,)       W[k] = quant_map[code k] · absmax[k // blocksize]
                        or     uint8 (blocks,)       with "double quantisation", and then
    weight.nested_absmax       float (⌈blocks / 256⌉,)
    weight.nested_quant_map    float (256,)          absmax[b] = nested_quant_map[absmax b]
                                                                · nested_absmax[b // 256] + nested_offset
    weight.quant_state.bitsandbytes__nf4   uint8     JSON: shape, blocksize, quant_type, nested_…

8 bits (LLM.int8):  weight int8 (out, in), SCB float (out,):  W[o, i] = weight[o, i] · SCB[o] / 127.

Source: bitsandbytes `functional.py` (`QuantState.as_dict`, `dequantize_4bit`,
`int8_vectorwise_dequant`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bottega.codec.parts import Info, require, require_part
from bottega.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

STATE = "quant_state.bitsandbytes__"
PARTS = ("absmax", "quant_map")
NESTED = ("nested_absmax", "nested_quant_map")
MAX_STATE_BYTES = 1 << 16
_CHUNK_VALUES = 1 << 20


@dataclass(frozen=True)
class QuantState:
    """What the JSON part says."""

    quant_type: str
    shape: tuple[int, ...]
    blocksize: int
    nested_blocksize: int
    nested_offset: float


def read_state(content: bytes) -> QuantState:
    """The state from its JSON; raises UserError."""
    try:
        data: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError("its quant_state is not valid JSON") from None
    require(isinstance(data, dict), "its quant_state is not a JSON object")
    shape = data.get("shape")
    require(
        isinstance(shape, list) and 0 < len(shape) <= 8 and all(_is_size(size, 1 << 48) for size in shape),
        f"its quant_state has no usable shape: {str(shape)[:100]}",
    )
    for key in ("blocksize", "nested_blocksize"):
        require(_is_size(data.get(key, 256), 1 << 20), f"its quant_state has no usable {key}")
    offset = data.get("nested_offset", 0.0)
    require(isinstance(offset, float | int) and abs(offset) < 1e30, "its quant_state has no usable nested_offset")
    return QuantState(
        str(data.get("quant_type"))[:20], tuple(shape), data.get("blocksize", 64), data.get("nested_blocksize", 256),
        float(offset),
    )  # fmt: skip


def _is_size(value: Any, limit: int) -> bool:
    return type(value) is int and 0 < value <= limit


def check_4bit(nbytes: int, parts: Mapping[str, Info], state: QuantState) -> None:
    """Raise UserError if a packed weight of `nbytes` (of whatever dtype) and its parts are not those of `state`."""
    count = math.prod(state.shape)
    require(nbytes == -(-count // 2), f"its {nbytes} bytes do not hold 4 bits for each value of {list(state.shape)}")
    blocks = -(-count // state.blocksize)
    require_part("quant_map", parts["quant_map"], (16,), "float32")
    nested = parts["absmax"][1] == "uint8"
    require_part("absmax", parts["absmax"], (blocks,), "uint8", "float32")
    if nested:
        require(all(name in parts for name in NESTED), f"it lacks one of {', '.join(NESTED)}")
        require_part("nested_absmax", parts["nested_absmax"], (-(-blocks // state.nested_blocksize),), "float32")
        require_part("nested_quant_map", parts["nested_quant_map"], (256,), "float32")


def dequantise_4bit(parts: Mapping[str, Tensor], state: QuantState) -> Tensor:
    """The values, float32, of the state's shape, from `weight` and its parts."""
    import torch

    packed = parts["weight"].contiguous().reshape(-1).view(torch.uint8)
    count, size = math.prod(state.shape), state.blocksize
    scales = parts["absmax"]
    if scales.dtype == torch.uint8:
        outer = parts["nested_absmax"].repeat_interleave(state.nested_blocksize)[: len(scales)]
        scales = parts["nested_quant_map"][scales.int()] * outer + state.nested_offset
    values = torch.empty(count)
    step = 2 * max(1, _CHUNK_VALUES // 2 // size) * size  # whole blocks, and whole bytes
    for start in range(0, count, step):
        stop = min(start + step, count)
        part = packed[start // 2 : -(-stop // 2)]
        codes = torch.stack((part >> 4, part & 15), dim=-1).reshape(-1)[: stop - start]
        spread = scales[start // size : -(-stop // size)].repeat_interleave(size)[: stop - start]
        values[start:stop] = parts["quant_map"][codes.int()] * spread
    return values.reshape(state.shape)


def pack_4bit(codes: Tensor) -> Tensor:
    """Codes (any shape) uint8 from 0 to 15 as the bytes of `weight` (⌈n / 2⌉, 1)."""
    import torch

    flat = torch.nn.functional.pad(codes.reshape(-1), (0, codes.numel() % 2))
    return (flat[::2] << 4 | flat[1::2]).reshape(-1, 1)


def weight_shape_8bit(parts: Mapping[str, Info]) -> tuple[int, int]:
    """Shape (out, in) of LLM.int8's `weight`; raises UserError if `SCB` does not fit it."""
    shape = parts["weight"][0]
    require(len(shape) == 2 and min(shape) > 0, f"it has the shape {list(shape)}; two dimensions are needed")
    require_part("the weight", parts["weight"], shape, "int8")
    require_part("SCB", parts["SCB"], (shape[0],), "float32", "float16", "bfloat16")
    return shape[0], shape[1]


def dequantise_8bit(parts: Mapping[str, Tensor]) -> Tensor:
    """LLM.int8's weight (out, in), float32, from `weight` and the rows' greatest magnitudes `SCB`."""
    order = parts.get("weight_format")
    require(order is None or not bool(order.any()), "it is stored in an order for one kind of GPU, which is not read")
    return parts["weight"].float().mul_(parts["SCB"].float().reshape(-1, 1)).mul_(1 / 127)
