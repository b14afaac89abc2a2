"""Float32 masters of bfloat16 weights: any optimiser moves the masters, and the weights are their roundings.

Micikevicius et al. 2017, "Mixed precision training" (arXiv:1710.03740), §3.1. It costs 4 bytes a parameter where
Kahan's correction costs 2, and works with every optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

Groups = list[dict[str, Any]]
# Gradients that are there in float32 at the same time.
_WIDENED_VALUES = 1 << 24


class MasterWeights(torch.optim.Optimizer):
    """An optimiser over float32 copies of parameters in fewer bits; parameters in float32 are their own masters.

    Learning rates and the like are set in `param_groups`, as with any optimiser. `state_dict` is the inner one's with
    a tensor `master` for each copy.

    Args:
        groups: groups of parameters, with their settings.
        make: makes the inner optimiser from groups of masters.
    """

    def __init__(self, groups: Groups, make: Callable[[Groups], torch.optim.Optimizer]) -> None:
        super().__init__(groups, {})
        self._masters = {parameter: _master(parameter) for parameter in self._parameters()}
        self.inner = make(
            [{**group, "params": [self._masters[each] for each in group["params"]]} for group in self.param_groups]
        )
        for group, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            group.update({name: value for name, value in inner.items() if name != "params"})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient; some at a time, so that few are widened at once."""
        if closure is not None:
            raise ValueError("MasterWeights takes no closure")
        self._take_over()
        self._hand_down_settings()
        gradients = {each: each.grad for each in self._parameters() if each.grad is not None}
        for parameter in gradients:  # the inner optimiser shall see those of one portion at a time
            parameter.grad = None
        for portion in _portions(list(gradients)):
            for parameter in portion:
                self._masters[parameter].grad = gradients[parameter].float()
            self.inner.step()
            for parameter in portion:
                master = self._masters[parameter]
                master.grad = None
                if master is not parameter:
                    parameter.copy_(master)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
            self.state[parameter] = self._state_of(parameter)

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors by the parameters' numbers: the inner optimiser's state, and the masters."""
        inner = self.inner.state_dict()["state"]
        state: dict[int, dict[str, Any]] = {}
        for index, parameter in enumerate(self._parameters()):
            master = self._masters[parameter]
            found = {**inner.get(index, {}), **({} if master is parameter else {"master": master.detach()})}
            if found:
                state[index] = found
        return {**super().state_dict(), "state": state}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over masters, the inner optimiser's state, and the settings."""
        state = {index: dict(values) for index, values in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": {}})
        for index, parameter in enumerate(self._parameters()):
            if self._masters[parameter] is not parameter:
                self._masters[parameter].copy_(state[index].pop("master"))
        self._hand_down_settings()
        inner = {index: values for index, values in state.items() if values}
        self.inner.load_state_dict({**self.inner.state_dict(), "state": inner})

    def _state_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        """The inner optimiser's state and the master, by the parameter: a training run saves it as any optimiser's."""
        master = self._masters[parameter]
        return {**self.inner.state.get(master, {}), **({} if master is parameter else {"master": master.detach()})}

    def _take_over(self) -> None:
        """Make a state that was put into `state` from outside the inner optimiser's own."""
        for parameter in (each for each in self._parameters() if each in self.state):
            master, given = self._masters[parameter], dict(self.state[parameter])
            stored = given.pop("master", None)
            if stored is not None and stored.data_ptr() != master.data_ptr():
                master.copy_(stored)
                self.inner.state[master] = given

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _hand_down_settings(self) -> None:
        for group, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            inner.update({name: value for name, value in group.items() if name != "params"})


def _portions(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in order, about `_WIDENED_VALUES` values at a time."""
    portion, values = [], 0
    for parameter in parameters:
        portion.append(parameter)
        values += parameter.numel()
        if values >= _WIDENED_VALUES:
            yield portion
            portion, values = [], 0
    if portion:
        yield portion


def _master(parameter: nn.Parameter) -> nn.Parameter:
    return parameter if parameter.dtype == torch.float32 else nn.Parameter(parameter.detach().float())
