"""Cross-entropy of a linear head, without ever holding all logits.

The head's logits are formed for a chunk of rows at a time; the gradient is taken in the same
pass, while the chunk's probabilities are at hand, so that the backward pass only scales what is
stored. Memory is one chunk of logits instead of (N, V); the idea is that of "cut" and "fused
linear" cross-entropy (Wijmans et al. 2024, arXiv:2411.09009), here in plain torch operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bottega.train.sizes import CHUNK_VALUES


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, cap: float | None = None) -> Tensor:
    """Sum over rows of -log softmax(hidden · weightᵀ)[target], in nats; with a `cap` c the logits are c·tanh(z / c).

    The sum is not normalised: callers divide by the trained tokens of the whole batch, over all
    its micro-batches. Rows that are not trained are to be dropped before.

    Args:
        hidden: (N, H), any floating type; products are taken in this type, the softmax in at least float32.
        weight: (V, H).
        targets: (N,) int64.
        cap: the family's `logit_cap`.
    """
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _LinearCrossEntropy.apply(hidden, weight, targets, cap)
    total = _zero(hidden)
    head = weight.to(hidden.dtype)
    for rows in chunks(len(targets), len(weight)):
        logits = capped(wide(hidden[rows] @ head.T), cap)
        total += (logits.logsumexp(-1) - logits.gather(1, targets[rows].unsqueeze(1)).squeeze(1)).sum()
    return total


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, cap: float | None) -> Tensor:
        head = weight.to(hidden.dtype)
        total = _zero(hidden)
        # A frozen head (under an adapter) costs neither memory nor the third product.
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for rows in chunks(len(targets), len(weight)):
            chosen = targets[rows].unsqueeze(1)
            logits = capped(wide(hidden[rows] @ head.T), cap)
            slope = None if cap is None else 1 - (logits / cap).square()  # d capped / d logits
            logits -= logits.amax(-1, keepdim=True)
            scores = logits.gather(1, chosen)
            # One exponential serves the loss and d loss / d logits = softmax - one_hot(target).
            exponentials = logits.exp_()
            normaliser = exponentials.sum(-1, keepdim=True)
            total += (normaliser.log() - scores).sum()
            gradient = exponentials.div_(normaliser)
            gradient.scatter_add_(1, chosen, torch.full_like(scores, -1))
            if slope is not None:
                gradient *= slope
            gradient = gradient.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, head, out=grad_hidden[rows])
            if grad_weight is not None:
                add_product(grad_weight, gradient.T, hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        gradients = (None if grad is None else grad * scale.to(grad.dtype) for grad in ctx.saved_tensors)
        return *gradients, None, None


def chunks(rows: int, vocab_size: int) -> Iterator[slice]:
    """Slices of the rows for which logits are held together."""
    size = max(16, CHUNK_VALUES // vocab_size)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """The logits as a family with a `logit_cap` has them."""
    return logits if cap is None else torch.tanh(logits / cap) * cap


def wide(x: Tensor) -> Tensor:
    """In float32, or float64 as it is: what a softmax is taken in."""
    return x if x.dtype == torch.float64 else x.float()


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a · b; products of a narrower type are rounded to it before they are added."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _zero(hidden: Tensor) -> Tensor:
    return torch.zeros((), dtype=wide(hidden[:0]).dtype, device=hidden.device)
