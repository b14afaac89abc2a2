"""Causal self-attention of one layer, without projections.

    weights = softmax(q k^T / sqrt(d)),  where token i sees the tokens j <= i only
    out     = weights v

Use torch, but not torch.nn.functional.scaled_dot_product_attention.
"""

from torch import Tensor


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(batch, heads, T, d) each -> (batch, heads, T, d)."""
    raise NotImplementedError
