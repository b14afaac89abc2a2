"""AdamW and Muon.

Muon (Jordan et al. 2024) replaces the momentum of each weight matrix by its nearest
semi-orthogonal matrix, found with a few Newton-Schulz iterations, so that every direction of
the matrix learns at one pace. The update is scaled by 0.2 · sqrt(max(rows, columns)), which gives
it AdamW's root mean square (Liu et al. 2025, arXiv:2502.16982): one learning rate serves both.
Embeddings, head, norms and biases are always AdamW's (Loshchilov & Hutter 2017, arXiv:1711.05101).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bottega.train.optimizer_names import OptimizerName
from bottega.train.sizes import STACKED_VALUES

# Quintic coefficients of Jordan et al.: steep at zero, so that small singular values rise quickly.
BETAS = (0.9, 0.95)
Betas = tuple[float, float] | None
Groups = list[dict[str, Any]]
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
    model: nn.Module,
    name: OptimizerName,
    *,
    learning_rate: float,
    weight_decay: float,
    work_dtype: torch.dtype,
    betas: Betas = None,
    factor: Callable[[str], float] = lambda _: 1.0,
) -> list[torch.optim.Optimizer]:
    """The optimisers of what is trained of a decoder, every group with its peak rate in `initial_lr`.

    Weight decay acts on the matrices inside the blocks only: not on norms and biases, and not on
    embeddings, whose rows are mostly untouched by a step. `betas` are those of AdamW or Lion (default: 0.9, 0.95; of
    Lion 0.9, 0.99). `factor` says by what a parameter's learning rate
    differs, by its name (LoRA+, value heads).
    """
    matrices, rest = defaultdict[float, list[nn.Parameter]](list), defaultdict[float, list[nn.Parameter]](list)
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            inside = parameter.ndim == 2 and ".layers." in key
            (matrices if inside else rest)[factor(key)].append(parameter)
    decayed = [_group(found, learning_rate * times, weight_decay) for times, found in matrices.items()]
    plain = [_group(found, learning_rate * times, 0.0) for times, found in rest.items()]
    if name.endswith("adamw8bit"):  # embeddings are touched a few rows at a time: their moments are kept whole
        plain = [{**group, "bits": 32} for group in plain]
    optimizers: list[torch.optim.Optimizer] = []
    if name == "muon":
        optimizers += [Muon(decayed, learning_rate, work_dtype=work_dtype)] if decayed else []
        optimizers += [_adamw(plain, learning_rate, betas, eps=1e-10)] if plain else []
    else:
        optimizers.append(_KINDS[name]([*decayed, *plain], learning_rate, betas))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _group(parameters: list[nn.Parameter], learning_rate: float, weight_decay: float) -> dict[str, Any]:
    return {"params": parameters, "lr": learning_rate, "weight_decay": weight_decay}


def _adamw(groups: Groups, learning_rate: float, betas: Betas, eps: float = 1e-8) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas or BETAS, eps=eps, fused=True)


def _adamw8bit(groups: Groups, learning_rate: float, betas: Betas) -> torch.optim.Optimizer:
    from bottega.train.optimizers.adamw8bit import AdamW8bit

    return AdamW8bit(groups, lr=learning_rate, betas=betas or BETAS)


def _adamw_kahan(groups: Groups, learning_rate: float, betas: Betas) -> torch.optim.Optimizer:
    from bottega.train.optimizers.kahan import AdamWKahan

    return AdamWKahan(groups, lr=learning_rate, betas=betas or BETAS)


def _adamw_masters(groups: Groups, learning_rate: float, betas: Betas) -> torch.optim.Optimizer:
    from bottega.train.optimizers.masters import MasterWeights

    return MasterWeights(groups, lambda own: _adamw(own, learning_rate, betas))


def _lion(groups: Groups, learning_rate: float, betas: Betas) -> torch.optim.Optimizer:
    from bottega.train.optimizers.lion import Lion

    return Lion(groups, lr=learning_rate, betas=betas or (0.9, 0.99))


def _paged(groups: Groups, learning_rate: float, betas: Betas) -> torch.optim.Optimizer:
    from bottega.train.optimizers.paged import paged_adamw8bit

    return paged_adamw8bit(groups, learning_rate, betas or BETAS)


_KINDS: dict[str, Callable[[Groups, float, Betas], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "adamw_kahan": _adamw_kahan,
    "adamw_masters": _adamw_masters,
    "lion": _lion,
    "paged_adamw8bit": _paged,
}
