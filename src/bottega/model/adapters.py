"""Several low-rank adapters on one model at the same time, each on its own rows of a batch (S-LoRA, Chen et al. 2023).

A row's output is W x + s · B (A x) with the A and B of its request's adapter; rows without one are as if there were
none. What one adapter's rows give does not depend on the others'. (An adapter for everything is cheaper put on the
weights: `ModelFolder.open(model, adapters)`.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor, nn

from bottega.checkpoint.adapter import Adapter
from bottega.checkpoint.layout import LLAMA_ROWS
from bottega.core.errors import UserError
from bottega.model.decoder import Block, Decoder
from bottega.model.inference import FusedFeedForward, KernelLinear, Linear
from bottega.model.kernels import library


@dataclass
class AdapterRows:
    """Which rows of the present step belong to which adapter; the adapted layers of one decoder share it."""

    names: list[str] = field(default_factory=list)
    spans: list[tuple[slice, str]] = field(default_factory=list)

    def begin(self, owners: Sequence[tuple[str | None, int]]) -> None:
        """A step's rows: whose they are and how many, in order."""
        self.spans, start = [], 0
        for name, count in owners:
            if name is not None:
                self.spans.append((slice(start, start + count), name))
            start += count


@dataclass(frozen=True)
class LowRank:
    """A change of the outputs from `offset` on: `up(down(x))`, the scale within `up`."""

    offset: int
    down: nn.Module
    up: nn.Module


class AdaptedLinear(nn.Module):
    """A linear layer with the changes of several adapters."""

    def __init__(self, base: nn.Module, rows: AdapterRows) -> None:
        super().__init__()
        self.base, self.rows = base, rows
        self.changes: dict[str, list[LowRank]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """(1, N, in) → (1, N, out); N as in the step."""
        out = self.base(x)
        for rows, name in self.rows.spans:
            for change in self.changes.get(name, ()):
                changed = change.up(change.down(x[..., rows, :]))
                out[..., rows, change.offset : change.offset + changed.shape[-1]] += changed
        return out


@dataclass(frozen=True)
class _Target:
    """Where the tensor of a file went: outputs `offset` … `offset + outputs` of a layer with `inputs` inputs."""

    owner: nn.Module
    attribute: str
    offset: int
    outputs: int
    inputs: int


def attach(decoder: Decoder, adapters: Mapping[str, Adapter]) -> AdapterRows:
    """Put adapters on a decoder that is prepared for inference. Raises UserError, naming what cannot be so applied."""
    rows, targets = AdapterRows(list(adapters)), _targets(decoder)
    for label, adapter in adapters.items():
        for name in (*adapter.replaced, *adapter.rows):
            _refuse(label, name, "is replaced, as a whole or in some rows")
        for name, change in adapter.changes.items():
            target = targets.get(decoder.config.family.proper_name(name))
            if target is None:
                _refuse(label, name, "is not one of the projections of attention or of a dense feed-forward layer")
            if set(change.parts) != {"lora_A.weight", "lora_B.weight"}:
                _refuse(label, name, "is changed by more than a product of low rank (DoRA)")
            down, up = change.parts["lora_A.weight"].load().float(), change.parts["lora_B.weight"].load().float()
            if (down.shape, up.shape) != ((change.rank, target.inputs), (target.outputs, change.rank)):
                _refuse(label, name, f"has shapes {list(up.shape)} and {list(down.shape)}, which do not fit the model")
            layer = getattr(target.owner, target.attribute)
            if not isinstance(layer, AdaptedLinear):
                layer = AdaptedLinear(layer, rows)
                setattr(target.owner, target.attribute, layer)
            low_rank = LowRank(target.offset, _linear(down, decoder), _linear(up * change.scale, decoder))
            layer.changes.setdefault(label, []).append(low_rank)
    return rows


def _targets(decoder: Decoder) -> dict[str, _Target]:
    """The projections by the names that Llama's files have for them; none in families that lay theirs out otherwise."""
    config, found = decoder.config, {}
    if config.family.rows is not LLAMA_ROWS:
        return {}
    hidden, wide = config.hidden_size, config.intermediate_size
    query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    for number, block in enumerate(decoder.model.layers):
        assert isinstance(block, Block)
        name = f"model.layers.{number}"
        attention, mlp = block.self_attn, block.mlp
        found[f"{name}.self_attn.q_proj.weight"] = _Target(attention, "qkv", 0, query, hidden)
        found[f"{name}.self_attn.k_proj.weight"] = _Target(attention, "qkv", query, key, hidden)
        found[f"{name}.self_attn.v_proj.weight"] = _Target(attention, "qkv", query + key, key, hidden)
        found[f"{name}.self_attn.o_proj.weight"] = _Target(attention, "o_proj", 0, hidden, query)
        if isinstance(mlp, FusedFeedForward):
            found[f"{name}.mlp.gate_proj.weight"] = _Target(mlp, "gate_up", 0, wide, hidden)
            found[f"{name}.mlp.up_proj.weight"] = _Target(mlp, "gate_up", wide, wide, hidden)
            found[f"{name}.mlp.down_proj.weight"] = _Target(mlp, "down_proj", 0, hidden, wide)
    return found


def _linear(weight: Tensor, decoder: Decoder) -> nn.Module:
    if decoder.device.type == "cpu" and library.available() and decoder.dtype == torch.float32:
        return KernelLinear(weight, None, "float32")
    return Linear(weight.to(decoder.device, decoder.dtype), None)


def _refuse(label: str, name: str, problem: str) -> NoReturn:
    raise UserError(
        f"the adapter {label} cannot be used beside others: {name} {problem}",
        hint="Put it on the whole model instead: one `--adapter`, or merge it.",
    )
