"""A decoder made ready to generate: fewer, larger products, and weights laid out for the machine.

Query, key and value become one product, gate and up another. On a CPU the weights are packed once:

    float32    panels for kernels.c, which multiplies any number of rows, each as if it were alone
    bfloat16   the same panels at half the memory. The numbers are widened as they are read and everything else is
               float32, so that a bfloat16 checkpoint gives what it would in float32. Where the processor multiplies
               bfloat16 itself, oneDNN's layout instead, with everything in bfloat16
    int8/int4  panels of whole numbers with scales, if asked for: the nearest to the weights, which is not the same

The result generates; it is not to be trained or saved.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bottega.core.errors import UserError
from bottega.core.machine import preferred_dtype
from bottega.model.attention import Attention
from bottega.model.decoder import Block, Decoder
from bottega.model.experts import MixtureOfExperts
from bottega.model.feed_forward import ACTIVATIONS, FeedForward, PlainFeedForward
from bottega.model.kernels import library
from bottega.model.kernels.library import GROUP, Activation, WeightFormat
from bottega.model.kernels.packing import fits, pack
from bottega.model.norm import OffsetRMSNorm, RMSNorm
from bottega.model.rope import rotate

IN_KERNEL: dict[str, Activation] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_bloom": "gelu_bloom",
}
"""The activations that kernels.c has; the others are exact, a number at a time."""


class KernelLinear(nn.Module):
    """`nn.Linear` over packed weights, float32 in and out; CPU, inference only."""

    def __init__(self, weight: Tensor, bias: Tensor | None, format_: WeightFormat) -> None:
        super().__init__()
        if not fits(format_, weight.shape[1]):
            raise UserError(
                f"a layer of this model has rows of {weight.shape[1]} weights, and {format_} scales {GROUP} at a time",
                hint="Use --weights bfloat16.",
            )
        self.packed = pack(weight, format_)
        self.bias = None if bias is None else bias.float()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        packed = self.packed
        return library.linear(packed.format, x, packed.weight, packed.scales, self.bias, packed.outputs)


class PackedLinear(nn.Module):
    """`nn.Linear` over bfloat16 weights in oneDNN's own layout; CPU, inference only."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        if x.numel() == x.shape[-1]:  # one row takes another kernel, whose last bits differ: let there be two
            x = torch.cat((x, torch.zeros_like(x)), dim=-2)
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")[..., :1, :]
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Linear(nn.Module):
    """`nn.Linear` without the parameter machinery."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        return F.linear(x, self.weight, self.bias)


class Layers:
    """How a decoder's parts are replaced: which product, and whether kernels.c computes the small things."""

    def __init__(self, decoder: Decoder, weights: WeightFormat | None) -> None:
        weight = decoder.model.embed_tokens.weight
        on_cpu = weight.device.type == "cpu"
        native = on_cpu and weight.dtype == torch.bfloat16 and preferred_dtype() == "bfloat16" and weights is None
        plain = weight.dtype in (torch.float32, torch.bfloat16)
        self.onednn = native
        self.kernels = on_cpu and library.available() and plain and not native
        if weights is not None and not self.kernels:
            raise UserError(
                f"--weights {weights} needs the CPU, its compiled kernels, and weights read in float32 or bfloat16",
                hint="Use --device cpu without --dtype, and install with a C compiler (`bottega doctor` tells of it).",
            )
        self.format: WeightFormat = weights or ("bfloat16" if weight.dtype == torch.bfloat16 else "float32")

    def product(self, *layers: nn.Linear, format_: WeightFormat | None = None) -> nn.Module:
        """One linear layer whose outputs are those of `layers`, side by side."""
        weight = layers[0].weight.detach() if len(layers) == 1 else torch.cat([each.weight.detach() for each in layers])
        biases = [each.bias.detach() for each in layers if each.bias is not None]
        bias = torch.cat(biases) if biases else None
        if self.kernels:
            return KernelLinear(weight, bias, format_ or self.format)
        return PackedLinear(weight, bias) if self.onednn else Linear(weight, bias)

    def head(self, layer: nn.Linear) -> nn.Module:
        """The product behind the last layer: four bits are too few for what chooses among all tokens."""
        return self.product(layer, format_="int8" if self.format == "int4" else None)

    def activation(self, act: Callable[[Tensor], Tensor]) -> Activation | None:
        """What kernels.c calls it; None if it is not computed there."""
        return next((name for key, name in IN_KERNEL.items() if self.kernels and ACTIVATIONS[key] is act), None)

    def norm(self, norm: nn.Module) -> nn.Module:
        """A norm in one operation; other norms as they are."""
        return (
            KernelNorm(norm) if self.kernels and isinstance(norm, RMSNorm) else norm.float() if self.kernels else norm
        )


