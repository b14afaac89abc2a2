"""Changes of low rank: modules that stand around a linear layer or an embedding which itself stays as it is.

A linear layer's output W x gets a second part, with s = alpha / r:

    LoRA    W x + s · B A x                   Hu et al. 2021, arXiv:2106.09685; B begins as zeros
    rsLoRA  the same with s = alpha / √r      Kalajdzievski 2023, arXiv:2312.03732
    DoRA    m · (W + s · B A) x / ‖W + s · B A‖, row by row, the norm taken as a constant
                                              Liu et al. 2024, arXiv:2402.09353, equation 11 and section 4.3
    PiSSA   A and B begin as the r largest singular directions of W, which the base gives up
                                              Meng et al. 2024, arXiv:2404.02948, equations 2 to 4

Several adapters can stand on one base; one is active, and with none (`adapter_off`) the decoder computes what it
did before any was added. A and B are float32 whatever the base is kept in, and are cast to the precision of the
base's output. `lora.py` puts these modules into a decoder; those that are trained by rows or as a whole are in
`trained_rows.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bottega.model.low_rank_product import low_rank_product


@dataclass
class Switch:
    """Which adapter the modules of one decoder apply; they share it."""

    active: str | None = None

    @contextmanager
    def set(self, name: str | None) -> Iterator[None]:
        """While open, `name` is active."""
        before, self.active = self.active, name
        try:
            yield
        finally:
            self.active = before


class Adapted(nn.Module):
    """A module of the base in its adapted form. `base` is the module as it was."""

    def __init__(self, base: nn.Module, switch: Switch) -> None:
        super().__init__()
        self.base, self.switch = base, switch

    @property
    def weight(self) -> Tensor:
        """The matrix that the module amounts to now, differentiable in what is trained."""
        raise NotImplementedError

    @property
    def bias(self) -> Tensor | None:
        """The base's."""
        return getattr(self.base, "bias", None)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The precision in which something is trained on a base of this one: float32, or float64."""
    return torch.promote_types(dtype, torch.float32)


def dense_weight(module: nn.Module) -> Tensor:
    """The matrix of a linear layer or an embedding, dequantised where it is kept so."""
    dense = getattr(module, "dense_weight", None)
    weight = dense() if callable(dense) else module.weight
    assert isinstance(weight, Tensor)
    return weight


class LowRank(nn.Module):
    """One adapter's change of one matrix (out, in): A (r, in), B (out, r), and for DoRA the rows' lengths (out,).

    `first_down` and `first_up` are PiSSA's A and B at the start, which the base gave up; empty otherwise.
    """

    first_down: Tensor
    first_up: Tensor

    def __init__(self, down: nn.Parameter, up: nn.Parameter, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.A, self.B, self.scale, self.dropout = down, up, scale, dropout
        self.magnitude: nn.Parameter | None = None
        self.register_buffer("first_down", down.new_empty(0), persistent=False)
        self.register_buffer("first_up", up.new_empty(0), persistent=False)

    @property
    def has_first(self) -> bool:
        """Whether the base gave up a part of its matrix for it."""
        return self.first_down.numel() > 0

    def keep_first(self) -> None:
        """Remember A and B as they are: what the base has given up."""
        self.first_down, self.first_up = self.A.detach().clone(), self.B.detach().clone()

    def added_to(self, out: Tensor, x: Tensor, bias: Tensor | None, weight: Callable[[], Tensor]) -> Tensor:
        """The layer's output (..., out) with the change, from what it is without and the layer's input (..., in).

        `bias` is the layer's; `weight` gives its matrix, which only DoRA asks for.
        """
        dropped = F.dropout(x, self.dropout, self.training) if self.dropout and self.training else x
        if self.magnitude is None:
            return _plus_product(out, dropped, self.A, self.B, self.scale)
        plain = out if bias is None else out - bias
        summed = _plus_product(plain, dropped, self.A, self.B, self.scale)
        ratio = self.magnitude / self.lengths(weight())
        changed = summed * ratio.to(out.dtype)
        return changed if bias is None else changed + bias

    @torch.no_grad()
    def lengths(self, weight: Tensor) -> Tensor:
        """‖W + s · B A‖ of each row, (out,) float32, without forming the sum: the squares are multiplied out."""
        down, up, matrix = self.A, self.B, weight.to(self.A.dtype)
        squares = torch.linalg.vector_norm(matrix, dim=1).square()
        squares = squares + 2 * self.scale * ((matrix @ down.T) * up).sum(1)
        squares = squares + self.scale**2 * ((up @ (down @ down.T)) * up).sum(1)
        return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()

    def merged(self, weight: Tensor) -> Tensor:
        """The matrix (out, in) with the change, in the precision of A."""
        summed = torch.addmm(weight.to(self.A.dtype), self.B, self.A, alpha=self.scale)
        if self.magnitude is None:
            return summed
        lengths = torch.linalg.vector_norm(summed.detach(), dim=1).clamp_min(torch.finfo(summed.dtype).tiny)
        return summed * (self.magnitude / lengths).unsqueeze(1)


def _plus_product(out: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """out + scale · (x Aᵀ) Bᵀ, without holding the product beside the sum. Shapes (..., out) and (..., in)."""
    kind = out.dtype
    inner = F.linear(x.to(kind), down.to(kind)).flatten(0, -2)
    return torch.addmm(out.flatten(0, -2), inner, up.to(kind).T, alpha=scale).view(out.shape)


class LoRALinear(Adapted):
    """A linear layer with changes of low rank, by adapter."""

    def __init__(self, base: nn.Module, switch: Switch) -> None:
        super().__init__(base, switch)
        self.adapters = nn.ModuleDict()

    def change(self, name: str | None) -> LowRank | None:
        """That of the adapter `name`, if it changes this layer."""
        found = self.adapters[name] if name is not None and name in self.adapters else None
        assert found is None or isinstance(found, LowRank)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        active = self.change(self.switch.active)
        if active is not None and isinstance(self.base, nn.Linear) and self._is_plain(active):
            base = self.base
            return low_rank_product(x, base.weight, base.bias, active.A, active.B, active.scale)
        out = self.base(x)
        for other in self._given_up(active):
            out = _plus_product(out, x, other.first_down, other.first_up, other.scale)
        return out if active is None else active.added_to(out, x, self.bias, lambda: self.untouched(active))

    @property
    def weight(self) -> Tensor:
        """(out, in)."""
        weight, active = self.untouched(self.change(self.switch.active)), self.change(self.switch.active)
        return weight if active is None else active.merged(weight).to(weight.dtype)

    def untouched(self, active: LowRank | None = None) -> Tensor:
        """The base's matrix with all that it gave up, but for what it gave to `active`."""
        weight = dense_weight(self.base)
        for other in self._given_up(active):
            weight = torch.addmm(weight.to(other.first_up.dtype), other.first_up, other.first_down, alpha=other.scale)
        return weight

    def _is_plain(self, active: LowRank) -> bool:
        """Whether a product with A and B is all that `active` adds, and to all of what is there."""
        drops = active.dropout > 0 and active.training
        return active.magnitude is None and not drops and not self._given_up(active)

    def _given_up(self, active: LowRank | None) -> list[LowRank]:
        """The adapters whose part the base lacks although they are not at work."""
        found = [change for change in self.adapters.values() if isinstance(change, LowRank)]
        return [change for change in found if change is not active and change.has_first]


class LoRAEmbedding(LoRALinear):
    """An embedding with changes of low rank: B (hidden, r) and A (r, vocabulary) as PEFT has them.

    The change of the matrix (vocabulary, hidden) is s · (B A)ᵀ.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(...) int64 → (..., hidden)."""
        out = self.base(x)
        active = self.change(self.switch.active)
        if active is None:
            return out
        return out + (active.scale * F.linear(F.embedding(x, active.A.T), active.B)).to(out.dtype)

    @property
    def weight(self) -> Tensor:
        """(vocabulary, hidden)."""
        weight, active = dense_weight(self.base), self.change(self.switch.active)
        if active is None:
            return weight
        return weight + (active.scale * (active.B @ active.A).T).to(weight.dtype)
