"""Modules of a frozen base that an adapter trains directly: some rows of embedding and head, or a module as a whole.

New tokens need rows of their own and nothing else of a large matrix: `TrainedRows` keeps these rows beside it, in
float32, and puts them in the place of the base's. A tied head shares them, so what is tied stays tied.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bottega.model.linear import Linear
from bottega.model.low_rank import Adapted, Switch, dense_weight, wide
from bottega.model.quantised import QuantisedLinear


class TrainedRows(Adapted):
    """An embedding, or a head without bias, some rows of which are an adapter's own, by adapter: rows[name] (n, H)."""

    def __init__(self, base: nn.Module, switch: Switch) -> None:
        super().__init__(base, switch)
        self.rows = nn.ParameterDict()
        self.ids: dict[str, Tensor] = {}
        self._slots: dict[str, Tensor] = {}

    def add(self, name: str, ids: Sequence[int], shared: nn.Parameter | None = None) -> nn.Parameter:
        """Give the adapter `name` the rows `ids`, which begin as the base's (or are those of the tied module)."""
        weight = dense_weight(self.base)
        places = torch.tensor(list(ids), dtype=torch.int64, device=weight.device)
        self.rows[name] = nn.Parameter(weight.detach()[places].to(wide(weight.dtype))) if shared is None else shared
        self.ids[name] = places
        slots = torch.full((len(weight),), -1, dtype=torch.int64, device=weight.device)
        slots[places] = torch.arange(len(places), device=weight.device)
        self._slots[name] = slots
        return self.rows[name]

    def forward(self, x: Tensor) -> Tensor:
        """Of an embedding (...) int64 → (..., H); of a head (..., H) → (..., V)."""
        out, name = self.base(x), self.switch.active
        if name is None or name not in self.rows:
            return out
        rows = self.rows[name]
        if isinstance(self.base, nn.Embedding):
            slots = self._slots[name].to(x.device)[x]
            return torch.where((slots >= 0).unsqueeze(-1), F.embedding(slots.clamp_min(0), rows).to(out.dtype), out)
        return out.index_copy(-1, self.ids[name].to(out.device), F.linear(x, rows.to(x.dtype)).to(out.dtype))

    @property
    def weight(self) -> Tensor:
        """(V, H) with the rows in their places."""
        weight, name = dense_weight(self.base), self.switch.active
        if name is None or name not in self.rows:
            return weight
        return weight.index_copy(0, self.ids[name].to(weight.device), self.rows[name].to(weight.dtype))


class TrainedModule(Adapted):
    """A module of which an adapter has its own copy, by adapter."""

    def __init__(self, base: nn.Module, switch: Switch) -> None:
        super().__init__(base, switch)
        self.copies = nn.ModuleDict()

    def add(self, name: str) -> nn.Module:
        """Give the adapter `name` a copy in float32, which is trained."""
        base = self.base
        made = _dense(base) if isinstance(base, QuantisedLinear) else copy.deepcopy(base)
        made.requires_grad_(True).to(wide(dense_weight(base).dtype))
        self.copies[name] = made
        return made

    def forward(self, x: Tensor) -> Tensor:
        """What the module does, with its result in the precision that the base's would have."""
        made = self._chosen()
        if made is self.base or x.dtype == dense_weight(made).dtype:
            return made(x)
        if isinstance(made, nn.Linear):  # a wide head is not worth wide products
            return F.linear(x, made.weight.to(x.dtype), None if made.bias is None else made.bias.to(x.dtype))
        return made(x).to(x.dtype if x.is_floating_point() else dense_weight(self.base).dtype)

    @property
    def weight(self) -> Tensor:
        """Its weight, in the base's precision."""
        return dense_weight(self._chosen()).to(dense_weight(self.base).dtype)

    @property
    def bias(self) -> Tensor | None:
        """Its bias."""
        return getattr(self._chosen(), "bias", None)

    def _chosen(self) -> nn.Module:
        name = self.switch.active
        return self.copies[name] if name is not None and name in self.copies else self.base


def _dense(layer: QuantisedLinear) -> Linear:
    """Its weights as a layer that can be trained."""
    weight = layer.dense_weight(torch.float32)
    made = Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device=weight.device)
    made.weight.data = weight
    if layer.bias is not None:
        made.bias.data = layer.bias.detach().clone()
    return made
