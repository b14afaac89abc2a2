"""The plan of `train`: what fits together, how many steps, how much memory and time. Imports no torch."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from bottega.checkpoint.adapter_base import AdapterBase, AdapterSpec
from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.hub import locate, locate_planned
from bottega.checkpoint.spec import ModelSpec
from bottega.core.errors import UserError
from bottega.core.machine import resolve_device, resolve_dtype
from bottega.core.plan import Check, Plan, Specs
from bottega.core.view import human_count
from bottega.data.config import ExampleOptions
from bottega.data.raw import is_prepared, plan_raw
from bottega.data.spec import TokensSpec
from bottega.model.adapter_targets import low_rank_targets, row_modules, saved_modules
from bottega.model.peft_config import started_settings, written_settings
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train.comparison_text import comparison_checks
from bottega.train.config import Train
from bottega.train.estimate import Certain, about, foresee
from bottega.train.launch.write import plan_launch
from bottega.train.preview import Preview, preview_raw, preview_tokens
from bottega.train.refusals import data_checks, model_checks, parallel_checks, policy_checks, start_checks
from bottega.train.settings import Settings, new_model_config, resolve

FORM_NAMES: dict[str | None, str] = {
    "text": "plain text", "chat": "conversations", "pairs": "pairs", "labelled": "judged answers", "prompts": "prompts",
}  # fmt: skip


def plan_train(config: Train, specs: Specs) -> Plan:
    """Check data, tokenizer and model against each other; resolve the settings; estimate the cost."""
    inputs, started = {"data": config.data}, list[Check]()
    if config.heldout:
        inputs["heldout"] = config.heldout
    if config.model:
        inputs["model"] = config.model
        model = specs.of(config.model, ModelSpec)
        # What is trained is kept in float32, whatever it was stored in before.
        architecture, tokenizer_hash = replace(model.config, dtype="float32"), model.tokenizer_hash
        licence, source, quantised = model.licence, config.model, model.quantised
        if config.adapter is not None and config.adapter.start is not None:
            inputs["started_from"] = locate_planned(config.adapter.start, specs)
            started = start_checks(config.model, config.adapter.start, specs)
            config = config.model_copy(update={"adapter": started_settings(config.adapter, architecture, specs)})
        tokenizer = specs.of(source if specs.is_predicted(source) else locate(source), TokenizerSpec)
    else:
        assert config.tokenizer is not None  # the config's own validation
        inputs["tokenizer"] = source = config.tokenizer
        tokenizer = specs.of(config.tokenizer, TokenizerSpec)
        special = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
        architecture = new_model_config(config, tokenizer.vocab_size, special, "float32")
        tokenizer_hash, licence, quantised = tokenizer.hash, None, ""
    folder = None if specs.is_predicted(source) else locate(source)
    scored_by = [path for each in config.rewards for path in each.files().values()]
    there = [path for path in scored_by if specs.is_predicted(path) or path.exists()]
    inputs |= {f"scored_by.{number}": path for number, path in enumerate(there)}
    data, preview, raw_checks = _data(config.data, config, specs, tokenizer, folder)
    settings = resolve(config, architecture, data)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    plan = Plan("train", config, config.out, inputs)
    plan.checks = [*started, *raw_checks, *_checks(config, data, architecture, tokenizer_hash)]
    if data.form == config.form and all(check.passed for check in raw_checks):  # else they have said it
        plan.checks += data_checks(config, settings, data, preview, tokenizer)
        plan.checks += policy_checks(config, settings, data, preview, architecture, tokenizer_hash, specs)
    if preview.refused and preview.examples:
        plan.checks.append(_refused(preview))
    plan.checks += model_checks(config, architecture, quantised, device, folder)
    plan.checks += parallel_checks(config, settings)
    if config.prompts and config.stage != "pretrain" and not tokenizer.has_template:
        detail = "the tokenizer has no chat template: they are plain text, as those of the data are"
        plan.checks.append(Check("prompts", True, detail))
    if licence or data.licence:
        detail = f"model: {licence or 'not stated'}; text: {data.licence or 'not stated'}"
        plan.checks.append(Check("licence", True, detail))
    if data.chat and data.longest > settings.row_length:
        detail = f"{settings.row_length} tokens; conversations of up to {data.longest} are cut there, before they end"
        plan.checks.append(Check("row length", True, detail))
    heldout_tokens = 0
    if config.heldout:
        heldout, _, raw_checks = _data(config.heldout, config, specs, tokenizer, folder)
        heldout_tokens = min(heldout.tokens, config.evaluate_tokens)
        plan.checks += [*raw_checks, *_heldout_checks(data, heldout)]
    for name in config.trackers:
        found = importlib.util.find_spec(name) is not None
        plan.checks.append(Check("trackers", found, f"{name} is {'' if found else 'not '}installed (bottega[track])"))
    if config.compares:
        inputs |= {"compare_text": config.compare_text} if config.compare_text else {}
        plan.checks += comparison_checks(config, specs, config.compared_tokens(settings.tokens))
    plan.details = {"settings": settings, "architecture": architecture, "dtype": dtype}
    plan.details |= {"licence": licence, "data_licence": data.licence}
    certain = Certain.of(settings, counted=data.exact or preview.whole)
    plan.work = _work(config, settings, architecture, data, dtype, certain)
    predicted = ModelSpec.predict(architecture, tokenizer_hash=tokenizer_hash)
    plan.produces = _produced(config, replace(predicted, licence=licence, tokenizer=tokenizer))
    foresee(plan, settings, architecture, data, dtype, device, heldout_tokens, certain)
    return plan if config.launch is None else plan_launch(plan)


def _produced(config: Train, model: ModelSpec) -> ModelSpec | AdapterSpec:
    """What stands in the run's folder for the steps behind it: the model, or an adapter (of a reward model both)."""
    if config.adapter is None or config.stage == "reward":
        return model
    left, architecture = written_settings(config.adapter), model.config
    base = AdapterBase(str(config.model), rounding=left.base, double_quant=left.double_quant, settings=left.as_data())
    names = [f"{each.name}.weight" for each in low_rank_targets(architecture, left)]
    names += [place.name for each in saved_modules(architecture, left) for place in each.places]
    names += row_modules(architecture) if left.new_tokens else []
    return AdapterSpec(base, frozenset(names), model.tokenizer)


