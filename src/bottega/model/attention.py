"""Causal self-attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023, arXiv:2305.13245).

Three ways to the same numbers: whole rows, packed documents (a row holds several, and none
sees another), and one more step behind a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bottega.checkpoint.config import ModelConfig
from bottega.model.cache import KVCache
from bottega.model.rope import rotate


class Attention(nn.Module):
    """Project, rotate, attend, project back."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=bias)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None, segments: Sequence[int] | None
    ) -> Tensor:
        """(B, T, hidden) → (B, T, hidden); see `Decoder.hidden` for `cache` and `segments`."""
        q, k, v = self.project(x, cos, sin)
        if cache is not None:
            out = _with_cache(q, *cache.append(self.layer, k, v))
        elif segments is not None:
            out = _packed(q, k, v, segments)
        else:
            out = _whole(q, k, v)
        return self.o_proj(out.flatten(-2))

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, hidden) → query and key, rotated, and value, (B, T, their heads, head_dim) each."""
        heads = (-1, self.head_dim)
        q, k = self.q_proj(x).unflatten(-1, heads), self.k_proj(x).unflatten(-1, heads)
        return rotate(q, cos, sin), rotate(k, cos, sin), self.v_proj(x).unflatten(-1, heads)


def _whole(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token sees itself and those before it. q (B, T, heads, d), k and v (B, T, kv_heads, d) → like q."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)


def _packed(q: Tensor, k: Tensor, v: Tensor, segments: Sequence[int]) -> Tensor:
    """`_whole` for each document of one row; neighbours of equal length go through it as one batch."""
    pieces, start = [], 0
    for length, group in groupby(segments):
        count = len(list(group))
        span = slice(start, start + count * length)
        shaped = (part[0, span].unflatten(0, (count, length)) for part in (q, k, v))
        pieces.append(_whole(*shaped).flatten(0, 1))
        start = span.stop
    return torch.cat(pieces).unsqueeze(0) if len(pieces) > 1 else pieces[0].unsqueeze(0)


def _with_cache(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """New tokens attend to the cache and themselves. q (B, T, heads, d), k and v (B, kv_heads, S, d), S ≥ T."""
    batch, length, heads, head_dim = q.shape
    kv_heads, seen = k.shape[1], k.shape[2]
    if length == seen:
        return F.scaled_dot_product_attention(q.transpose(1, 2), k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
    # The heads that share a key head stand as rows of one matrix: nothing is repeated, nothing is masked.
    group = heads // kv_heads
    if length == 1 and q.dtype != torch.bfloat16:
        rows = q.reshape(batch, kv_heads, group, head_dim)
        return F.scaled_dot_product_attention(rows, k, v).view(batch, 1, heads, head_dim)
    # In bfloat16 plain products are several times faster than scaled_dot_product_attention on the CPU.
    rows = q.reshape(batch, length, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(batch, kv_heads, group * length, head_dim)
    scores = rows @ k.transpose(2, 3) * head_dim**-0.5
    if length > 1:
        future = torch.ones(length, seen, dtype=torch.bool, device=q.device).triu(seen - length + 1)
        scores = scores.masked_fill(future.repeat(group, 1), float("-inf"))
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
    out = (weights @ v).view(batch, kv_heads, group, length, head_dim)
    return out.permute(0, 3, 1, 2, 4).reshape(batch, length, heads, head_dim)
