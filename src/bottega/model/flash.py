"""FlashAttention in plain torch: exact attention that never holds more than a tile of its scores.

Attention is O = softmax(S) V with S = scale · Q Kᵀ. S has one number for each pair of tokens, and a processor spends
more time to move it than to compute it. Three ideas make it unnecessary:

1. *Online softmax* (Milakov & Gimelshein 2018, arXiv:1805.02867, algorithm 3). A softmax can be taken in one pass: keep
   the highest score so far, m, and the sum so far, l = Σ exp(s - m). When a higher score comes, both, and the weighted
   sum of values, are corrected by exp(m_old - m_new).
2. *Tiling* (Dao et al. 2022, arXiv:2205.14135, algorithm 1). So the keys can come a tile at a time, and each tile of
   scores is used up while it lies in fast memory. What leaves it is O, and per query one number: L = m + log l. The
   division by l waits until the end (Dao 2023, arXiv:2307.08691, section 3.1).
3. *Recomputation* (Dao et al. 2022, algorithm 4; Dao 2023, algorithm 2). The backward pass needs the weights
   P = exp(S - L) again; to compute them once more from Q, K and L is cheaper than to have stored them.

This file is the reference that is read; `flash_triton` is the same on a GPU, and models run torch's own kernels
(docs/attention.md). It computes in float32 at least.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Scoring:
    """How scores come to be: their factor, whether a query sees later keys, how far back it sees, their cap."""

    scale: float
    causal: bool = True
    window: int | None = None
    cap: float | None = None

    def keys(self, rows: range, offset: int, seen: int) -> range:
        """The keys that any of the queries `rows` sees; query t stands at place t + offset among `seen` keys."""
        first = 0 if self.window is None else max(0, rows.start + offset - self.window + 1)
        return range(first, rows.stop + offset if self.causal else seen)

    def scores(self, products: Tensor, rows: range, columns: range, offset: int) -> tuple[Tensor, Tensor | None]:
        """A tile of Q Kᵀ, (…, rows, columns) → its scores, and their derivative by scale · Q Kᵀ (None: 1)."""
        scores, slope = products * self.scale, None
        if self.cap is not None:
            bent = torch.tanh(scores / self.cap)
            scores, slope = bent * self.cap, 1 - bent**2
        if self.causal:
            query = torch.arange(rows.start, rows.stop, device=products.device).unsqueeze(1) + offset
            key = torch.arange(columns.start, columns.stop, device=products.device)
            hidden = key > query
            if self.window is not None:
                hidden |= key <= query - self.window
            scores = scores.masked_fill(hidden, float("-inf"))
        return scores, slope


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, causal: bool = True, window: int | None = None,
    cap: float | None = None, tile: int = 64,
) -> Tensor:  # fmt: skip
    """Attention of T queries to S keys and values, differentiable.

    Args:
        q: (B, heads, T, d); if `causal`, the last T of S tokens.
        k: (B, kv_heads, S, d); each key head serves heads / kv_heads neighbouring query heads.
        v: like `k`.
        scale: factor of the scores; default 1/√d.
        causal: a query sees the keys up to its own place, otherwise all.
        window: a query sees so many keys at most, its own place included; causal only.
        cap: scores become cap · tanh(scores / cap) (Gemma 2).
        tile: queries, and keys, taken at a time.

    Returns:
        Like q.

    Raises:
        ValueError: shapes, precisions or settings that do not go together.
    """
    scoring = check(q, k, v, scale, causal, window, cap)
    return cast(Tensor, _FlashAttention.apply(q, k, v, scoring, tile))


def check(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool, window: int | None, cap: float | None
) -> Scoring:
    """The settings, after a look at whether they and the tensors of `flash_attention` go together."""
    if q.dim() != 4 or k.shape != v.shape or (q.shape[0], q.shape[3]) != (k.shape[0], k.shape[3]):
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} are not (B, heads, tokens, d)")
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads cannot share {k.shape[1]} key heads evenly")
    if {k.dtype, v.dtype} != {q.dtype} or {k.device, v.device} != {q.device}:
        raise ValueError("q, k and v must have one precision and lie on one device")
    if k.shape[2] == 0 or (causal and q.shape[2] > k.shape[2]):
        raise ValueError(f"{q.shape[2]} queries with {k.shape[2]} keys: some would see none")
    if window is not None and (window < 1 or not causal):
        raise ValueError("a window reaches back over at least one token, and is for causal attention")
    if cap is not None and cap <= 0:
        raise ValueError(f"the cap of the scores must be above 0, not {cap}")
    return Scoring(q.shape[-1] ** -0.5 if scale is None else scale, causal, window, cap)


def flash_forward(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, tile: int) -> tuple[Tensor, Tensor]:
    """→ output, like q, and L, the logarithm of the sum of each query's exponentials, (B, heads, T)."""
    grouped, key, value = _grouped(q, k, v)
    offset, seen = k.shape[2] - q.shape[2], k.shape[2]
    out = torch.empty_like(grouped)
    log_sum = grouped.new_empty(grouped.shape[:-1])
    for rows in _tiles(range(q.shape[2]), tile):
        query = _part(grouped, rows)
        # The lowest finite number, not -∞: a tile may hide all its keys from a query, and -∞ - -∞ is no number.
        highest = query.new_full((*query.shape[:-1], 1), torch.finfo(query.dtype).min)
        total, weighted = torch.zeros_like(highest), torch.zeros_like(query)
        for columns in _tiles(scoring.keys(rows, offset, seen), tile):
            scores, _ = scoring.scores(query @ _part(key, columns).mT, rows, columns, offset)
            higher = torch.maximum(highest, scores.amax(-1, keepdim=True))
            weights = torch.exp(scores - higher)
            correction = torch.exp(highest - higher)
            total = total * correction + weights.sum(-1, keepdim=True)
            weighted = weighted * correction + weights @ _part(value, columns)
            highest = higher
        _part(out, rows).copy_(weighted / total)
        log_sum[..., rows.start : rows.stop] = (highest + total.log()).squeeze(-1)
    return out.flatten(1, 2).to(q.dtype), log_sum.flatten(1, 2)


