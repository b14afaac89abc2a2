"""What kernels.c computes, in plain PyTorch: to be read, to be tested against, and to run where nothing was compiled
(and on a GPU). Arguments and layouts as in `library.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bottega.model.kernels.library import LANES, CacheFormat


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
    """Put keys and values (N, kv_heads, d) into their slots."""
    block, place = slots // LANES, slots % LANES
    if format_ == "int8":
        assert key_scales is not None and value_scales is not None
        for part, scales in ((key, key_scales), (value, value_scales)):
            scales[block, :, place] = part.abs().amax(-1).float() / 127
        key, value = (
            (part.float() / scales[block, :, place].clamp_min(1e-38).unsqueeze(-1)).round()
            for part, scales in ((key, key_scales), (value, value_scales))
        )
    keys[block, :, :, place] = key.to(keys.dtype)
    values[block, :, place, : value.shape[-1]] = value.to(values.dtype)


def gather(
    keys: Tensor, values: Tensor, key_scales: Tensor | None, value_scales: Tensor | None, tables: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    """The keys and values of each sequence in order, (S, kv_heads, W · 16, d) each."""
    wide = torch.float32 if key_scales is not None else keys.dtype
    k, v = keys[tables].to(wide), values[tables][..., :dim].to(wide)  # (S, W, kv_heads, d, 16), (S, W, kv_heads, 16, d)
    if key_scales is not None and value_scales is not None:
        k = k * key_scales[tables].unsqueeze(-2)
        v = v * value_scales[tables].unsqueeze(-1)
    k, v = k.permute(0, 2, 1, 4, 3), v.transpose(1, 2)
    return k.flatten(2, 3), v.flatten(2, 3)


def attention(
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

    The sequences stand side by side, filled up to the longest: (S, heads, T, d) against (S, kv_heads, W·16, d).
    """
    heads, dim = query.shape[1:]
    spans, tables = spans.to(query.device, torch.long), tables.to(query.device, torch.long)
    first, count, start = spans.unbind(1)
    k, v = gather(keys, values, key_scales, value_scales, tables, dim)
    k, v = k.to(query.dtype), v.to(query.dtype)
    step = torch.arange(int(count.max()), device=query.device)
    rows = (first.unsqueeze(1) + step).clamp_max(len(query) - 1)
    real = step < count.unsqueeze(1)  # (S, T)
    q = query[rows].transpose(1, 2)  # (S, heads, T, d)
    place = torch.arange(k.shape[2], device=query.device)
    position = start.unsqueeze(1) + step
    seen = place <= position.unsqueeze(-1)
    if window is not None:
        seen &= place > position.unsqueeze(-1) - window
    bias: Tensor = seen.unsqueeze(1)  # (S, 1, T, W·16)
    # What no real query reads may hold anything, and nothing times NaN is NaN.
    written = place < (start + count).unsqueeze(1)
    v = v.masked_fill(~written[:, None, :, None], 0)
    k = k.masked_fill(~written[:, None, :, None], 0)
    if slopes is not None:
        distance = (place - position.unsqueeze(-1)).unsqueeze(1)
        slope = slopes.to(query.device).view(-1, 1, 1)
        bias = (slope * distance).to(q.dtype).masked_fill(~bias, float("-inf"))
    if cap is None:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale, enable_gqa=heads != k.shape[1])
    else:
        group = heads // k.shape[1]
        scores = q @ k.repeat_interleave(group, 1).mT * scale
        scores = (torch.tanh(scores / cap) * cap).masked_fill(~bias, float("-inf"))
        out = scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v.repeat_interleave(group, 1)
    return out.transpose(1, 2)[real]
