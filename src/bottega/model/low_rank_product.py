"""x Wᵀ + b + s · (x Aᵀ) Bᵀ with a frozen W, in one step of autograd.

Left to autograd, output and gradient of the input are formed twice, once for W and once for the product of low rank,
and then added; here the second is added to the first where it stands. W gets no gradient and is not copied.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def low_rank_product(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """(..., in) → (..., out); weight (out, in) and bias (out,) are frozen, down (r, in) and up (out, r) trained.

    Computed in the precision of x, or in autocast's where that is on; the gradients of `down` and `up` are in their
    own.
    """
    kind = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    out = _LowRankProduct.apply(x.to(kind), weight, bias, down, up, scale)
    assert isinstance(out, Tensor)
    return out


class _LowRankProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        kind = x.dtype
        with torch.autocast(x.device.type, enabled=False):
            inner = F.linear(x, down.to(kind))
            out = F.linear(x, weight.to(kind), None if bias is None else bias.to(kind))
            out.view(-1, out.shape[-1]).addmm_(inner.view(-1, inner.shape[-1]), up.to(kind).T, alpha=scale)
        ctx.save_for_backward(x, inner, weight, down, up)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        x, inner, weight, down, up = ctx.saved_tensors
        gradient = grad_outputs[0].reshape(-1, grad_outputs[0].shape[-1])
        kind = gradient.dtype
        inner_gradient = (gradient @ up.to(kind)).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = gradient @ weight.to(kind)
            grad_x.addmm_(inner_gradient, down.to(kind))
            grad_x = grad_x.view_as(x)
        grad_down = inner_gradient.T @ x.reshape(-1, x.shape[-1])
        grad_up = (inner.reshape(-1, inner.shape[-1]).T @ gradient).mul_(ctx.scale)  # quicker than transposed
        return grad_x, None, None, grad_down.to(down.dtype), grad_up.T.to(up.dtype).contiguous(), None
