"""What autograd keeps between a forward pass and its backward pass, from a model's config alone. Imports no torch.

Counted as the decoder's operations keep it, tensor by tensor (a test compares the count with the bytes that autograd
really holds). What is kept depends on what is trained: a product with a trained matrix keeps its input, one with a
frozen matrix keeps nothing, a change of low rank keeps the input for A and the narrow product for B. A norm keeps its
input always, and what its weight multiplies only where that weight is trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bottega.checkpoint.config import ModelConfig
from bottega.model.adapter_config import AdapterSettings
from bottega.model.adapter_targets import low_rank_targets, module_of

_INDICES = 16  # bytes of an expert's choice of one token: which token, and which of its places


class Group(NamedTuple):
    """Linear layers with one input: their names in the block, its width, and whether something else keeps it."""

    names: tuple[str, ...]
    inputs: int
    outputs: tuple[int, ...]
    kept_already: bool = False


@dataclass(frozen=True)
class Kept:
    """How a pass computes.

    Attributes:
        stream: bytes of a value between the layers.
        product: bytes of a value that goes into a product.
        base_trained: whether the base's own weights are trained.
        ranks: of the decoder's modules that an adapter changes.
        dropout: whether the adapter's inputs are dropped.
        dora: whether the adapter learns lengths.
    """

    stream: int
    product: int
    base_trained: bool = True
    ranks: Mapping[str, int] = field(default_factory=dict)
    dropout: bool = False
    dora: bool = False

    @classmethod
    def of(
        cls, config: ModelConfig, dtype: str, *, weights: str = "float32", adapter: AdapterSettings | None = None
    ) -> Kept:
        """Of a run whose products are taken in `dtype`; the base under an adapter is kept in it too."""
        narrow = dtype != "float32"
        if adapter is None:
            stream = 2 if weights == "bfloat16" else 4
            return cls(stream, 2 if narrow else stream)
        targets = low_rank_targets(config, adapter)
        ranks = {module_of(held): target.rank for target in targets for held, _ in target.place.holds}
        item = 2 if narrow else 4
        return cls(item, item, False, ranks, adapter.dropout > 0, adapter.use_dora)

    @property
    def casts(self) -> bool:
        """Whether each product narrows its input, and the weight, for itself (autocast over wide weights)."""
        return self.product < self.stream


def kept_bytes(config: ModelConfig, kept: Kept, tokens: int, context: int, *, checkpointing: str = "none") -> int:
    """Bytes that are held when the backward pass begins, of `tokens` tokens in documents of about `context`.

    Checkpointing keeps each layer's input; while one layer is computed again, its own are there too. With "offload"
    those inputs lie in the CPU's memory, and are not counted.
    """
    layers = [layer_bytes(config, kept, layer, context) for layer in range(config.num_hidden_layers)]
    ends = norm_bytes(config, kept, config.hidden_size) + 4 * 2 * _rotated(config)
    if not kept.base_trained:  # in front of the first adapter nothing has a gradient
        ends -= norm_bytes(config, kept, config.hidden_size)
    each = sum(layers)
    casts = 2 * _products(config) if kept.casts else 0
    if checkpointing != "none":
        inputs = input_bytes(config, kept, tokens) if checkpointing == "full" else 0
        return inputs + math.ceil(tokens * max(layers)) + casts // len(layers)
    return math.ceil(tokens * (each + ends)) + casts


def input_bytes(config: ModelConfig, kept: Kept, tokens: int) -> int:
    """Bytes of all layers' inputs, which is what checkpointing keeps."""
    return tokens * config.num_hidden_layers * config.hidden_size * kept.stream


def layer_bytes(config: ModelConfig, kept: Kept, layer: int, context: int) -> float:
    """Bytes a token that one layer keeps."""
    switches, prefix = config.switches, f"model.layers.{layer}"
    hidden, item = config.hidden_size, kept.product
    query = config.num_attention_heads * config.head_dim
    key = config.num_key_value_heads * config.head_dim
    norms = {"before": 2, "after": 2, "both": 4}[switches.placement] * norm_bytes(config, kept, hidden)
    if switches.query_key_norm != "none":
        norms += norm_bytes(config, kept, query) + norm_bytes(config, kept, key)
    attention = item * (2 * query + 2 * key) + 4 * config.num_attention_heads + _scores(config, kept, layer, context)
    attention += 4 * 2 * _rotated(config) if item == 2 else 0  # the angles, narrowed for queries and for keys
    groups = [
        Group(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), hidden, (query, key, key)),
        Group(("self_attn.o_proj",), query, (hidden,), kept_already=True),
    ]
    linear = sum(_group_bytes(kept, group, prefix) for group in groups)
    return norms + attention + linear + _feed_forward(config, kept, layer)


