"""A frozen base in 4 or 8 bits: what QLoRA trains its adapters on.

    nf4    4 bits a value and a scale for every 64, itself in 8 bits (Dettmers et al. 2023, arXiv:2305.14314)
    int8   8 bits a value and a scale for every row: the vector-wise half of LLM.int8 (Dettmers et al. 2022,
           arXiv:2208.07339) without its second half, which keeps outlying columns in 16 bits

A product dequantises the weight, multiplies and forgets it again, forwards and backwards: between the two passes
neither the dense weight nor the layer's input is kept, because nothing here is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bottega.codec.nf4 import FourBit, dequantise_nf4, quantise_nf4
from bottega.core.errors import UserError
from bottega.model.bitsandbytes_kernels import available, dequantise, knows

Kind = Literal["nf4", "int8"]
KEEP = ("lm_head", "gate", "shared_expert_gate")
"""Layers that stay dense: what chooses among all tokens, and what chooses among experts."""
LARGEST_INT8 = 127.0
PIECE_VALUES = 1 << 22
"""Values of a dense weight that a CPU makes at a time."""
_CHUNK_VALUES = 1 << 18  # stays in a core's cache


def rounded(weight: Tensor, kind: Kind, double_quant: bool = True) -> Tensor:
    """What a base of this kind makes of a weight (out, in): quantised and read back, in the weight's dtype."""
    if kind == "nf4":
        return dequantise_nf4(quantise_nf4(weight, double_quant=double_quant), tuple(weight.shape), weight.dtype)
    codes, scales = quantise_int8(weight)
    return dequantise_int8(codes, scales, weight.dtype)


def quantise_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (out, in) int8 and the rows' greatest magnitudes (out,) float32: W = codes · scale / 127."""
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(len(weight), device=weight.device)
    for rows in _row_chunks(weight.shape):
        values = weight.detach()[rows].float()
        scales[rows] = values.abs().amax(dim=1)
        factors = (LARGEST_INT8 / scales[rows].clamp_min(1e-30)).unsqueeze(1)
        codes[rows] = (values * factors).round_()
    return codes, scales


