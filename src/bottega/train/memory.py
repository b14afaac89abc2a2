"""What a training run needs in memory, by kind, from its config and the model's alone. Imports no torch.

    weights       what is trained, and the frozen base as it is kept
    gradients     of what is trained
    optimizer     its states
    activations   what autograd keeps of one part of a step (`activations.py`), and what its gradients pass through
    logits        one chunk of logits, the gradient of the head's input, and that of a trained head
    step          the optimiser's workspace (Muon)
    cache         keys and values of rollouts
    packed        the weights once more and twice while they are packed for rollouts

They are not all there at the same time. With one part a step, gradients come into being while activations go; where
parts are accumulated, gradients are there all along. When the optimiser steps, activations are gone. Answers are drawn
between steps, when neither is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from bottega.checkpoint.config import ModelConfig, places
from bottega.checkpoint.hub import locate
from bottega.core.plan import PROCESS_BYTES
from bottega.core.view import Table, human_bytes
from bottega.model.adapter_targets import low_rank_targets, row_modules, saved_modules, token_ids
from bottega.model.extend import added_tokens
from bottega.train.activations import Kept, backward_workspace, input_bytes, kept_bytes
from bottega.train.config import POLICY_STAGES, Train
from bottega.train.optimizer_names import OptimizerName
from bottega.train.optimizers.bytes import ParameterBytes, frozen_bytes, parameter_bytes
from bottega.train.sizes import CACHE_BLOCK, CHUNK_VALUES, ROLLOUT_BATCH, STACKED_VALUES

_DENSE = (".gate.weight", ".shared_expert_gate.weight")  # routers choose, and stay as they are
_MOST_PACKED = 1 << 30  # numbers of a model that rollouts pack without being asked


class Tensor(NamedTuple):
    """A trained tensor: its shape, and whether it stands in a block."""

    shape: tuple[int, ...]
    inside: bool

    @property
    def size(self) -> int:
        """Its numbers."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class Load:
    """What passes through the model at once.

    Attributes:
        tokens: of one part of a step.
        trained: of these, those whose logits are formed.
        context: about how long a document is.
        accumulates: whether a step has several parts.
        cached: tokens of an answer and its prompt at most, where the stage draws answers.
    """

    tokens: int
    trained: int
    context: int
    accumulates: bool = False
    cached: int = 0