def norm_bytes(config: ModelConfig, kept: Kept, size: int) -> int:
    """Bytes a token that a norm over `size` channels keeps."""
    if config.switches.norm == "layer":
        return size * (4 if kept.product < 4 else kept.stream)
    wide = 4 * size  # the statistics are taken in float32
    if not kept.base_trained:
        return wide
    return wide + size * (kept.stream if config.switches.norm == "rms" else 4)


def backward_workspace(config: ModelConfig, kept: Kept, tokens: int) -> int:
    """Bytes of gradients that pass through the last layer while everything is still held."""
    widest = max((width for width, _ in _widths(config, config.num_hidden_layers - 1)), default=0)
    return tokens * (kept.product * widest + kept.stream * config.hidden_size)


def _feed_forward(config: ModelConfig, kept: Kept, layer: int) -> float:
    """Bytes a token of a layer's feed-forward part."""
    hidden, experts = config.hidden_size, config.switches.experts
    prefix, total = f"model.layers.{layer}", 0.0
    for width, share in _widths(config, layer):
        gated = config.switches.gated or experts is not None
        inner = (3 if gated else 1) * width * kept.product  # gate, act(gate), up; or what the activation reads
        into = ("mlp.gate_proj", "mlp.up_proj") if gated else ("mlp.up_proj",)
        groups = [Group(into, hidden, (width,) * len(into)), Group(("mlp.down_proj",), width, (hidden,))]
        linear = sum(_group_bytes(kept, group, prefix) for group in groups)
        total += share * (inner + linear)
    if experts is not None and experts.sparse[layer]:
        total += experts.per_token * (hidden * kept.product + _INDICES) + 8 * experts.count
    return total


def _widths(config: ModelConfig, layer: int) -> Iterator[tuple[int, float]]:
    """(width, how many a token passes) of a layer's feed-forward networks."""
    experts = config.switches.experts
    if experts is None or not experts.sparse[layer]:
        yield config.intermediate_size, 1
        return
    yield experts.intermediate_size, min(experts.per_token, experts.count)
    if experts.shared_intermediate_size:
        yield experts.shared_intermediate_size, 1


def _group_bytes(kept: Kept, group: Group, prefix: str) -> int:
    """Bytes a token that linear layers with one input keep."""
    if kept.base_trained:
        copies = 0 if group.kept_already else len(group.names) if kept.casts and len(group.names) > 1 else 1
        return copies * group.inputs * kept.product
    ranks = [kept.ranks.get(f"{prefix}.{name}", 0) for name in group.names]
    total = sum(ranks) * kept.product
    if kept.dropout:  # what is left of the input, and what it was multiplied by, apart for each
        total += 2 * group.inputs * kept.product * sum(rank > 0 for rank in ranks)
    elif any(ranks) and not group.kept_already:
        total += group.inputs * kept.product
    if kept.dora:
        total += kept.product * sum(size for size, rank in zip(group.outputs, ranks, strict=True) if rank)
    return total


def _scores(config: ModelConfig, kept: Kept, layer: int, context: int) -> float:
    """Bytes a token of scores that stand in memory, where attention is not the plain one."""
    switches = config.switches
    window = switches.windows[layer] if switches.windows else None
    if switches.score_cap is not None:
        narrow = kept.product if kept.product < 4 else 0  # the softmax is float32, what it weighs may be less
        return context * config.num_attention_heads * (kept.product + 4 + narrow)
    if switches.positions == "alibi":
        return context * config.num_attention_heads * kept.product
    return context * kept.product if window is not None and context > window else 0


def _rotated(config: ModelConfig) -> int:
    """Channels of a head that rotary positions turn."""
    return max((rope.dim for rope in config.switches.ropes.values()), default=0)


def _products(config: ModelConfig) -> int:
    """Numbers of the layers' matrices."""
    parts = config.parameters_by_part()
    return parts["attention"] + parts["feed_forward"]