def flash_backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum: Tensor, grad: Tensor, scoring: Scoring, tile: int
) -> tuple[Tensor, Tensor, Tensor]:
    """From `grad` = dO → dQ, dK, dV, like q, k, v.

    With P = softmax(S): dV = Pᵀ dO, dP = dO Vᵀ, and softmax's derivative is dS = P ∘ (dP - D), where D = Σ_j P_j dP_j
    is one number per query and equals O · dO: no pass over the keys is needed for it.
    """
    grouped, key, value = _grouped(q, k, v)
    offset, seen = k.shape[2] - q.shape[2], k.shape[2]
    grad, out = (x.to(grouped.dtype).view_as(grouped) for x in (grad, out))
    log_sum = log_sum.view(*grouped.shape[:-1], 1)
    inner = (grad * out).sum(-1, keepdim=True)
    d_query, d_key, d_value = torch.zeros_like(grouped), torch.zeros_like(key), torch.zeros_like(value)
    for rows in _tiles(range(q.shape[2]), tile):
        query, d_out = _part(grouped, rows), _part(grad, rows)
        for columns in _tiles(scoring.keys(rows, offset, seen), tile):
            some_keys = _part(key, columns)
            scores, slope = scoring.scores(query @ some_keys.mT, rows, columns, offset)
            weights = torch.exp(scores - _part(log_sum, rows))
            d_scores = weights * (d_out @ _part(value, columns).mT - _part(inner, rows))
            d_products = scoring.scale * (d_scores if slope is None else d_scores * slope)
            # The query heads of a group (dimension 2) share their key head: its gradient is the sum of theirs.
            _part(d_value, columns).add_((weights.mT @ d_out).sum(2, keepdim=True))
            _part(d_key, columns).add_((d_products.mT @ query).sum(2, keepdim=True))
            _part(d_query, rows).add_(d_products @ some_keys)
    return d_query.flatten(1, 2).to(q.dtype), d_key.squeeze(2).to(k.dtype), d_value.squeeze(2).to(v.dtype)


class _FlashAttention(torch.autograd.Function):
    """The two, as autograd calls them."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, tile: int) -> Tensor:
        out, log_sum = flash_forward(q, k, v, scoring, tile)
        ctx.save_for_backward(q, k, v, out, log_sum)
        ctx.settings = scoring, tile
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, out, log_sum = ctx.saved_tensors
        return *flash_backward(q, k, v, out, log_sum, grad, *ctx.settings), None, None


def _grouped(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query heads by the key head that they share: (B, kv_heads, group, T, d), and (B, kv_heads, 1, S, d) twice."""
    wide = torch.promote_types(q.dtype, torch.float32)
    return q.to(wide).unflatten(1, (k.shape[1], -1)), k.to(wide).unsqueeze(2), v.to(wide).unsqueeze(2)


def _tiles(places: range, tile: int) -> Iterator[range]:
    return (places[start : start + tile] for start in range(0, len(places), tile))


def _part(x: Tensor, places: range) -> Tensor:
    """A view of the tokens at `places`."""
    return x[..., places.start : places.stop, :]
