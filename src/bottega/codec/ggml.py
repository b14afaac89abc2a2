"""The types of tensors in GGUF files (ggml's), and their values as floating-point numbers.

A type cuts each row (the last dimension) into blocks of 32 or 256 values; a block has scales of
its own, so blocks are read independently of each other. Numbers, sizes: `ggml/src/ggml-common.h`
of llama.cpp. The layouts stand in `ggml_simple.py`, `ggml_k.py` and `ggml_iq4.py`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from bottega.core.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

READABLE = (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
)  # fmt: skip
# Types that are torch's own.
PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_CHUNK_VALUES = 1 << 16  # what is unpacked at a time: the intermediate numbers stay in the cache


class BlockType(NamedTuple):
    """A type: the number that stands for it in a file, its name, values and bytes of a block."""

    number: int
    name: str
    values: int
    nbytes: int

    def tensor_bytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of `shape`; raises UserError if its rows are not whole blocks."""
        if shape and shape[-1] % self.values:
            raise UserError(f"rows of {shape[-1]} values cannot be cut into {self.name} blocks of {self.values}")
        return math.prod(shape) // self.values * self.nbytes


# Also those that are not read: a file that has them is measured, and refused by their name.
TYPES: dict[int, BlockType] = {
    number: BlockType(number, name, values, nbytes)
    for number, name, values, nbytes in (
        (0, "F32", 1, 4), (1, "F16", 1, 2), (2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20), (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34), (9, "Q8_1", 32, 40), (10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176), (14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74), (18, "IQ3_XXS", 256, 98), (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18), (21, "IQ3_S", 256, 110), (22, "IQ2_S", 256, 82), (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1), (25, "I16", 1, 2), (26, "I32", 1, 4), (27, "I64", 1, 8), (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56), (30, "BF16", 1, 2), (34, "TQ1_0", 256, 54), (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17), (40, "NVFP4", 64, 36), (41, "Q1_0", 128, 18),
    )
}  # fmt: skip
BY_NAME: dict[str, BlockType] = {kind.name: kind for kind in TYPES.values()}


def dequantise(kind: BlockType, raw: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
    """The values of a tensor of type `kind` from its bytes (uint8, flat): `dtype` (default float32), of `shape`.

    Computed in float32 in the order of operations of ggml's reference, then rounded to `dtype`.
    Raises UserError if the type is not among `READABLE` or the bytes are not those of `shape`.
    """
    import torch

    from bottega.codec.ggml_iq4 import IQ4
    from bottega.codec.ggml_k import K_TYPES
    from bottega.codec.ggml_simple import SIMPLE

    require_readable(kind)
    if raw.numel() != kind.tensor_bytes(shape):
        raise UserError(f"{raw.numel()} bytes are not a {kind.name} tensor of shape {list(shape)}")
    unpack = {**SIMPLE, **K_TYPES, **IQ4}[kind.name]
    blocks = raw.reshape(-1, kind.nbytes)
    values = torch.empty(len(blocks), kind.values, dtype=dtype or torch.float32)
    step = max(1, _CHUNK_VALUES // kind.values)
    for start in range(0, len(blocks), step):
        values[start : start + step] = unpack(blocks[start : start + step])
    return values.reshape(shape)


def require_readable(kind: BlockType) -> None:
    """Raise UserError if tensors of this type are not read."""
    if kind.name not in READABLE:
        raise UserError(
            f"tensors of type {kind.name} are not read; read are {', '.join(READABLE)}",
            hint="Take another quantisation of the model, such as Q4_K_M or Q8_0.",
        )
