"""Causal self-attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023, arXiv:2305.13245).

`Attention` projects, rotates and caches; `attend` is the attention itself: fast where a token simply sees all
tokens before it (whole rows, one more token behind a cache), and general where a window, a cap on the scores,
linear biases or padding have a say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bottega.checkpoint.config import ModelConfig
from bottega.model.alibi import alibi_slopes
from bottega.model.cache import KVCache
from bottega.model.linear import Linear
from bottega.model.norm import make_norm
from bottega.model.rope import rotate

if TYPE_CHECKING:
    from bottega.model.paged import Step


@dataclass(frozen=True)
class Sequences:
    """What a pass knows about its tokens beside their ids; made once, read by every layer.

    Attributes:
        angles: cos and sin by kind of rotary positions, (T, dim) or (B, T, dim) each.
        cache: the tokens stand behind those in it, and are added to it.
        segments: lengths of the documents packed into one row.
        padding: (B,) tokens at the beginning of each row that nobody may see.
        step: the tokens are those of several sequences, whose keys and values lie in blocks.
    """

    angles: Mapping[str, tuple[Tensor, Tensor]]
    cache: KVCache | None = None
    segments: Sequence[int] | None = None
    padding: Tensor | None = None
    step: Step | None = None


@dataclass(frozen=True)
class Rule:
    """How a layer's scores come to be: their factor, how far back they reach, their cap, their linear biases."""

    scale: float
    window: int | None = None
    cap: float | None = None
    slopes: Tensor | None = None

    def sees_all(self, tokens: int) -> bool:
        """Whether among so many tokens each simply sees all before it."""
        return self.cap is None and self.slopes is None and (self.window is None or tokens <= self.window)


class Attention(nn.Module):
    """Project, rotate, attend, project back."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        switches = config.switches
        self.layer = layer
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        self.rope = switches.layer_ropes[layer]
        slopes = alibi_slopes(self.heads) if switches.positions == "alibi" else None
        scale = self.head_dim**-0.5 if switches.score_scale is None else switches.score_scale
        self.rule = Rule(scale, switches.windows[layer], switches.score_cap, slopes)
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = Linear(config.hidden_size, query, bias=switches.query_bias)
        self.k_proj = Linear(config.hidden_size, key, bias=switches.query_bias)
        self.v_proj = Linear(config.hidden_size, key, bias=switches.query_bias)
        self.o_proj = Linear(query, config.hidden_size, bias=switches.output_bias)
        self.norms_heads = switches.query_key_norm == "head"
        if switches.query_key_norm != "none":
            sizes = (self.head_dim, self.head_dim) if self.norms_heads else (query, key)
            self.q_norm, self.k_norm = (make_norm(switches.norm, size, config.rms_norm_eps) for size in sizes)
        else:
            self.q_norm = self.k_norm = None

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        """(B, T, hidden) → (B, T, hidden)."""
        q, k, v = self.project(x, sequences.angles.get(self.rope or ""))
        if sequences.step is not None:
            out = sequences.step.attend(self.layer, q[0], k[0], v[0], self.rule).unsqueeze(0)
        elif sequences.cache is not None:
            k, v = sequences.cache.append(self.layer, k, v)
            out = attend(q, k, v, self.rule, sequences.padding)
        elif sequences.segments is not None:
            out = _packed(q, k, v, self.rule, sequences.segments)
        else:
            out = attend(q, k.transpose(1, 2), v.transpose(1, 2), self.rule, sequences.padding)
        return self.o_proj(out.flatten(-2))

    def project(self, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, hidden) → query and key, normalised and rotated, and value, (B, T, their heads, head_dim) each."""
        q, k, v = self.split(x)
        if self.q_norm is not None and self.k_norm is not None:
            if self.norms_heads:
                q, k = self.q_norm(q), self.k_norm(k)
            else:
                q = self.q_norm(q.flatten(-2)).view_as(q)
                k = self.k_norm(k.flatten(-2)).view_as(k)
        if angles is not None:
            q, k = self.turn(q, *angles), self.turn(k, *angles)
        return q, k, v

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`rope.rotate`."""
        return rotate(x, cos, sin)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, hidden) → query, key, value as the projections give them, (B, T, their heads, head_dim) each."""
        q, k, v = (layer(x).unflatten(-1, (-1, self.head_dim)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor, rule: Rule, padding: Tensor | None = None) -> Tensor:
    """Each query sees the keys up to its own place, as far as `rule` and `padding` allow.

    Args:
        q: (B, T, heads, d), the last T of S tokens.
        k: (B, kv_heads, S, d).
        v: like `k`.
        rule: the layer's.
        padding: (B,) tokens at the beginning of each row that nobody sees.

    Returns:
        Like q.
    """
    length, seen = q.shape[1], k.shape[2]
    if padding is None and length == 1 and rule.window is not None and seen > rule.window:
        k, v, seen = k[:, :, -rule.window :], v[:, :, -rule.window :], rule.window
    if padding is None and rule.sees_all(seen):
        if length == seen:
            out = F.scaled_dot_product_attention(
                q.transpose(1, 2), k, v, is_causal=True, scale=rule.scale, enable_gqa=True
            )
            return out.transpose(1, 2)
        if length == 1 and q.dtype != torch.bfloat16:
            # The heads that share a key head stand as rows of one matrix: nothing is repeated, nothing is masked.
            rows = q.view(q.shape[0], k.shape[1], -1, q.shape[-1])
            return F.scaled_dot_product_attention(rows, k, v, scale=rule.scale).view_as(q)
        # In bfloat16 plain products are several times faster than scaled_dot_product_attention on the CPU.
        return _by_products(q, k, v, rule, None if length == 1 else visible(length, seen, None, None, q.device))
    allowed = visible(length, seen, rule.window, padding, q.device)
    if length == seen and rule.cap is None:
        bias = allowed if rule.slopes is None else _biased(allowed, rule.slopes, padding, q)
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=bias, scale=rule.scale, enable_gqa=True)
        return out.transpose(1, 2)
    return _by_products(q, k, v, rule, allowed, padding)