def dequantise_int8(codes: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight (out, in) in `dtype`, from what `quantise_int8` gives; computed in float32 and rounded once."""
    weight = torch.empty(codes.shape, dtype=dtype, device=codes.device)
    factors = (scales / LARGEST_INT8).unsqueeze(1)
    for rows in _row_chunks(codes.shape):
        if dtype == torch.float32:
            weight[rows].copy_(codes[rows]).mul_(factors[rows])
        else:
            weight[rows] = codes[rows].float().mul_(factors[rows])
    return weight


def _row_chunks(shape: torch.Size) -> Iterator[slice]:
    step = max(1, _CHUNK_VALUES // max(1, shape[1]))
    return (slice(start, start + step) for start in range(0, shape[0], step))


class _FrozenProduct(torch.autograd.Function):
    """x · Wᵀ (N, in) → (N, out) and its gradient in x; W comes in pieces that are made anew each time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        y = x.new_empty(len(x), layer.out_features)
        for rows, piece in layer.pieces(x.dtype):
            torch.mm(x, piece.t(), out=y[:, rows])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = gradient.new_zeros(len(gradient), ctx.layer.in_features)
        for rows, piece in ctx.layer.pieces(gradient.dtype):
            total.addmm_(gradient[:, rows], piece)
        return total, None


class QuantisedLinear(nn.Module):
    """`nn.Linear` over a frozen weight of few bits; subclasses hold the codes as buffers."""

    bias: nn.Parameter | None
    rows_apart: int
    """Rows at whose multiples a piece of the weight may begin."""

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.register_parameter("bias", bias)
        self.out_features, self.in_features = shape
        self.dtype = dtype
        """What `dense_weight` gives unless asked for another."""

    @staticmethod
    def from_linear(linear: nn.Linear, kind: Kind, double_quant: bool = True) -> QuantisedLinear:
        """The quantised twin of a dense layer; they share the bias, which is frozen."""
        return QuantisedLinear.from_weight(linear.weight, kind, double_quant, linear.bias)

    @staticmethod
    def from_weight(
        weight: Tensor,
        kind: Kind,
        double_quant: bool = True,
        bias: nn.Parameter | None = None,
        dtype: torch.dtype | None = None,
    ) -> QuantisedLinear:
        """A layer from its dense weight (out, in), which is not kept; `dtype` is what `dense_weight` gives it in.

        Raises UserError if a value is not finite: the nearest code would hide it.
        """
        if bias is not None:
            bias.requires_grad_(False)
        shape, dtype = (weight.shape[0], weight.shape[1]), dtype or weight.dtype
        if kind == "nf4":
            stored = quantise_nf4(weight, double_quant=double_quant)
            _require_finite(stored.scales if stored.offset is None else stored.offset, shape)
            return NF4Linear(stored, shape, dtype, bias)
        codes, scales = quantise_int8(weight)
        _require_finite(scales, shape)
        return Int8Linear(codes, scales, dtype, bias)

    def dense_weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """The weight (out, in), made anew; in `dtype`, or the layer's."""
        raise NotImplementedError

    def pieces(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """`dense_weight(dtype)` some rows at a time, where the processor's cache is what counts: on a CPU in float32.

        (In fewer bits the sum over the pieces would be rounded at each; a GPU is best fed at once.)
        """
        device = next(self.buffers()).device
        if dtype != torch.float32 or device.type != "cpu":
            yield slice(0, self.out_features), self.dense_weight(dtype)
            return
        step = self.rows_apart * max(1, PIECE_VALUES // (self.rows_apart * self.in_features))
        for start in range(0, self.out_features, step):
            rows = slice(start, min(start + step, self.out_features))
            yield rows, self.dense_rows(rows)

    def dense_rows(self, rows: slice) -> Tensor:
        """Some rows of the weight in float32; they begin at a multiple of `rows_apart`."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:
        """`dense_weight()`, for who reads a layer's weight once; not a parameter, and not kept."""
        return self.dense_weight()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out), in the precision of `x`, or in autocast's where that is on."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        y = _FrozenProduct.apply(x.reshape(-1, self.in_features), self)
        assert isinstance(y, Tensor)
        y = y.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def stored_bytes(self) -> int:
        """Bytes of codes and scales."""
        persistent = self.state_dict(keep_vars=True)
        return sum(part.nbytes for name, part in persistent.items() if name != "bias")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the model, but keep the scales' precision: `model.to(torch.bfloat16)` is not meant for them."""
        before = {name: buffer for name, buffer in self.named_buffers() if buffer.is_floating_point()}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = getattr(self, name)
            if moved.dtype != buffer.dtype:
                setattr(self, name, buffer.to(moved.device))
        return self

    def extra_repr(self) -> str:
        """Sizes, as `nn.Linear` shows them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class NF4Linear(QuantisedLinear):
    """A linear layer of 4-bit numbers (NF4, or another code book that came with stored codes)."""

    codes: Tensor
    scales: Tensor
    outer: Tensor | None
    offset: Tensor | None
    levels: Tensor
    scale_levels: Tensor

    def __init__(
        self, stored: FourBit, shape: tuple[int, int], dtype: torch.dtype, bias: nn.Parameter | None = None
    ) -> None:
        super().__init__(shape, dtype, bias)
        self.block, self.scale_block = stored.block, stored.scale_block
        self.rows_apart = math.lcm(self.block, 2 * self.in_features) // self.in_features
        self.known_by_kernels = knows(stored)
        for name in ("codes", "scales", "outer", "offset"):
            self.register_buffer(name, getattr(stored, name))
        for name in ("levels", "scale_levels"):  # constants that all layers share: no state
            self.register_buffer(name, getattr(stored, name), persistent=False)

    def stored(self) -> FourBit:
        """Codes and scales."""
        parts = (self.codes, self.scales, self.outer, self.offset, self.levels, self.scale_levels)
        return FourBit(*parts, self.block, self.scale_block)

    def dense_weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """The weight (out, in), made anew; on a GPU by bitsandbytes' kernel if it is installed."""
        stored, shape = self.stored(), (self.out_features, self.in_features)
        if stored.codes.is_cuda and self.known_by_kernels and available():
            return dequantise(stored, shape, dtype or self.dtype)
        return dequantise_nf4(stored, shape, dtype or self.dtype)

    def dense_rows(self, rows: slice) -> Tensor:
        """Some rows of the weight in float32; they begin with a block."""
        first, last = rows.start * self.in_features, rows.stop * self.in_features
        return dequantise_nf4(self.stored().part(first, last), (rows.stop - rows.start, self.in_features))


class Int8Linear(QuantisedLinear):
    """A linear layer of whole numbers of 8 bits with a scale for each row."""

    codes: Tensor
    scales: Tensor
    rows_apart = 1

    def __init__(self, codes: Tensor, scales: Tensor, dtype: torch.dtype, bias: nn.Parameter | None = None) -> None:
        super().__init__((codes.shape[0], codes.shape[1]), dtype, bias)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def dense_weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """The weight (out, in), made anew."""
        return dequantise_int8(self.codes, self.scales, dtype or self.dtype)

    def dense_rows(self, rows: slice) -> Tensor:
        """Some rows of the weight in float32."""
        return dequantise_int8(self.codes[rows], self.scales[rows])


def _require_finite(scales: Tensor, shape: tuple[int, int]) -> None:
    if not bool(scales.isfinite().all()):
        raise UserError(
            f"a weight of {shape[0]} × {shape[1]} has values that are not finite, and cannot be quantised",
            hint="The checkpoint is damaged, or overflowed in training.",
        )


def linear_layers(decoder: nn.Module, keep: tuple[str, ...] = KEEP) -> dict[str, nn.Linear]:
    """The layers that a quantised base quantises, by name: all linear ones but those whose last name is in `keep`."""
    return {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] not in keep
    }


@torch.no_grad()
def quantise_base(
    decoder: nn.Module, kind: Kind, double_quant: bool = True, keep: tuple[str, ...] = KEEP
) -> list[str]:
    """Replace the linear layers in place, one after the other, before adapters are put on; returns their names.

    At most one layer is there twice at a time. Embeddings, norms and the layers of `keep` stay as they are.
    """
    names = list(linear_layers(decoder, keep))
    for name in names:
        layer = decoder.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        decoder.set_submodule(name, QuantisedLinear.from_linear(layer, kind, double_quant))
    return names
