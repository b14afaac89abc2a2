"""Adapters in a decoder: put them on, switch them, and take from them what PEFT's files hold.

`add_adapter` freezes the base and replaces the modules that the settings name by adapted ones (`low_rank.py`,
`trained_rows.py`); the decoder's own code knows nothing of it. Names of tensors and keys of the config are those of
huggingface/peft, on modules named as in the family's own checkpoints. A PiSSA adapter leaves as an ordinary one of
twice the rank, [B, -B₀] [A; A₀], which fits the untouched base.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bottega.checkpoint.adapter import module_in_files
from bottega.checkpoint.layout import HEAD, Place
from bottega.core.errors import UserError
from bottega.model.adapter_config import AdapterSettings
from bottega.model.adapter_targets import (
    Target,
    Whole,
    low_rank_targets,
    module_of,
    row_modules,
    saved_modules,
    token_ids,
)
from bottega.model.decoder import Decoder
from bottega.model.low_rank import Adapted, LoRAEmbedding, LoRALinear, LowRank, Switch, dense_weight, wide
from bottega.model.peft_config import peft_config
from bottega.model.principal import principal_part
from bottega.model.trained_rows import TrainedModule, TrainedRows

PREFIX = "base_model.model."
STARTED = "-started"  # no name that a user can give ends so
A = TypeVar("A", bound=Adapted)


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter on a decoder consists of. `trainable` and `total` count numbers, `total` with the base's."""

    settings: AdapterSettings
    targets: tuple[Target, ...]
    whole: tuple[Whole, ...]
    ids: tuple[int, ...]
    trainable: int
    total: int

    @property
    def name(self) -> str:
        """Its name among those on the decoder."""
        return self.settings.name


class Adapters(Switch):
    """The adapters of one decoder by name, and which is active."""

    def __init__(self) -> None:
        super().__init__()
        self.infos: dict[str, AdapterInfo] = {}


def add_adapter(
    decoder: Decoder, settings: AdapterSettings, generator: torch.Generator, *, added: Sequence[int] = ()
) -> AdapterInfo:
    """Freeze the base, put an adapter on it and make it the active one; the model computes what it did.

    Args:
        decoder: with its weights, and quantised already if its base is to be.
        settings: what to adapt; `name` must be new on this decoder.
        generator: draws the A matrices.
        added: ids that `new_tokens: auto` stands for.

    Raises:
        UserError: if the settings name what the model does not have, or what another adapter holds in another way.
    """
    config, adapters = decoder.config, adapters_of(decoder) or Adapters()
    targets, whole = low_rank_targets(config, settings), saved_modules(config, settings)
    ids = token_ids(config, settings, added)
    if settings.name in adapters.infos:
        raise UserError(f"the decoder has an adapter {settings.name!r} already", hint="Give the other one a name.")
    if not adapters.infos:
        decoder.requires_grad_(False)
        decoder.activations = decoder.dtype
    with torch.no_grad():
        for target in targets:
            _add_low_rank(decoder, target, settings, adapters, generator)
    _add_rows(decoder, settings.name, ids, adapters)
    for each in whole:
        _add_whole(decoder, settings.name, each, adapters)
    own = sum(parameter.numel() for _, parameter in _named(decoder, settings.name))
    info = AdapterInfo(settings, tuple(targets), tuple(whole), ids, own, config.parameter_count() + own)
    adapters.infos[settings.name] = info
    activate(decoder, settings.name)
    decoder.train(decoder.training)  # new modules begin in training
    return info


def adapters_of(decoder: Decoder) -> Adapters | None:
    """The adapters on a decoder; None if there are none."""
    for module in decoder.modules():
        if isinstance(module, Adapted):
            assert isinstance(module.switch, Adapters)
            return module.switch
    return None


def adapter_info(decoder: Decoder, name: str | None = None) -> AdapterInfo:
    """What the adapter `name` (default: the active one) consists of. Raises UserError if there is none."""
    adapters = adapters_of(decoder) or Adapters()
    chosen = name or adapters.active
    if chosen is None or chosen not in adapters.infos:
        known = ", ".join(adapters.infos) or "none"
        raise UserError(f"the decoder has no adapter {chosen or ''!r}", hint=f"It has {known}.")
    return adapters.infos[chosen]


def activate(decoder: Decoder, name: str | None) -> None:
    """Apply the adapter `name` from now on, and train it and no other; None: no adapter."""
    adapters = adapters_of(decoder)
    if adapters is None or (name is not None and name not in adapters.infos):
        raise UserError(f"the decoder has no adapter {name!r}")
    for each in adapters.infos:
        for _, parameter in _named(decoder, each):
            parameter.requires_grad_(each == name)
    adapters.active = name


def adapter_off(decoder: Decoder) -> AbstractContextManager[None]:
    """While open, the decoder computes what it did before any adapter was put on it: the reference model."""
    adapters = adapters_of(decoder)
    return nullcontext() if adapters is None else adapters.set(None)


def keep_start(decoder: Decoder, name: str) -> None:
    """Put a copy of the adapter beside it, which is never trained: what training that goes on with it began with."""
    info = adapter_info(decoder, name)
    started = info.settings.model_copy(update={"name": name + STARTED})
    add_adapter(decoder, started, torch.Generator().manual_seed(0), added=info.ids)
    copies, own = adapter_parameters(decoder, started.name), adapter_parameters(decoder, name)
    with torch.no_grad():
        for copy, parameter in zip(copies.values(), own.values(), strict=True):
            copy.copy_(parameter)
    activate(decoder, name)


def as_started(decoder: Decoder) -> AbstractContextManager[None]:
    """While open, the decoder computes what it did before its training: without its adapter, or with it as it began."""
    adapters = adapters_of(decoder)
    if adapters is None:
        return nullcontext()
    started = f"{adapters.active}{STARTED}"
    return adapters.set(started if started in adapters.infos else None)


def adapter_on(decoder: Decoder, name: str) -> AbstractContextManager[None]:
    """While open, the decoder computes with the adapter `name`."""
    adapters = adapters_of(decoder)
    assert adapters is not None and adapter_info(decoder, name)
    return adapters.set(name)


def adapter_parameters(decoder: Decoder, name: str | None = None) -> dict[str, nn.Parameter]:
    """What is trained of the adapter `name` (default: the active one), each once, by the decoder's names."""
    return dict(_named(decoder, adapter_info(decoder, name).name))


def learning_rate_factors(decoder: Decoder, name: str | None = None) -> dict[str, float]:
    """What each of `adapter_parameters` has its learning rate multiplied by: B by LoRA+'s ratio, the others by 1.

    LoRA+: Hayou et al. 2024, arXiv:2402.12354.
    """
    ratio = adapter_info(decoder, name).settings.lora_plus_ratio
    return {key: ratio if key.endswith(".B") else 1.0 for key in adapter_parameters(decoder, name)}


def adapter_tensors(decoder: Decoder, name: str | None = None) -> dict[str, Tensor]:
    """The tensors of an adapter's file by PEFT's names, on the CPU."""
    info = adapter_info(decoder, name)
    found: dict[str, Tensor] = {}
    for target in info.targets:
        found |= _low_rank_tensors(decoder, target, info.name)
    for tensor in row_modules(decoder.config) if info.ids else ():
        rows = _rows_module(decoder, tensor).rows[info.name]
        module = module_in_files(decoder.config, module_of(tensor))
        found[f"{module}.token_adapter.trainable_tokens_delta"] = rows
    for each in info.whole:
        found |= _whole_tensors(decoder, each, info.name)
    return {f"{PREFIX}{key}": tensor.detach().cpu().contiguous().clone() for key, tensor in found.items()}