def visible(length: int, seen: int, window: int | None, padding: Tensor | None, device: torch.device) -> Tensor:
    """Which of `seen` keys the last `length` tokens may see, (T, S) bool, with padding (B, 1, T, S)."""
    query = torch.arange(seen - length, seen, device=device).unsqueeze(1)
    key = torch.arange(seen, device=device)
    allowed = key <= query
    if window is not None:
        allowed &= key > query - window
    if padding is None:
        return allowed
    real = key >= padding.to(device).view(-1, 1, 1, 1)
    return allowed & real | (key == query)  # padding sees itself: a row that sees nothing has no softmax


def _biased(allowed: Tensor, slopes: Tensor, padding: Tensor | None, q: Tensor) -> Tensor:
    """ALiBi's biases where `allowed`, -inf elsewhere: (1 or B, heads, T, S).

    -slope · distance and slope · (place of the key) differ by what is the same for all keys of a query, and softmax
    does not see it.
    """
    place = torch.arange(allowed.shape[-1], dtype=torch.float32, device=q.device)
    if padding is not None:
        place = (place - padding.to(q.device).view(-1, 1, 1, 1)).clamp_min(0)
    bias = (slopes.to(q.device).view(-1, 1, 1) * place).to(q.dtype)
    return bias.expand(*bias.shape[:-2], *allowed.shape[-2:]).masked_fill(~allowed, float("-inf"))


def _by_products(
    q: Tensor, k: Tensor, v: Tensor, rule: Rule, allowed: Tensor | None, padding: Tensor | None = None
) -> Tensor:
    """The same in plain products: everything can be said, and every score stands in memory. Shapes as `attend`."""
    batch, length, heads, head_dim = q.shape
    kv_heads, seen = k.shape[1], k.shape[2]
    rows = q.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, head_dim)
    scores = (rows @ k.transpose(2, 3) * rule.scale).view(batch, heads, length, seen)
    if rule.cap is not None:
        scores = torch.tanh(scores / rule.cap) * rule.cap
    if rule.slopes is not None and allowed is not None:
        scores = scores + _biased(allowed, rule.slopes, padding, q)
    elif allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
    out = weights.view(batch, kv_heads, -1, seen) @ v
    return out.view(batch, heads, length, head_dim).transpose(1, 2)


def _packed(q: Tensor, k: Tensor, v: Tensor, rule: Rule, segments: Sequence[int]) -> Tensor:
    """`attend` within each document of one row; neighbours of equal length go through it as one batch."""
    pieces, start = [], 0
    for length, group in groupby(segments):
        count = len(list(group))
        span = slice(start, start + count * length)
        queries, keys, values = (part[0, span].unflatten(0, (count, length)) for part in (q, k, v))
        pieces.append(attend(queries, keys.transpose(1, 2), values.transpose(1, 2), rule).flatten(0, 1))
        start = span.stop
    return torch.cat(pieces).unsqueeze(0) if len(pieces) > 1 else pieces[0].unsqueeze(0)
