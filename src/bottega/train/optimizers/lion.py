"""Lion (Chen et al. 2023, arXiv:2302.06675, algorithm 2): the sign of an interpolated momentum, one state a weight.

    c = β₁ m + (1 - β₁) g        w ← w - lr (sign(c) + decay · w)        m ← β₂ m + (1 - β₂) g

Every weight moves by lr, whatever its gradient: rates are three to ten times lower than AdamW's, and the decay as
much higher.
"""

from __future__ import annotations

from typing import Any

import torch


class Lion(torch.optim.Optimizer):
    """Lion over parameters of any shape."""

    def __init__(
        self, parameters: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("Lion takes no closure")
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in (each for each in group["params"] if each.grad is not None):
                state, gradient = self.state[parameter], parameter.grad
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(momentum.lerp(gradient, 1 - first).sign_(), alpha=-group["lr"])
                momentum.lerp_(gradient, 1 - second)