def _data(
    path: Path, config: Train, specs: Specs, tokenizer: TokenizerSpec, folder: Path | None
) -> tuple[TokensSpec, Preview, list[Check]]:
    """What is trained on: a tokens folder, or examples that will be tokenised first, estimated from a sample of them.

    `folder` is the tokenizer's, None if it is yet to be made.
    """
    if specs.is_predicted(path):
        return specs.of(path, TokensSpec), Preview(), []
    if is_prepared(path):
        spec = specs.of(path, TokensSpec)
        return spec, preview_tokens(path, spec), []
    if not path.exists():
        raise UserError(f"there is no data at {path}", hint="Give a file or folder of examples, or a tokens folder.")
    raw = plan_raw(path, config.form, tokenizer)
    if folder is None:
        return raw.spec, Preview(), raw.checks
    options = ExampleOptions.parse(config.example_options, where="data")
    preview = preview_raw(path, config.form, Tokenizer.load(folder), options)
    return preview.refined(raw.spec), preview, raw.checks


def _refused(preview: Preview) -> Check:
    """What of the data will be left out, as far as the first rows tell."""
    reason, count = preview.refused.most_common(1)[0]
    refused = sum(preview.refused.values())
    why = reason if count == refused else f"{reason} ({count}), and other reasons"
    detail = f"{refused} of the first {preview.looked_at} rows cannot be used: {why}. bottega data check lists them all"
    return Check("examples", True, detail)


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
    empty = heldout.exact and not (heldout.trained_tokens or (heldout.form == "prompts" and heldout.documents))
    kind = "nothing to measure on" if empty else FORM_NAMES[heldout.form]
    return [
        Check("held-out tokenizer", same, "shared with the data" if same else "heldout was prepared with another one"),
        Check("held-out data", data.form == heldout.form and not empty, kind),
    ]


def _counted(number: str, what: str, ending: str) -> str:
    return f"{number} {what}{'' if number == '1' else ending}"


def _work(
    config: Train, settings: Settings, architecture: ModelConfig, data: TokensSpec, dtype: str, certain: Certain
) -> list[str]:
    if not settings.steps:
        return ["copy the model: there is nothing to train on"]
    start = f"start from {config.model}" if config.model else "make a new model"
    step, passes = f"{settings.rows_per_step} × {settings.row_length} tokens", settings.tokens / max(data.tokens, 1)
    if settings.examples_per_step:
        step = f"{settings.examples_per_step} {FORM_NAMES[data.form]}"
        taken = settings.steps * settings.examples_per_step / (config.policy.updates if config.rewards else 1)
        passes = taken / max(data.examples, 1)
    over = _counted(f"{passes:.2g}", "pass", "es") if passes < 100 else f"{passes:,.0f} passes (--epochs sets them)"
    return [
        f"{start}: {human_count(architecture.parameter_count())} parameters, {architecture.num_hidden_layers} layers, "
        f"width {architecture.hidden_size}",
        f"{about(_counted(f'{settings.steps:,}', 'step', 's'), certain.steps)} of {step} = "
        f"{about(human_count(settings.tokens), certain.tokens)} tokens, "
        f"{about(over, certain.passes)} over the data",
        f"{settings.optimizer}, peak rate {settings.learning_rate:.2g}, {config.schedule}, in {dtype}",
    ]
