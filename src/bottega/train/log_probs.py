"""Log-probabilities of chosen tokens under a linear head, without ever holding all logits.

Where train/loss.py needs only a sum, losses on whole answers need log p of each token: DPO sums
them by document, policy gradients weigh them one by one. As there, the head's logits are formed
for a chunk of rows at a time, so that memory is one chunk instead of (N, V). With z = h · Wᵀ / T
(capped before, where the family caps) and p = softmax(z):

    log p[target] = z[target] - logsumexp(z)        d log p[target] / dz = one_hot(target) - p
    H = - Σ p log p = logsumexp(z) - Σ p z          dH / dz = -p (log p + H)

Each row has a gradient of its own, so that the backward pass cannot scale one stored sum as the
cross-entropy does. With a frozen head (an adapter is trained) the forward pass keeps each row's
d log p / dh, (N, H) in all, and the backward pass only scales it. With a trained head the backward
pass forms the chunk's logits once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bottega.train.loss import add_product, capped, chunks, wide


def linear_log_probs(
    hidden: Tensor, weight: Tensor, targets: Tensor, cap: float | None = None, *, temperature: float = 1.0
) -> Tensor:
    """log softmax(hidden · weightᵀ / temperature)[target] of each row, in nats: (N,), at least float32.

    Differentiable in `hidden`, and in `weight` where it requires a gradient.

    Args:
        hidden: (N, H), any floating type; products are taken in this type, the softmax in at least float32.
        weight: (V, H).
        targets: (N,) int64.
        cap: the family's `logit_cap` c: the logits are c·tanh(z / c), and then divided by the temperature.
        temperature: of the distribution that the tokens were drawn from, above 0.
    """
    head = _Head(cap, temperature, wants_entropy=False, trains_entropy=False)
    return _LinearLogProbs.apply(hidden, weight, targets, head, torch.is_grad_enabled())[0]


def linear_log_probs_and_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    cap: float | None = None,
    *,
    temperature: float = 1.0,
    trains_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """`linear_log_probs`, and the entropy of each row's distribution in nats: (N,), (N,).

    The entropy is a figure without gradient unless `trains_entropy`; then the logits are formed
    twice, as for a trained head.
    """
    head = _Head(cap, temperature, wants_entropy=True, trains_entropy=trains_entropy)
    return _LinearLogProbs.apply(hidden, weight, targets, head, torch.is_grad_enabled())


def sum_by_document(values: Tensor, owners: Tensor, documents: int) -> Tensor:
    """Sum of the values of each document: (documents,); a document that owns none has 0.

    Args:
        values: (N,), one for each trained token.
        owners: (N,) int64, the document of each.
        documents: how many there are, more than any owner.
    """
    return values.new_zeros(documents).index_add(0, owners, values)


@dataclass(frozen=True)
class _Head:
    """How logits become a distribution, and what is asked of it."""

    cap: float | None
    temperature: float
    wants_entropy: bool
    trains_entropy: bool

    def logits(self, states: Tensor, weight: Tensor) -> Tensor:
        """(n, V) logits of a chunk, in at least float32."""
        logits = capped(wide(states @ weight.T), self.cap)
        return logits if self.temperature == 1.0 else logits.div_(self.temperature)

    def slope(self, logits: Tensor) -> Tensor | float | None:
        """d logits / d (states · weightᵀ); None is 1."""
        if self.cap is None:
            return None if self.temperature == 1.0 else 1 / self.temperature
        return (1 - (logits * (self.temperature / self.cap)).square()) / self.temperature


class _LinearLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, head: _Head, grad: bool) -> Any:
        matrix = weight.to(hidden.dtype)
        log_probs = torch.empty(len(targets), dtype=wide(hidden[:0]).dtype, device=hidden.device)
        entropy = torch.empty_like(log_probs if head.wants_entropy else log_probs[:0])
        normalisers = torch.empty_like(log_probs)  # logsumexp of each row
        keeps = grad and ctx.needs_input_grad[0] and not ctx.needs_input_grad[1] and not head.trains_entropy
        slopes = torch.empty_like(hidden) if keeps else None
        for rows in chunks(len(targets), len(weight)):
            chosen = targets[rows].unsqueeze(1)
            logits = head.logits(hidden[rows], matrix)
            slope = head.slope(logits) if keeps else None
            largest = logits.amax(-1, keepdim=True)
            logits -= largest
            scores = logits.gather(1, chosen)
            # Only the entropy still needs the logits once they are exponentiated.
            exponentials = logits.exp() if head.wants_entropy else logits.exp_()
            normaliser = exponentials.sum(-1, keepdim=True)
            log_normaliser = normaliser.log()
            log_probs[rows] = (scores - log_normaliser).squeeze(1)
            normalisers[rows] = (largest + log_normaliser).squeeze(1)
            if head.wants_entropy:
                expected = torch.linalg.vecdot(exponentials, logits).unsqueeze(1) / normaliser
                entropy[rows] = (log_normaliser - expected).squeeze(1)
            if slopes is not None:
                gradient = exponentials.div_(-normaliser)
                gradient.scatter_add_(1, chosen, torch.ones_like(scores))
                gradient = gradient if slope is None else gradient.mul_(slope)
                torch.mm(gradient.to(hidden.dtype), matrix, out=slopes[rows])
        ctx.head = head
        if slopes is not None:
            ctx.save_for_backward(slopes)
        else:
            ctx.save_for_backward(hidden, weight, targets, normalisers, entropy)
        if not head.trains_entropy:
            ctx.mark_non_differentiable(entropy)
        return log_probs, entropy

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        if len(ctx.saved_tensors) == 1:
            (slopes,) = ctx.saved_tensors
            return slopes * grad_outputs[0].unsqueeze(1).to(slopes.dtype), None, None, None, None
        return *_recomputed(ctx, *grad_outputs), None, None, None


def _recomputed(ctx: Any, grad_log_probs: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of hidden and weight, from logits that are formed a second time."""
    hidden, weight, targets, normalisers, entropy = ctx.saved_tensors
    head: _Head = ctx.head
    matrix = weight.to(hidden.dtype)
    grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
    grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
    for rows in chunks(len(targets), len(weight)):
        logits = head.logits(hidden[rows], matrix)
        slope = head.slope(logits)
        scale = grad_log_probs[rows].unsqueeze(1)
        log_p = logits.sub_(normalisers[rows].unsqueeze(1))
        if head.trains_entropy:
            p = log_p.exp()
            # -p (scale + grad_entropy (log p + H)), in place
            log_p.add_(entropy[rows].unsqueeze(1)).mul_(grad_entropy[rows].unsqueeze(1)).add_(scale)
            gradient = p.mul_(log_p).neg_()
        else:
            gradient = log_p.exp_().mul_(-scale)
        gradient.scatter_add_(1, targets[rows].unsqueeze(1), scale)
        gradient = gradient if slope is None else gradient.mul_(slope)
        gradient = gradient.to(hidden.dtype)
        if grad_hidden is not None:
            torch.mm(gradient, matrix, out=grad_hidden[rows])
        if grad_weight is not None:
            add_product(grad_weight, gradient.T, hidden[rows])
    return grad_hidden, grad_weight
