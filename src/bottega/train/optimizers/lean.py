"""AdamW whose arithmetic is float32 and whose states are kept in fewer bits; what its variants share.

Loshchilov & Hutter 2017 (arXiv:1711.05101). A parameter is updated a chunk at a time: states are widened, moved, used,
and narrowed again, so that the workspace is a few chunks, whatever the size of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bottega.codec.blockwise import BLOCK, dequantise_blockwise, dynamic_levels, quantise_blockwise
from bottega.train.optimizers.bytes import LARGEST_BFLOAT16_BETA

Moments = Literal["float32", "bfloat16", "8bit"]
_CHUNK_VALUES = {"cpu": 1 << 17, "cuda": 1 << 24}  # on a CPU what its cache holds, on a GPU what keeps it busy


class ExactState(torch.optim.Optimizer):
    """An optimiser whose state is loaded as it was saved: torch's own would convert it to the parameter's dtype."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over state and settings; tensors keep their dtypes and are copied to the parameters' devices."""
        super().load_state_dict({**state_dict, "state": {}})
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        own = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, parameter in zip(saved, own, strict=True):
            if index in state_dict["state"]:
                self.state[parameter] = {
                    name: value.to(value.device if name == "step" else parameter.device, copy=True)
                    for name, value in state_dict["state"][index].items()
                }


class LeanAdamW(ExactState):
    """AdamW with moments in float32, bfloat16 or 8 bits, and weights with or without Kahan's correction.

    A group may say `bits: 32`: the moments of its parameters are then float32. Parameters are contiguous, and of any
    floating dtype.
    """

    def __init__(
        self,
        parameters: Any,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        *,
        moments: Moments,
        kahan: bool,
        minimum: int = 0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "bits": 0}
        super().__init__(parameters, defaults)
        self.moments: Moments = moments
        self.kahan, self.minimum = kahan, minimum

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        if closure is not None:
            raise ValueError(f"{type(self).__name__} takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _new_state(self, parameter: nn.Parameter, group: dict[str, Any]) -> dict[str, Tensor]:
        state = {"step": torch.tensor(0.0)}
        moments = self.moments if parameter.numel() >= self.minimum and group["bits"] != 32 else "float32"
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = torch.zeros_like(parameter, dtype=_dtype(moments, name, group["betas"][1]))
            if state[name].dtype == torch.uint8:
                # Codes of zeros; what code 0 stands for does not matter where the scale is zero.
                state[f"{name}_scales"] = torch.zeros(-(-parameter.numel() // BLOCK), device=parameter.device)
        if self.kahan and parameter.dtype != torch.float32:
            state["compensation"] = torch.zeros_like(parameter)
        return state

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(self._new_state(parameter, group))
        state["step"] += 1
        step = float(state["step"])
        assert parameter.grad is not None
        weights, gradients = parameter.view(-1), parameter.grad.reshape(-1)
        size = _CHUNK_VALUES.get(parameter.device.type, 1 << 17)
        for start in range(0, len(weights), size):
            chunk = slice(start, start + size)
            moved = _direction(state, gradients[chunk].float(), group["betas"], group["eps"], step, chunk)
            self._move(weights[chunk], moved, state, group, chunk)

    def _move(
        self, weights: Tensor, direction: Tensor, state: dict[str, Tensor], group: dict[str, Any], chunk: slice
    ) -> None:
        """w ← w − lr · (decay · w + direction), rounded to the weights' dtype once."""
        lr, decay = group["lr"], group["weight_decay"]
        if weights.dtype == torch.float32:
            weights.mul_(1 - lr * decay).add_(direction, alpha=-lr)
            return
        before = weights.float()
        change = direction.add_(before, alpha=decay).mul_(-lr)
        if "compensation" not in state:
            weights.copy_(before + change)
            return
        compensation = state["compensation"].view(-1)[chunk]
        change += compensation
        weights.copy_(before + change)
        compensation.copy_(change - (weights.float() - before))


def _direction(
    state: dict[str, Tensor], gradient: Tensor, betas: tuple[float, float], eps: float, step: float, chunk: slice
) -> Tensor:
    """Adam's direction m̂ / (√v̂ + ε), float32; moves the moments of the chunk by the gradient."""
    first, second = _read(state, "exp_avg", chunk), _read(state, "exp_avg_sq", chunk)
    first.mul_(betas[0]).add_(gradient, alpha=1 - betas[0])
    second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    _write(state, "exp_avg", chunk, first)
    _write(state, "exp_avg_sq", chunk, second)
    # New tensors: float32 moments are the state itself.
    scale = second.sqrt().div_(math.sqrt(1 - betas[1] ** step)).add_(eps)
    return first.div(scale).div_(1 - betas[0] ** step)


def _dtype(moments: Moments, name: str, beta: float) -> torch.dtype:
    """bfloat16 has 8 bits: where few of them change at a time, a second moment shrinks at a wrong pace, or never."""
    if moments == "8bit":
        return torch.uint8
    slow = name == "exp_avg_sq" and beta > LARGEST_BFLOAT16_BETA
    return torch.bfloat16 if moments == "bfloat16" and not slow else torch.float32


def _blocks(chunk: slice) -> slice:
    return slice(chunk.start // BLOCK, -(-chunk.stop // BLOCK))


def _read(state: dict[str, Tensor], name: str, chunk: slice) -> Tensor:
    """A moment's values in the chunk, float32."""
    stored = state[name].view(-1)[chunk]
    if stored.dtype != torch.uint8:
        return stored.float()
    levels = dynamic_levels(name == "exp_avg", stored.device)
    return dequantise_blockwise(stored, state[f"{name}_scales"][_blocks(chunk)], levels=levels)


def _write(state: dict[str, Tensor], name: str, chunk: slice, values: Tensor) -> None:
    stored = state[name].view(-1)[chunk]
    if stored.dtype != torch.uint8:
        stored.copy_(values)
        return
    codes, scales = quantise_blockwise(values, signed=name == "exp_avg")
    stored.copy_(codes)
    state[f"{name}_scales"][_blocks(chunk)] = scales
