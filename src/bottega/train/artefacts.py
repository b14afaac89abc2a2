"""What a run leaves: `model` (a model folder) or `adapter` (PEFT's layout), with tokenizer and card.

A reward model trained as an adapter is written both ways: rewards are asked of a folder of its own.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bottega.checkpoint.adapter import Adapter
from bottega.checkpoint.adapter_base import AdapterBase, read_base
from bottega.checkpoint.adapter_writer import adapter_card, write_adapter
from bottega.checkpoint.card import CARD_FILE, write_card
from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.header import ADAPTER_WEIGHTS, read_header
from bottega.checkpoint.hub import locate
from bottega.checkpoint.writer import write_model_files, write_tensors
from bottega.core.atomic import write_text
from bottega.core.plan import Plan
from bottega.core.verb import Context
from bottega.model.decoder import Decoder
from bottega.model.load import stored_tensors
from bottega.model.lora import adapter_config, adapter_tensors, merged_weights
from bottega.model.reward import SCORE, reward_settings, reward_tensors
from bottega.tokenizer.files import write_tokenizer
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train.card import applicable, card_text
from bottega.train.config import Train
from bottega.train.state import weights_of
from bottega.train.trainee import VALUE_HEAD

MODEL_FOLDER, ADAPTER_FOLDER = "model", "adapter"


def write_artefacts(plan: Plan, context: Context, model: Decoder, tokenizer: Tokenizer, data: dict[str, Any]) -> None:
    """Write everything that the run leaves below its folder."""
    config = plan.config
    assert isinstance(config, Train)
    _clear(context)
    if config.adapter is not None:
        _write_adapter(plan, context, model, data)
    if config.adapter is None or config.stage == "reward":
        weights = weights_of(model) if config.adapter is None else merged_weights(model)
        weights = {name: tensor.cpu() for name, tensor in weights.items() if not name.startswith(VALUE_HEAD)}
        _write_model(plan, context, weights, tokenizer, data)


def write_copy(plan: Plan, context: Context, data: dict[str, Any]) -> None:
    """Write the model that was started from, unchanged."""
    config = plan.config
    assert isinstance(config, Train) and config.model is not None
    _clear(context)
    source, folder = ModelFolder.open(config.model), context.out / MODEL_FOLDER
    write_tensors(folder, {name: tensor.load() for name, tensor in source.tensors.items()})
    write_tokenizer(source.path, folder)
    write_model_files(folder, source.config, generation=source.generation_config)
    _sign(folder, plan, context, source.config, data)


def _clear(context: Context) -> None:
    """Remove what a run that was killed while it wrote has left."""
    for name in (MODEL_FOLDER, ADAPTER_FOLDER):
        shutil.rmtree(context.out / name, ignore_errors=True)


def sign_artefacts(plan: Plan, context: Context, data: dict[str, Any]) -> None:
    """Write cards and records again, with what was measured of the artefacts since they were written."""
    folder = context.out / MODEL_FOLDER
    if folder.is_dir():
        _sign(folder, plan, context, ModelFolder.open(folder).config, data)
    folder = context.out / ADAPTER_FOLDER
    if folder.is_dir():
        adapter = Adapter.open(folder)
        numbers = sum(math.prod(tensor.info.shape) for tensor in read_header(folder / ADAPTER_WEIGHTS).values())
        card = adapter_card(adapter.config, read_base(adapter), card_text(plan, data), numbers)
        write_text(folder / CARD_FILE, card)
        context.record(data).write(folder)


def stop_ids(tokenizer: Tokenizer, config: ModelConfig) -> list[int]:
    """Every token that ends an answer."""
    return sorted(tokenizer.stop_ids) or list(config.eos_token_id)


def _write_model(
    plan: Plan, context: Context, weights: dict[str, Tensor], tokenizer: Tokenizer, data: dict[str, Any]
) -> None:
    config, architecture, folder = plan.config, plan.details["architecture"], context.out / MODEL_FOLDER
    assert isinstance(config, Train)
    source = config.model or config.tokenizer
    assert source is not None
    stops = stop_ids(tokenizer, architecture)
    generation = {"eos_token_id": stops if len(stops) != 1 else stops[0]} if stops else {}
    if config.stage == "reward":
        pad = tokenizer.pad_id if tokenizer.pad_id is not None else tokenizer.eos_id
        extra = reward_settings(architecture.family.architecture, pad)
        write_tensors(folder, reward_tensors(architecture, weights))
    else:
        extra = {}
        architecture = replace(architecture, dtype=config.weights)
        write_tensors(folder, stored_tensors(architecture, weights))
    write_tokenizer(locate(source), folder)
    write_model_files(folder, architecture, generation=generation, extra=extra)
    _sign(folder, plan, context, architecture, data)


def _sign(folder: Path, plan: Plan, context: Context, architecture: ModelConfig, data: dict[str, Any]) -> None:
    """Card and record: what leaves the run's folder says of itself what it is."""
    assert isinstance(plan.config, Train)
    record = context.record(data)
    write_card(folder, architecture, card_text(plan, data), replace(record, config=applicable(plan.config)))
    record.write(folder)


def _write_adapter(plan: Plan, context: Context, model: Decoder, data: dict[str, Any]) -> None:
    config, folder = plan.config, context.out / ADAPTER_FOLDER
    assert isinstance(config, Train) and config.model is not None and config.adapter is not None
    # PEFT opens a model's own folder, not that of the run that it lies in.
    base_name = str(locate(config.model)) if config.model.is_dir() else str(config.model)
    tensors, written = adapter_tensors(model), adapter_config(model, base_name)
    if config.stage == "reward":  # as PEFT keeps the head of a classifier
        tensors[f"base_model.model.{SCORE}"] = model.state_dict()[SCORE].cpu()
        written |= {"task_type": "SEQ_CLS", "modules_to_save": [*(written.get("modules_to_save") or ()), "score"]}
    base = AdapterBase.of(config.model, config.adapter.as_data(), base_name)
    write_adapter(folder, tensors, written, base, card_text(plan, data))
    write_tokenizer(locate(config.model), folder)
    context.record(data).write(folder)