@dataclass(frozen=True)
class TrainMemory:
    """Bytes by kind."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    step: int = 0
    cache: int = 0
    packed: int = 0
    again: int = 0
    """Of the activations, those that come into being when the logits have gone (checkpointing)."""
    accumulates: bool = False
    process: int = PROCESS_BYTES

    @property
    def total(self) -> int:
        """Peak of the process: what is always there, and the larger of what takes turns."""
        forward = self.activations + self.logits - min(self.again, self.logits)
        if self.accumulates:
            turns = self.gradients + max(forward, self.step)
        else:
            turns = max(forward, self.gradients + self.step)
        return self.process + self.weights + self.optimizer + self.cache + max(turns, self.packed)

    def as_data(self) -> dict[str, int]:
        """Bytes by kind, and `total`."""
        kinds = {name: value for name, value in asdict(self).items() if name not in ("accumulates", "again")}
        return kinds | {"total": self.total}

    def table(self) -> Table:
        """For people."""
        rows: list[tuple[Any, ...]] = [
            (name, human_bytes(value)) for name, value in self.as_data().items() if value and name != "total"
        ]
        rows.append(("at its highest", human_bytes(self.total)))
        return Table("Memory", ("", ""), rows, note="Estimates; not all at the same time (docs/planning.md).")


def train_memory(
    config: Train, model: ModelConfig, optimizer: OptimizerName, load: Load, dtype: str, *, device: str = "cpu"
) -> TrainMemory:
    """Estimate for one process, whose products are taken in `dtype`.

    Raises UserError where the adapter names modules that the model does not have.
    """
    kept = Kept.of(model, dtype, weights=config.weights, adapter=config.adapter)
    trained = trained_tensors(config, model)
    own = [_own_bytes(optimizer, tensor) for tensor in trained]
    weights = sum(each.weights for each in own) + frozen_base_bytes(config, model, dtype)
    activations = kept_bytes(model, kept, load.tokens, load.context, checkpointing=config.checkpointing)
    activations += backward_workspace(model, kept, load.tokens)
    inputs = input_bytes(model, kept, load.tokens) if config.checkpointing == "full" else 0
    step = muon_workspace(trained, 4 if dtype == "float32" else 2) if optimizer == "muon" else 0
    cache, packed = _rollout_bytes(config, model, kept, load, device)
    return TrainMemory(
        weights=weights,
        gradients=sum(each.gradients for each in own),
        optimizer=sum(each.states for each in own),
        activations=activations,
        logits=_head_bytes(config, model, kept, load),
        step=step,
        cache=cache,
        packed=packed,
        again=activations - inputs if config.checkpointing != "none" else 0,
        accumulates=load.accumulates,
    )


def trained_tensors(config: Train, model: ModelConfig) -> list[Tensor]:
    """Every tensor that is trained, as the decoder holds it."""
    found = _base_tensors(config, model) if config.adapter is None else _adapter_tensors(config, model)
    if config.stage in ("reward", "ppo"):
        found.append(Tensor((1, model.hidden_size), False))
    return found


def frozen_base_bytes(config: Train, model: ModelConfig, dtype: str) -> int:
    """Bytes of what is not trained of the base: all of it under an adapter."""
    adapter = config.adapter
    if adapter is None:
        return _idle_head(config, model) * (2 if config.weights == "bfloat16" else 4)
    item, total = 4 if dtype == "float32" else 2, 0
    for place in places(model):
        inside = place.part in ("attention", "feed_forward") and len(place.shape) == 2
        for name, shape in place.held_shapes().items():
            base = adapter.base if inside and not name.endswith(_DENSE) else "none"
            total += frozen_bytes(base, shape, item, double_quant=adapter.double_quant)
    if adapter.start is not None:  # what training goes on with stays as it was, for the reference
        total += sum(4 * tensor.size for tensor in _adapter_tensors(config, model))
    if adapter.init == "pissa":  # what the base gave up is remembered
        total += 4 * sum(target.rank * (target.inputs + target.outputs) for target in low_rank_targets(model, adapter))
    return total


def muon_workspace(trained: Iterable[Tensor], item: int) -> int:
    """Bytes that Muon needs beside its states, at `item` bytes a value: its largest batch of matrices of one shape.

    The batch is there three times (directions, iterate, next iterate), and its products x·xᵀ twice.
    """
    counts = Counter(tensor.shape for tensor in trained if tensor.inside and len(tensor.shape) == 2)
    most = 0
    for (rows, columns), count in counts.items():
        at_once = min(count, max(1, STACKED_VALUES // (rows * columns)))
        most = max(most, at_once * (3 * rows * columns + 2 * min(rows, columns) ** 2))
    return item * most


def _own_bytes(optimizer: OptimizerName, tensor: Tensor) -> ParameterBytes:
    """Weight, gradient and states of a trained tensor. Adapters are float32 with any optimiser that they can have."""
    whole = not (tensor.inside and len(tensor.shape) == 2)
    return parameter_bytes(
        optimizer, tensor.shape, bits=32 if whole and optimizer == "adamw8bit" else 0, inside=tensor.inside
    )


def _base_tensors(config: Train, model: ModelConfig) -> list[Tensor]:
    idle = _idle_head(config, model) > 0
    return [
        Tensor(shape, ".layers." in name)
        for place in places(model)
        for name, shape in place.held_shapes().items()
        if not (idle and place.part == "head")
    ]


def _idle_head(config: Train, model: ModelConfig) -> int:
    """Numbers of an output layer that a reward model does not use."""
    idle = config.stage == "reward" and not model.tie_word_embeddings
    return model.vocab_size * model.hidden_size if idle else 0


def _adapter_tensors(config: Train, model: ModelConfig) -> list[Tensor]:
    adapter, found = config.adapter, []
    assert adapter is not None
    for target in low_rank_targets(model, adapter):
        inside = not target.is_embedding
        if target.is_embedding:
            found += [Tensor((target.rank, target.outputs), False), Tensor((target.inputs, target.rank), False)]
            continue
        found.append(Tensor((target.rank, target.inputs), inside))
        for _, rows in target.place.holds:
            found.append(Tensor((rows, target.rank), inside))
            found += [Tensor((rows,), inside)] if adapter.use_dora else []
    is_auto = adapter.new_tokens == "auto" and config.model is not None and config.model.exists()
    added = added_tokens(locate(config.model)) if is_auto and config.model else ()
    ids = token_ids(model, adapter, added)
    found += [Tensor((len(ids), model.hidden_size), False) for _ in (row_modules(model) if ids else ())]
    for whole in saved_modules(model, adapter):
        for place in whole.places:
            found += [Tensor(shape, ".layers." in name) for name, shape in place.held_shapes().items()]
    return found


def _head_bytes(config: Train, model: ModelConfig, kept: Kept, load: Load) -> int:
    """Bytes from the last hidden states to the loss."""
    if config.stage == "reward":
        return 0
    rows = min(load.trained, max(16, CHUNK_VALUES // model.vocab_size))
    chunk = rows * model.vocab_size * ((4 if kept.product == 4 else 8) + (4 if config.stage in POLICY_STAGES else 0))
    states = 2 * load.trained * model.hidden_size * kept.product  # the head's input, and its gradient
    matrix = model.vocab_size * model.hidden_size
    head = config.adapter is None or any(name in ("lm_head", "embed_tokens") for name in config.adapter.modules_to_save)
    gradient = matrix * (2 if config.weights == "bfloat16" else 4) if head else 0
    return chunk + states + gradient + (2 * matrix if kept.casts else 0)


def _rollout_bytes(config: Train, model: ModelConfig, kept: Kept, load: Load, device: str) -> tuple[int, int]:
    """Keys and values of the answers that are written at once; and packed weights with a cache of their own."""
    if not load.cached:
        return 0, 0
    length = min(load.cached + CACHE_BLOCK, model.context_length)
    cache = model.kv_cache_bytes(ROLLOUT_BATCH * length, 1, kept.stream)
    parameters = model.parameter_count()
    quantised = config.adapter is not None and config.adapter.base != "none"
    packs = device == "cpu" and kept.stream == 4 and parameters <= _MOST_PACKED and not quantised
    return cache, 2 * 4 * parameters + cache if packs else 0
