"""bitsandbytes' GPU kernels for 4-bit weights, used where bitsandbytes is installed; ours is the reference.

Not run where the project is tested: there is no GPU. The tests compare the same call on bitsandbytes' CPU kernels.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

from bottega.codec.nf4 import FourBit, nf4_levels

_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)


@functools.cache
def available() -> bool:
    """Whether bitsandbytes is installed and loads."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return False
    try:
        return _functional() is not None
    except (ImportError, OSError, RuntimeError):
        return False


def _functional() -> Any:
    return importlib.import_module("bitsandbytes.functional")


def knows(stored: FourBit) -> bool:
    """Whether its kernels know the code book and the size of the blocks."""
    return stored.block in _BLOCKS and torch.equal(stored.levels.cpu(), nf4_levels())


def dequantise(stored: FourBit, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The values of `shape` in `dtype`."""
    functional = _functional()
    state = functional.QuantState(
        absmax=stored.block_scales(), shape=torch.Size(shape), dtype=dtype, blocksize=stored.block,
        code=stored.levels, quant_type="nf4",
    )  # fmt: skip
    return functional.dequantize_4bit(stored.codes.reshape(-1, 1), state)
