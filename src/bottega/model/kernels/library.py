"""kernels.c from Python: the shared library that the installation compiled, and a function for each kernel.

Where it was not compiled (no C compiler), or was compiled for a processor that has more instructions than this one,
`available()` is False and callers take PyTorch's way. Tensors are float32, contiguous and on the CPU; the number
of threads is PyTorch's, whose thread pool the kernels share.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from bottega.core.machine import instruction_flags

WeightFormat = Literal["float32", "bfloat16", "int8", "int4"]
CacheFormat = Literal["float32", "bfloat16", "float16", "int8"]  # float16 for a GPU alone
Activation = Literal["silu", "gelu", "gelu_tanh", "gelu_bloom", "sigmoid"]
FORMATS: dict[str, int] = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}
ACTIVATIONS: dict[Activation, int] = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "gelu_bloom": 3, "sigmoid": 4}
LANES = 16
"""Outputs in a panel of packed weights; tokens in a block of the cache."""
GROUP = 32
"""Weights that share a scale."""

_long, _pointer, _int, _float = ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_float
_SIGNATURES = {
    "linear": [_int, *[_pointer] * 5, *[_long] * 3, _int],
    "attention": [
        _int, *[_pointer] * 7, _long, _pointer, *[_long] * 5, _float, _float, _pointer, _int,
    ],
    "store": [_int, *[_pointer] * 7, *[_long] * 3],
    "rms_norm": [*[_pointer] * 3, _long, _long, _float, _float],
    "activate": [_int, _pointer, _pointer, _long, _long, _int],
    "split_rotate": [*[_pointer] * 6, *[_long] * 5],
}  # fmt: skip


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    found = importlib.util.find_spec("bottega.model.kernels._compiled")
    if found is None or found.origin is None:
        return None
    try:
        # After torch, so that both have the same OpenMP library and with it one pool of threads.
        library = ctypes.CDLL(found.origin)
    except OSError:
        return None
    library.instructions.restype = ctypes.c_char_p
    if not set(library.instructions().decode().split()) <= instruction_flags():
        return None
    for name, signature in _SIGNATURES.items():
        getattr(library, name).argtypes = signature
    return library


def available() -> bool:
    """Whether the kernels can be used here."""
    return _library() is not None


def _compiled() -> ctypes.CDLL:
    library = _library()
    assert library is not None, "ask available() first"
    return library


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def linear(
    format_: WeightFormat, x: Tensor, weight: Tensor, scales: Tensor | None, bias: Tensor | None, outputs: int
) -> Tensor:
    """(..., K) → (..., outputs); `weight` and `scales` as `packing.pack` makes them."""
    x = x.contiguous()
    out = torch.empty(*x.shape[:-1], outputs)
    inner = x.shape[-1]
    _compiled().linear(
        FORMATS[format_], x.data_ptr(), weight.data_ptr(), _address(scales), _address(bias), out.data_ptr(),
        x.numel() // inner, inner, outputs, torch.get_num_threads(),
    )  # fmt: skip
    return out


def attention(
    format_: CacheFormat,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    tables: Tensor,
    spans: Tensor,
    *,
    scale: float,
    window: int | None = None,
    cap: float | None = None,
    slopes: Tensor | None = None,
) -> Tensor:
    """Attention of every sequence's last tokens over its blocks, (N, heads, d) → (N, heads, d).

    Args:
        format_: what keys and values are stored as.
        query: (N, heads, d), the tokens of one sequence behind those of another.
        keys: (blocks, kv_heads, d, 16).
        values: (blocks, kv_heads, 16, d rounded up to 16).
        key_scales: (blocks, kv_heads, 16) for int8.
        value_scales: like `key_scales`.
        tables: (S, W) int32, the blocks of each sequence in order.
        spans: (S, 3) int32: first row of `query`, number of rows, position of the first.
        scale: factor on the scores.
        window: how many tokens, itself included, a token sees; None: all.
        cap: scores s become cap·tanh(s / cap).
        slopes: (heads,) float32, ALiBi's.
    """
    query = query.contiguous()
    out = torch.empty_like(query)
    failed = _compiled().attention(
        FORMATS[format_], query.data_ptr(), out.data_ptr(), keys.data_ptr(), values.data_ptr(), _address(key_scales),
        _address(value_scales), tables.data_ptr(), tables.shape[1], spans.data_ptr(), len(spans), query.shape[1],
        keys.shape[1], query.shape[2], window or 0, scale, cap or 0.0, _address(slopes), torch.get_num_threads(),
    )  # fmt: skip
    if failed:
        raise MemoryError("no memory for attention scores")
    return out


def store(
    format_: CacheFormat,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    slots: Tensor,
) -> None:
    """Put (N, kv_heads, d) keys and values into `slots` (N,) int64, block · 16 + place, of a cache as `attention`'s."""
    key, value = key.contiguous(), value.contiguous()
    _compiled().store(
        FORMATS[format_], key.data_ptr(), value.data_ptr(), keys.data_ptr(), values.data_ptr(), _address(key_scales),
        _address(value_scales), slots.data_ptr(), *key.shape,
    )  # fmt: skip


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float = 0.0) -> Tensor:
    """`x / sqrt(mean(x²) + eps) · (offset + weight)` over the last dimension."""
    x = x.contiguous()
    out = torch.empty_like(x)
    size = x.shape[-1]
    _compiled().rms_norm(x.data_ptr(), weight.data_ptr(), out.data_ptr(), x.numel() // size, size, eps, offset)
    return out


def activate(name: Activation, x: Tensor, *, gated: bool = False) -> Tensor:
    """act(x); `gated`: (..., 2·I), gate and up side by side → act(gate) · up, (..., I).

    PyTorch's own give a number other bits where it stands at the end of a tensor, or of a thread's share of it.
    """
    x = x.contiguous()
    size = x.shape[-1] // (2 if gated else 1)
    out = torch.empty(*x.shape[:-1], size)
    _compiled().activate(ACTIVATIONS[name], x.data_ptr(), out.data_ptr(), out.numel() // size, size, gated)
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rope.rotate` of (1, N, heads, head_dim) by (N, dim) `cos` and `sin`."""
    x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
    out = torch.empty_like(x)
    _compiled().split_rotate(
        x.data_ptr(), cos.data_ptr(), sin.data_ptr(), out.data_ptr(), None, None, *x.shape[1:3], 0, x.shape[3],
        cos.shape[-1],
    )  # fmt: skip
    return out


def split_rotate(
    joined: Tensor, cos: Tensor, sin: Tensor, heads: int, kv_heads: int, head_dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(1, N, (heads + 2 · kv_heads) · head_dim) → query and key, turned by (N, dim) `cos` and `sin`, and value,
    (1, N, their heads, head_dim) each."""
    rows = joined.shape[1]
    joined, cos, sin = joined.contiguous(), cos.contiguous(), sin.contiguous()
    query, key = torch.empty(1, rows, heads, head_dim), torch.empty(1, rows, kv_heads, head_dim)
    value = torch.empty_like(key)
    _compiled().split_rotate(
        joined.data_ptr(), cos.data_ptr(), sin.data_ptr(), query.data_ptr(), key.data_ptr(), value.data_ptr(),
        rows, heads, kv_heads, head_dim, cos.shape[-1],
    )  # fmt: skip
    return query, key, value
