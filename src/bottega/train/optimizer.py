"""AdamW and Muon.

Muon (Jordan et al. 2024) replaces the momentum of each weight matrix by its nearest
semi-orthogonal matrix, found with a few Newton-Schulz iterations, so that every direction of
the matrix learns at one pace. The update is scaled by 0.2 · sqrt(max(rows, columns)), which gives
it AdamW's root mean square (Liu et al. 2025, arXiv:2502.16982): one learning rate serves both.
Embeddings, head, norms and biases are always AdamW's (Loshchilov & Hutter 2017, arXiv:1711.05101).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from bottega.train.optimizer_names import OptimizerName
from bottega.train.sizes import STACKED_VALUES

# Quintic coefficients of Jordan et al.: steep at zero, so that small singular values rise quickly.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Muon over 2-D parameters; those of one shape are orthogonalised together, as batches of about STACKED_VALUES."""

    def __init__(
        self,
        parameters: Any,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 5,
        work_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.iterations, self.work_dtype = iterations, work_dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                count = max(1, STACKED_VALUES // shape.numel())
                for start in range(0, len(parameters), count):
                    self._update(parameters[start : start + count], group)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        first = parameters[0]
        directions = torch.empty((len(parameters), *first.shape), dtype=self.work_dtype, device=first.device)
        for parameter, direction in zip(parameters, directions, strict=True):
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffer, gradient = state["momentum_buffer"], parameter.grad
            assert gradient is not None
            buffer.lerp_(gradient, 1 - group["momentum"])
            direction.copy_(gradient.lerp(buffer, group["momentum"]))  # Nesterov
        updates = orthogonalise(directions, self.iterations)
        scale = 0.2 * max(first.shape) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * scale)


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix of each, roughly (singular values end between about 0.7 and 1.2).

    Args:
        matrices: (batch, rows, columns).
        iterations: Newton-Schulz steps x ← a·x + b·(xxᵀ)x + c·(xxᵀ)²x.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def build_optimizers(
    model: nn.Module, name: OptimizerName, *, learning_rate: float, weight_decay: float, work_dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """The optimisers of a decoder, every group with its peak rate in `initial_lr`.

    Weight decay acts on the matrices inside the blocks only: not on norms and biases, and not on
    embeddings, whose rows are mostly untouched by a step.
    """
    matrices, rest = [], []
    for key, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and ".layers." in key
        (matrices if inside else rest).append(parameter)
    betas = (0.9, 0.95)
    plain = {"params": rest, "weight_decay": 0.0}
    optimizers: list[torch.optim.Optimizer] = []
    if name == "muon":
        optimizers.append(Muon(matrices, learning_rate, weight_decay=weight_decay, work_dtype=work_dtype))
        optimizers.append(torch.optim.AdamW([plain], lr=learning_rate, betas=betas, eps=1e-10, fused=True))
    else:
        decayed = {"params": matrices, "weight_decay": weight_decay}
        optimizers.append(torch.optim.AdamW([decayed, plain], lr=learning_rate, betas=betas, fused=True))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers
