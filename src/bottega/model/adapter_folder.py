"""From a decoder to an adapter's folder in PEFT's layout, and from such a folder onto a decoder, to go on training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bottega.checkpoint.adapter import Adapter, own_name
from bottega.checkpoint.adapter_base import AdapterBase
from bottega.checkpoint.adapter_writer import write_adapter
from bottega.checkpoint.card import CardText
from bottega.checkpoint.config import places
from bottega.core.errors import UserError
from bottega.model.adapter_config import AdapterSettings
from bottega.model.adapter_targets import Target, module_of
from bottega.model.decoder import Decoder
from bottega.model.lora import (
    AdapterInfo,
    adapter_config,
    adapter_info,
    adapter_tensors,
    add_adapter,
    keep_start,
    row_order,
)  # fmt: skip
from bottega.model.low_rank import LoRALinear
from bottega.model.peft_config import continued_settings
from bottega.model.trained_rows import TrainedModule, TrainedRows
from bottega.tokenizer.files import write_tokenizer


def save_adapter(
    decoder: Decoder,
    folder: Path,
    base: Path | str,
    *,
    name: str | None = None,
    text: CardText | None = None,
    tokenizer: Path | None = None,
) -> None:
    """Write the adapter `name` (default: the active one) into `folder`, which PEFT, transformers and vLLM open.

    Args:
        decoder: the adapter on its base.
        folder: made if it is not there.
        base: the model folder, or org/name of the hub, that the decoder was loaded from.
        name: one of several adapters.
        text: for the card.
        tokenizer: folder whose tokenizer goes with the adapter, where it has got new tokens or a chat template.
    """
    info = adapter_info(decoder, name)
    origin = AdapterBase.of(base, info.settings.as_data(), str(base))
    title = CardText(folder.resolve().name, f"A low-rank adapter for {Path(str(base)).name}, trained with bottega.")
    tensors = adapter_tensors(decoder, info.name)
    write_adapter(folder, tensors, adapter_config(decoder, str(base), info.name), origin, text or title)
    if tokenizer is not None:
        write_tokenizer(tokenizer, folder)


def load_adapter_into(
    decoder: Decoder, adapter: Path | str, *, name: str = "default", settings: AdapterSettings | None = None
) -> AdapterInfo:
    """Put a PEFT adapter on a decoder with its base's weights, active and ready to be trained on.

    A copy of it stays beside it as what training starts from (`lora.as_started`). `settings` are those of its training
    (default: `continued_settings`). Raises UserError if it does not fit, or holds what is not trained here.
    """
    opened = Adapter.open(adapter)
    settings = settings or continued_settings(opened, decoder.config, name)
    info = add_adapter(decoder, settings, torch.Generator().manual_seed(0))
    with torch.no_grad():
        fill_adapter(decoder, opened, info)
    keep_start(decoder, info.name)
    return info


def fill_adapter(decoder: Decoder, adapter: Adapter, info: AdapterInfo) -> None:
    """Copy the tensors of an opened adapter into the one that stands on the decoder. Raises UserError."""
    config = decoder.config
    changes = {own_name(config, key): change for key, change in adapter.changes.items()}
    for target in info.targets:
        change = changes[f"{target.name}.weight"]
        parts = {kind.removesuffix(".weight"): tensor.load() for kind, tensor in change.parts.items()}
        _fill_low_rank(decoder, target, info, parts, adapter)
    for key, rows in adapter.rows.items():
        path = "model.embed_tokens" if own_name(config, key) == config.family.embedding else "lm_head"
        module = decoder.get_submodule(path)
        assert isinstance(module, TrainedRows)
        order = torch.tensor(rows.ids).argsort()  # ours stand in the order of the ids
        _copy(module.rows[info.name], rows.rows.load()[order], key, adapter)
    saved = {own_name(config, key): adapter.replaced[key] for key in adapter.saved}
    for place in places(config):
        if place.name not in saved:
            continue
        for held, part in place.unpack(_fitting(saved[place.name].load(), place.shape, place.name, adapter)).items():
            module = decoder.get_submodule(module_of(held))
            assert isinstance(module, TrainedModule)
            module.copies[info.name].get_parameter(held.rpartition(".")[2]).copy_(part)


def _fill_low_rank(
    decoder: Decoder, target: Target, info: AdapterInfo, parts: dict[str, Tensor], adapter: Adapter
) -> None:
    """Copy one matrix's change, cut into the decoder's modules."""
    place, rank = row_order(target.place), target.rank
    changes = []
    for held, _ in place.holds:
        module = decoder.get_submodule(module_of(held))
        assert isinstance(module, LoRALinear)
        change = module.change(info.name)
        assert change is not None
        changes.append(change)
    if target.is_embedding:
        _copy(changes[0].A, parts["lora_embedding_A"], target.name, adapter)
        _copy(changes[0].B, parts["lora_embedding_B"], target.name, adapter)
        return
    _copy(changes[0].A, parts["lora_A"], target.name, adapter)
    up = place.unpack(_fitting(parts["lora_B"], (target.outputs, rank), target.name, adapter))
    for change, rows in zip(changes, up.values(), strict=True):
        change.B.copy_(rows)
    if info.settings.use_dora:
        lengths = _fitting(parts["lora_magnitude_vector"], (target.outputs,), target.name, adapter)
        for change, rows in zip(changes, place.unpack(lengths).values(), strict=True):
            assert change.magnitude is not None
            change.magnitude.copy_(rows)


def _copy(parameter: nn.Parameter, values: Tensor, name: str, adapter: Adapter) -> None:
    parameter.copy_(_fitting(values, tuple(parameter.shape), name, adapter))


def _fitting(values: Tensor, shape: tuple[int, ...], name: str, adapter: Adapter) -> Tensor:
    if tuple(values.shape) != shape:
        raise UserError(
            f"{adapter.path}: {name} has a tensor of the shape {list(values.shape)}, not {list(shape)}",
            hint=f"It was made for {adapter.base_model or 'another model'}.",
        )
    return values
