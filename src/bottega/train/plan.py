"""The plan of `train`: what fits together, how many steps, how much memory and time. Imports no torch."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.hub import locate
from bottega.checkpoint.spec import ModelSpec
from bottega.core.errors import UserError
from bottega.core.machine import measure, memory_check, resolve_device, resolve_dtype, resolve_threads
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.view import human_count
from bottega.data.raw import is_prepared, plan_raw
from bottega.data.spec import TokensSpec
from bottega.tokenizer.spec import TokenizerSpec
from bottega.train.config import Train
from bottega.train.launch.write import plan_launch
from bottega.train.memory import train_memory
from bottega.train.settings import Settings, flops_per_token, new_model_config, resolve

# Share of the measured rate of matrix products that a training step reaches: EFFICIENCY for a wide
# model, half of it at HALF_WIDTH channels (docs/benchmarks.md). The rest goes to norms, softmax,
# rotation, and products too small to fill the machine.
EFFICIENCY, HALF_WIDTH = 0.75, 120
STARTUP_SECONDS = 4.0
FORM_NAMES = {
    "text": "plain text", "chat": "conversations", "pairs": "pairs", "labelled": "judged answers", "prompts": "prompts",
}  # fmt: skip


def plan_train(config: Train, specs: Specs) -> Plan:
    """Check data, tokenizer and model against each other; resolve the settings; estimate the cost."""
    inputs = {"data": config.data}
    if config.heldout:
        inputs["heldout"] = config.heldout
    if config.model:
        inputs["model"] = config.model
        model = specs.of(config.model, ModelSpec)
        # What is trained is kept in float32, whatever it was stored in before.
        architecture, tokenizer_hash = replace(model.config, dtype="float32"), model.tokenizer_hash
        licence, source = model.licence, config.model
        tokenizer = specs.of(source if specs.is_predicted(source) else locate(source), TokenizerSpec)
    else:
        assert config.tokenizer is not None  # the config's own validation
        inputs["tokenizer"] = source = config.tokenizer
        tokenizer = specs.of(config.tokenizer, TokenizerSpec)
        special = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
        architecture = new_model_config(config, tokenizer.vocab_size, special, "float32")
        tokenizer_hash, licence = tokenizer.hash, None
    data, raw_checks = _data(config.data, config, specs, tokenizer)
    settings = resolve(config, architecture, data)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    plan = Plan("train", config, config.out, inputs)
    plan.checks = [*raw_checks, *_checks(config, data, architecture, tokenizer_hash)]
    if licence or data.licence:
        detail = f"model: {licence or 'not stated'}; text: {data.licence or 'not stated'}"
        plan.checks.append(Check("licence", True, detail))
    if data.chat and data.longest > settings.row_length:
        detail = f"{settings.row_length} tokens; conversations of up to {data.longest} are cut there, before they end"
        plan.checks.append(Check("row length", True, detail))
    if config.heldout:
        heldout, raw_checks = _data(config.heldout, config, specs, tokenizer)
        plan.checks += [*raw_checks, *_heldout_checks(data, heldout)]
    for name in config.trackers:
        found = importlib.util.find_spec(name) is not None
        plan.checks.append(Check("trackers", found, f"{name} is {'' if found else 'not '}installed (bottega[track])"))
    plan.details = {"settings": settings, "architecture": architecture, "dtype": dtype}
    plan.details |= {"licence": licence, "data_licence": data.licence}
    plan.work = _work(config, settings, architecture, data, dtype)
    predicted = ModelSpec.predict(architecture, tokenizer_hash=tokenizer_hash)
    plan.produces = replace(predicted, licence=licence, tokenizer=tokenizer)
    plan.cost = _cost(settings, architecture, data, dtype, device)
    plan.checks.append(memory_check(plan.cost.peak_memory or 0))
    return plan if config.launch is None else plan_launch(plan)


def _data(path: Path, config: Train, specs: Specs, tokenizer: TokenizerSpec) -> tuple[TokensSpec, list[Check]]:
    """What is trained on: a tokens folder, or examples that will be tokenised first, estimated from a sample of them."""
    if specs.is_predicted(path) or is_prepared(path):
        return specs.of(path, TokensSpec), []
    if not path.exists():
        raise UserError(f"there is no data at {path}", hint="Give a file or folder of examples, or a tokens folder.")
    raw = plan_raw(path, config.form, tokenizer)
    return raw.spec, raw.checks


def _checks(config: Train, data: TokensSpec, architecture: ModelConfig, tokenizer_hash: str) -> list[Check]:
    fits = data.vocab_size <= architecture.vocab_size
    same = not data.tokenizer_hash or not tokenizer_hash or data.tokenizer_hash == tokenizer_hash
    checks = [
        Check("vocabulary", fits, f"data {data.vocab_size}, model {architecture.vocab_size}"),
        Check("tokenizer", same, "data and model share it" if same else "the data was prepared with another one"),
    ]
    if data.documents or not data.exact:
        checks.append(Check("data", data.form == config.form, f"{config.stage} on {FORM_NAMES[data.form]}"))
    if not data.documents and data.exact:
        allowed = config.when_empty == "copy"
        checks.append(Check("data", allowed, "no documents: the model is copied unchanged" if allowed else "is empty"))
    elif data.exact and config.form != "prompts":
        checks.append(Check("trained tokens", data.trained_tokens > 0, human_count(data.trained_tokens)))
    return checks


def _heldout_checks(data: TokensSpec, heldout: TokensSpec) -> list[Check]:
    """A loss on other tokens, or on another kind of text, would be no measure of this training."""
    hashes = data.tokenizer_hash, heldout.tokenizer_hash  # empty where it is not known before the run
    same = not all(hashes) or hashes[0] == hashes[1]
    empty = heldout.exact and not (heldout.trained_tokens or heldout.form == "prompts" and heldout.documents)
    kind = "nothing to measure on" if empty else FORM_NAMES[heldout.form]
    return [
        Check("held-out tokenizer", same, "shared with the data" if same else "heldout was prepared with another one"),
        Check("held-out data", data.form == heldout.form and not empty, kind),
    ]


def _work(config: Train, settings: Settings, architecture: ModelConfig, data: TokensSpec, dtype: str) -> list[str]:
    if not settings.steps:
        return ["copy the model: there is nothing to train on"]
    start = f"start from {config.model}" if config.model else "make a new model"
    step = f"{settings.rows_per_step} × {settings.row_length} tokens"
    if settings.examples_per_step:
        step = f"{settings.examples_per_step} {FORM_NAMES[data.form]}"
    return [
        f"{start}: {human_count(architecture.parameter_count())} parameters, {architecture.num_hidden_layers} layers, "
        f"width {architecture.hidden_size}",
        f"{settings.steps} steps of {step} = {human_count(settings.tokens)} tokens, "
        f"{settings.tokens / max(data.tokens, 1):.2g} passes over the data",
        f"{settings.optimizer}, peak rate {settings.learning_rate:.2g}, {config.schedule}, in {dtype}",
    ]


def _cost(settings: Settings, architecture: ModelConfig, data: TokensSpec, dtype: str, device: str) -> Cost:
    parameters = architecture.parameter_count()
    flops = flops_per_token(architecture, settings.row_length) * settings.tokens
    rates = measure(threads=resolve_threads(settings.config.threads))
    rate = rates.bfloat16 if dtype == "bfloat16" else rates.float32
    step_tokens = settings.rows_per_step * settings.row_length
    step_tokens = step_tokens or settings.tokens // max(settings.steps, 1)
    at_once = max(settings.row_length, min(settings.config.micro_batch_tokens, step_tokens))
    memory = train_memory(architecture, at_once, settings.optimizer, dtype)
    seconds = STARTUP_SECONDS + flops / (efficiency(architecture.hidden_size) * rate)
    return Cost(
        bytes_read=data.tokens * 2 + (4 * parameters if settings.config.model else 0),
        bytes_written=4 * parameters * 4,
        peak_memory=memory.total,
        flops=flops,
        seconds=seconds if device == "cpu" else None,  # only the CPU's rates are measured
    )


def efficiency(width: int) -> float:
    """Share of the machine's rate of matrix products that training a model of this width reaches."""
    return EFFICIENCY * width / (width + HALF_WIDTH)