def merged_weights(decoder: Decoder) -> dict[str, Tensor]:
    """The decoder's parameters by the names that they have without adapters, the active adapter within them.

    Tensors that no adapter changes are the decoder's own; a tied head has no entry.
    """
    found: dict[str, Tensor] = {}
    for path, module in decoder.named_modules():
        if isinstance(module, Adapted):
            found[f"{path}.weight"] = module.weight.detach()
            if module.bias is not None:
                found[f"{path}.bias"] = module.bias.detach()
        elif not any(part in path.split(".") for part in ("base", "adapters", "copies", "rows")):
            if callable(getattr(module, "dense_weight", None)):
                found[f"{path}.weight"] = dense_weight(module).detach()
            found |= {f"{path}.{key}": value.detach() for key, value in module.named_parameters(recurse=False)}
    if decoder.config.tie_word_embeddings:
        found.pop(HEAD, None)
    return found


def adapter_config(decoder: Decoder, base_name: str, name: str | None = None) -> dict[str, Any]:
    """The content of `adapter_config.json` as PEFT writes it; `base_name` is a folder, or org/name of the hub."""
    info = adapter_info(decoder, name)
    return peft_config(decoder.config, info.settings, info.targets, info.whole, info.ids, base_name)


def row_order(place: Place) -> Place:
    """A place whose rows are cut as the family's fused matrix is, whatever way round the matrix is stored."""
    return replace(place, form="stacked") if place.form == "transposed" else place


def _named(decoder: Decoder, name: str) -> Iterator[tuple[str, nn.Parameter]]:
    seen: set[int] = set()
    for path, module in decoder.named_modules():
        if isinstance(module, LoRALinear):
            change = module.change(name)
            parts = [] if change is None else [(f"adapters.{name}.{key}", p) for key, p in change.named_parameters()]
        elif isinstance(module, TrainedRows):
            parts = [(f"rows.{name}", module.rows[name])] if name in module.rows else []
        elif isinstance(module, TrainedModule):
            made = module.copies[name].named_parameters() if name in module.copies else ()
            parts = [(f"copies.{name}.{key}", p) for key, p in made]
        else:
            continue
        for key, parameter in parts:
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{path}.{key}", parameter


def _adapted(decoder: Decoder, path: str, kind: type[A], adapters: Adapters) -> A:
    """The adapted module at `path`, made if it is the first time."""
    module = decoder.get_submodule(path)
    if isinstance(module, Adapted) and type(module) is not kind:
        raise UserError(f"{path} is adapted in another way already", hint="One module can be changed in one way only.")
    if not isinstance(module, kind):
        module = kind(module, adapters)
        decoder.set_submodule(path, module)
    return module


def _add_low_rank(
    decoder: Decoder, target: Target, settings: AdapterSettings, adapters: Adapters, generator: torch.Generator
) -> None:
    paths = [module_of(held) for held, _ in target.place.holds]
    kind = LoRAEmbedding if target.is_embedding else LoRALinear
    modules = [_adapted(decoder, path, kind, adapters) for path in paths]
    weight = dense_weight(modules[0].base)
    dtype, device = wide(weight.dtype), weight.device
    down = nn.Parameter(torch.empty(target.rank, target.outputs if target.is_embedding else target.inputs))
    if target.is_embedding:  # PEFT begins with A at zero and B drawn, as an embedding picks columns of A
        down.zero_()
        ups = [torch.empty(target.inputs, target.rank).normal_(generator=generator)]
    else:
        down.uniform_(-(bound := 1 / math.sqrt(target.inputs)), bound, generator=generator)
        ups = [torch.zeros(rows, target.rank) for _, rows in target.place.holds]
    down = nn.Parameter(down.data.to(device, dtype))
    changes = [LowRank(down, nn.Parameter(up.to(device, dtype)), target.scale, settings.dropout) for up in ups]
    for module, change in zip(modules, changes, strict=True):
        if settings.use_dora and not target.is_embedding:
            change.magnitude = nn.Parameter(change.lengths(module.untouched()))
        module.adapters[settings.name] = change
    if settings.init == "pissa" and not target.is_embedding:
        _begin_principal(target, modules, changes, settings, generator)


