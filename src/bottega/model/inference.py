"""A decoder made ready to generate: fewer, larger products, and weights laid out for the machine.

Query, key and value become one product, gate and up another, which at one token per step saves
more than half of the calls. On a CPU that computes in bfloat16, weights of that type are packed once
into oneDNN's blocked layout (2 to 3 times the speed of `F.linear` at one row; numbers equal). In
float32 one row reads the weights as they are, at the speed of memory; for a few rows at a time they
are also packed by MKL (2 times the speed of `F.linear` at eight rows).
The result generates; it is not to be trained or saved.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bottega.core.machine import facts, preferred_dtype
from bottega.model.attention import Attention
from bottega.model.decoder import Block, Decoder
from bottega.model.experts import MixtureOfExperts
from bottega.model.feed_forward import FeedForward, PlainFeedForward
from bottega.model.norm import RMSNorm
from bottega.model.rope import rotate

MEMORY_SHARE = 4  # a second copy of the weights may take a quarter of the free memory


class PackedLinear(nn.Module):
    """`nn.Linear` over weights in oneDNN's own layout; CPU, inference only."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Linear(nn.Module):
    """`nn.Linear` without the parameter machinery."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        return F.linear(x, self.weight, self.bias)


class BatchLinear(Linear):
    """`Linear` in float32, with a second copy of the weights that MKL packs when first used for a few sequences."""

    ROWS = 8  # MKL packs for a number of rows; fewer are filled up, which pays from four on

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        rows = x.shape[0]
        if not 3 < rows <= self.ROWS or x.numel() != rows * x.shape[-1]:
            return F.linear(x, self.weight, self.bias)
        if self.packed is None:
            self.packed = torch.ops.mkl._mkl_reorder_linear_weight(self.weight, self.ROWS)
        if rows < self.ROWS:
            x = torch.cat((x, x.new_zeros(self.ROWS - rows, *x.shape[1:])))
        return torch.ops.mkl._mkl_linear(x, self.packed, self.weight, self.bias, self.ROWS)[:rows]


LinearKind = type[PackedLinear] | type[Linear]


class StepNorm(RMSNorm):
    """`RMSNorm` in half the operations where there is one token per sequence."""

    def __init__(self, norm: RMSNorm) -> None:
        nn.Module.__init__(self)
        self.weight, self.eps = norm.weight, norm.eps
        self.shift = torch.full((1, 1, 1), norm.eps, device=norm.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, size) → (B, T, size), in the precision of `x`."""
        if x.shape[1] != 1:
            return super().forward(x)
        wide = x.float()
        # The mean square is x·x / size: one product instead of power, sum, division and addition.
        scale = torch.baddbmm(self.shift, wide, wide.mT, alpha=1 / x.shape[-1]).rsqrt_()
        return self.weight * (wide * scale).to(x.dtype)


class FusedAttention(Attention):
    """`Attention` with one projection for query, key and value."""

    def __init__(self, attention: Attention, kind: LinearKind) -> None:
        nn.Module.__init__(self)
        self.layer, self.heads, self.kv_heads = attention.layer, attention.heads, attention.kv_heads
        self.head_dim, self.rope, self.rule = attention.head_dim, attention.rope, attention.rule
        self.q_norm, self.k_norm, self.norms_heads = attention.q_norm, attention.k_norm, attention.norms_heads
        self.qkv = _joined(kind, attention.q_proj, attention.k_proj, attention.v_proj)
        self.o_proj = _joined(kind, attention.o_proj)

    def project(self, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, hidden) → query and key, rotated, and value, (B, T, their heads, head_dim) each."""
        if self.q_norm is not None or angles is None:
            return super().project(x, angles)
        joined = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        turned, v = joined.split((self.heads + self.kv_heads, self.kv_heads), dim=-2)
        q, k = rotate(turned, *angles).split((self.heads, self.kv_heads), dim=-2)
        return q, k, v

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, hidden) → query, key, value as the projection gives them, (B, T, their heads, head_dim) each."""
        joined = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        q, k, v = joined.split((self.heads, self.kv_heads, self.kv_heads), dim=-2)
        return q, k, v


class FusedFeedForward(FeedForward):
    """`FeedForward` with one projection for gate and up."""

    def __init__(self, layer: FeedForward, kind: LinearKind) -> None:
        nn.Module.__init__(self)
        self.act = layer.act
        self.gate_up = _joined(kind, layer.gate_proj, layer.up_proj)
        self.down_proj = _joined(kind, layer.down_proj)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., hidden) → gate, up, (..., intermediate) each."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return gate, up


@torch.no_grad()
def prepare_for_inference(decoder: Decoder) -> Decoder:
    """Replace the decoder's projections; returns the same object, in eval mode."""
    kind = _linear_kind(decoder)
    for block in decoder.model.layers:
        assert isinstance(block, Block)
        for name, part in list(block.named_children()):
            setattr(block, name, _prepared(part, kind))
    decoder.model.norm = _prepared(decoder.model.norm, kind)
    decoder.lm_head = _joined(kind, decoder.lm_head)  # pyright: ignore[reportAttributeAccessIssue]
    return decoder.eval().requires_grad_(False)


def _prepared(part: nn.Module, kind: LinearKind) -> nn.Module:
    """The quicker form of a block's part; the part itself where there is none."""
    if type(part) is RMSNorm:
        return StepNorm(part)
    if isinstance(part, Attention):
        return FusedAttention(part, kind)
    if isinstance(part, FeedForward):
        return FusedFeedForward(part, kind)
    if isinstance(part, PlainFeedForward):
        for name in ("up_proj", "down_proj"):
            setattr(part, name, _joined(kind, getattr(part, name)))
    if isinstance(part, MixtureOfExperts):
        part.experts = nn.ModuleList(_prepared(expert, kind) for expert in part.experts)
        if part.shared_expert is not None:
            part.shared_expert = FusedFeedForward(part.shared_expert, kind)
    return part


def _linear_kind(decoder: Decoder) -> LinearKind:
    """What this machine multiplies fastest with, in the decoder's precision."""
    weight = decoder.model.embed_tokens.weight
    if weight.device.type != "cpu":
        return Linear
    if weight.dtype == torch.bfloat16:
        return PackedLinear if preferred_dtype() == "bfloat16" else Linear
    if weight.dtype != torch.float32 or not torch.backends.mkl.is_available():
        return Linear
    free = facts().memory_available
    copy = sum(parameter.nbytes for parameter in decoder.parameters())
    return BatchLinear if free is None or copy < free / MEMORY_SHARE else Linear


def _joined(kind: LinearKind, *layers: nn.Linear) -> nn.Module:
    """One linear layer whose outputs are those of `layers`, side by side."""
    if len(layers) == 1:
        return kind(layers[0].weight.detach(), None if layers[0].bias is None else layers[0].bias.detach())
    weight = torch.cat([layer.weight.detach() for layer in layers])
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    return kind(weight, torch.cat(biases) if biases else None)