class KernelNorm(nn.Module):
    """`RMSNorm` of any spelling (they differ in bfloat16 alone), float32."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight.detach().float().contiguous(), norm.eps
        self.offset = 1.0 if isinstance(norm, OffsetRMSNorm) else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) → (..., size)."""
        return library.rms_norm(x, self.weight, self.eps, self.offset)


class FusedAttention(Attention):
    """`Attention` with one projection for query, key and value."""

    def __init__(self, attention: Attention, layers: Layers) -> None:
        nn.Module.__init__(self)
        self.layer, self.heads, self.kv_heads = attention.layer, attention.heads, attention.kv_heads
        self.head_dim, self.rope, self.rule = attention.head_dim, attention.rope, attention.rule
        self.norms_heads, self.in_kernel = attention.norms_heads, layers.kernels
        self.q_norm = None if attention.q_norm is None else layers.norm(attention.q_norm)
        self.k_norm = None if attention.k_norm is None else layers.norm(attention.k_norm)
        self.qkv = layers.product(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o_proj = layers.product(attention.o_proj)

    def project(self, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, hidden) → query and key, rotated, and value, (B, T, their heads, head_dim) each."""
        if self.q_norm is not None or angles is None:
            return super().project(x, angles)
        if self.in_kernel and len(x) == 1:
            return library.split_rotate(self.qkv(x), *angles, self.heads, self.kv_heads, self.head_dim)
        joined = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        turned, v = joined.split((self.heads + self.kv_heads, self.kv_heads), dim=-2)
        q, k = rotate(turned, *angles).split((self.heads, self.kv_heads), dim=-2)
        return q, k, v

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`rope.rotate`, in the kernel where it can."""
        return library.rotate(x, cos, sin) if self.in_kernel and len(x) == 1 else super().turn(x, cos, sin)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, hidden) → query, key, value as the projection gives them, (B, T, their heads, head_dim) each."""
        joined = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        q, k, v = joined.split((self.heads, self.kv_heads, self.kv_heads), dim=-2)
        return q, k, v


class FusedFeedForward(FeedForward):
    """`FeedForward` with one projection for gate and up."""

    def __init__(self, layer: FeedForward, layers: Layers) -> None:
        nn.Module.__init__(self)
        self.act = layer.act
        self.gate_up = layers.product(layer.gate_proj, layer.up_proj)
        self.down_proj = layers.product(layer.down_proj)
        self.in_kernel: Activation | None = layers.activation(layer.act)

    def forward(self, x: Tensor) -> Tensor:
        """Gate, widen, narrow."""
        if self.in_kernel is not None:
            return self.down_proj(library.activate(self.in_kernel, self.gate_up(x), gated=True))
        return super().forward(x)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., hidden) → gate, up, (..., intermediate) each."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return gate, up


def _sigmoid(x: Tensor) -> Tensor:
    return library.activate("sigmoid", x)


@torch.no_grad()
def prepare_for_inference(decoder: Decoder, weights: WeightFormat | None = None) -> Decoder:
    """Replace the decoder's projections and norms; returns the same object, in eval mode.

    `weights` is what to keep them as (None: as they are). Raises UserError where they cannot be packed so.
    """
    layers = Layers(decoder, weights)
    for block in decoder.model.layers:
        assert isinstance(block, Block)
        for name, part in list(block.named_children()):
            setattr(block, name, _prepared(part, layers))
    decoder.model.norm = layers.norm(decoder.model.norm)
    if decoder.model.embed_norm is not None:
        decoder.model.embed_norm = layers.norm(decoder.model.embed_norm)
    decoder.lm_head = layers.head(decoder.lm_head)  # pyright: ignore[reportAttributeAccessIssue]
    if layers.kernels:
        decoder.activations = torch.float32
    return decoder.eval().requires_grad_(False)


def _prepared(part: nn.Module, layers: Layers) -> nn.Module:
    """The quicker form of a block's part; the part itself where there is none."""
    if isinstance(part, Attention):
        return FusedAttention(part, layers)
    if isinstance(part, FeedForward):
        return FusedFeedForward(part, layers)
    if isinstance(part, PlainFeedForward):
        for name in ("up_proj", "down_proj"):
            setattr(part, name, layers.product(getattr(part, name)))
        if (act := layers.activation(part.act)) is not None:
            part.act = partial(library.activate, act)
        return part
    if isinstance(part, MixtureOfExperts):
        part.experts = nn.ModuleList(_prepared(expert, layers) for expert in part.experts)
        exact = "float32" if layers.format == "float32" else "bfloat16"  # a router decides: it is not rounded
        part.gate = layers.product(part.gate, format_=exact)  # pyright: ignore[reportAttributeAccessIssue]
        if part.shared_expert is not None and part.shared_expert_gate is not None:
            part.shared_expert = FusedFeedForward(part.shared_expert, layers)
            part.shared_expert_gate = layers.product(part.shared_expert_gate, format_=exact)  # pyright: ignore[reportAttributeAccessIssue]
            if layers.kernels:
                part.sigmoid = _sigmoid
        return part
    return layers.norm(part)