def _begin_principal(
    target: Target,
    modules: Sequence[LoRALinear],
    changes: Sequence[LowRank],
    settings: AdapterSettings,
    generator: torch.Generator,
) -> None:
    """PiSSA: the matrix's own greatest directions become A and B; the base keeps the rest."""
    if any(not isinstance(module.base, nn.Linear) for module in modules):
        raise UserError(
            f"pissa takes a part of {target.name} away, which is quantised already", hint="Use base: none with it."
        )
    if target.rank > min(target.inputs, target.outputs):
        raise UserError(f"{target.name} has no {target.rank} singular directions for pissa", hint="Give a smaller r.")
    place = row_order(target.place)
    parts = {held: dense_weight(module.base) for (held, _), module in zip(place.holds, modules, strict=True)}
    up, down = principal_part(place.pack(parts), target.rank, settings.pissa_iterations, generator)
    root = math.sqrt(target.scale)
    changes[0].A.copy_(down / root)  # one parameter for all of them
    for change, part in zip(changes, place.unpack(up / root).values(), strict=True):
        change.B.copy_(part)
    for module, change in zip(modules, changes, strict=True):
        change.keep_first()
        base = dense_weight(module.base)
        base.sub_(change.scale * (change.B @ change.A))


def _add_rows(decoder: Decoder, name: str, ids: Sequence[int], adapters: Adapters) -> None:
    """Rows of the embedding and of the head; of a tied head they are the embedding's."""
    if not ids:
        return
    embedding = _adapted(decoder, "model.embed_tokens", TrainedRows, adapters)
    head = _adapted(decoder, "lm_head", TrainedRows, adapters)
    rows = embedding.add(name, ids)
    head.add(name, ids, rows if decoder.config.tie_word_embeddings else None)


def _add_whole(decoder: Decoder, name: str, whole: Whole, adapters: Adapters) -> None:
    for path in whole.paths:
        made = _adapted(decoder, path, TrainedModule, adapters).add(name)
        if path == "model.embed_tokens" and decoder.config.tie_word_embeddings:
            head = _adapted(decoder, "lm_head", TrainedModule, adapters).add(name)
            head.weight = made.weight


def _low_rank_tensors(decoder: Decoder, target: Target, name: str) -> dict[str, Tensor]:
    file_name = module_in_files(decoder.config, target.name)
    modules = [decoder.get_submodule(module_of(held)) for held, _ in target.place.holds]
    changes = [module.change(name) for module in modules if isinstance(module, LoRALinear)]
    parts = [change for change in changes if change is not None]
    if target.is_embedding:
        return {f"{file_name}.lora_embedding_A": parts[0].A, f"{file_name}.lora_embedding_B": parts[0].B}
    place = row_order(target.place)
    names = [held for held, _ in place.holds]
    down, ups = parts[0].A, [part.B for part in parts]
    if parts[0].has_first:
        down = torch.cat([down, parts[0].first_down])
        ups = [torch.cat([part.B, -part.first_up], dim=1) for part in parts]
    found = {
        f"{file_name}.lora_A.weight": down,
        f"{file_name}.lora_B.weight": place.pack(dict(zip(names, ups, strict=True))),
    }
    lengths = [part.magnitude for part in parts if part.magnitude is not None]
    if lengths:
        found[f"{file_name}.lora_magnitude_vector"] = place.pack(dict(zip(names, lengths, strict=True)))
    return found


def _whole_tensors(decoder: Decoder, whole: Whole, name: str) -> dict[str, Tensor]:
    config = decoder.config
    found: dict[str, Tensor] = {}
    for place in whole.places:
        parts: dict[str, Tensor] = {}
        for held, _ in place.holds:
            module = decoder.get_submodule(module_of(held))
            assert isinstance(module, TrainedModule)
            parts[held] = module.copies[name].get_parameter(held.rpartition(".")[2]).detach()
        module, _, kind = place.name.rpartition(".")
        found[f"{module_in_files(config, module)}.{kind}"] = place.pack(parts)
        if config.tie_word_embeddings and place.name == config.family.embedding:
            found[HEAD] = found[place.name]
    return found


def _rows_module(decoder: Decoder, tensor: str) -> TrainedRows:
    path = "model.embed_tokens" if tensor == decoder.config.family.embedding else "lm_head"
    module = decoder.get_submodule(path)
    assert isinstance(module, TrainedRows)
    return module
