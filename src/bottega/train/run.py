"""The run of `train`: read the data, build or load the model, train it, write what it leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bottega.checkpoint.hub import locate
from bottega.core.errors import UserError
from bottega.core.machine import measure, resolve_device, resolve_threads
from bottega.core.plan import Plan
from bottega.core.progress import Reporter
from bottega.core.ranks import follows
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Text
from bottega.data.batches import Batches
from bottega.data.examples import Examples
from bottega.data.raw import is_prepared, prepare_raw
from bottega.data.spec import TokensSpec
from bottega.model.load import DTYPES
from bottega.model.precision import cost_line, divergence, log_probabilities
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train.artefacts import sign_artefacts, stop_ids, write_artefacts, write_copy
from bottega.train.comparison import compare_tasks, compare_texts, joined_findings
from bottega.train.config import Train
from bottega.train.launch.write import write_launch
from bottega.train.loop import Between, fit
from bottega.train.parallel.enter import entered
from bottega.train.parallel.ranks import Ranks
from bottega.train.parallel_config import SHARDED
from bottega.train.samples import Samples, prompts_of
from bottega.train.settings import Settings, resolve, with_whole_pass
from bottega.train.stage import Forward, Machine
from bottega.train.stages.make import Setting, make_measure, make_stage, open_data
from bottega.train.stages.tokens import row_of
from bottega.train.state import Progress
from bottega.train.trainee import make_optimizers, make_trainee
from bottega.train.view import training_blocks


def run_train(plan: Plan, context: Context) -> Result:
    """Train as planned. OUT holds `model` or `adapter`, `metrics.jsonl`, and `samples.jsonl` if there are samples."""
    config = plan.config
    assert isinstance(config, Train)
    if config.launch is not None:
        return write_launch(config)
    torch.set_num_threads(resolve_threads(config.threads))
    if not plan.details["settings"].steps:
        return Result() if follows() else _copy(plan, context)
    with entered(config.parallel, torch.device(resolve_device(config.device)), config.clip) as ranks:
        return _train(plan, config, context, _machine(config, plan.details["dtype"], ranks))


def _train(plan: Plan, config: Train, context: Context, machine: Machine) -> Result:
    ranks = machine.ranks
    source = locate(config.model or config.tokenizer or "")
    tokenizer, architecture = Tokenizer.load(source), plan.details["architecture"]
    data = ranks.after_first(lambda: tokens_of(config.data, config, source, context.work / "data", context.reporter))
    settings = resolve(config, architecture, TokensSpec.read(data))
    model = make_trainee(config, architecture, machine)
    setting = Setting(settings, Forward(model, machine), tokenizer, context.work, context.reporter)
    opened = open_data(data, setting, seed=config.seed)
    if isinstance(opened, Batches):
        settings = with_whole_pass(settings, opened.epoch_rows, opened.fill)
        setting = Setting(settings, setting.forward, tokenizer, context.work, context.reporter)
    if config.stage == "sft":
        require_stops(opened, settings, stop_ids(tokenizer, architecture))
    stage = make_stage(opened, setting)
    samples = Samples(_prompts(config, opened, tokenizer), model, tokenizer, context.out, context.reporter)
    draws = bool(config.prompts) and ranks.is_first and config.parallel.strategy not in SHARDED
    between = Between(evaluate=_measure(config, setting, source), sample=samples.draw if draws else None)
    if ranks.is_first and not context.resumed:
        samples.draw(0)
    optimizers = ranks.adopt(make_optimizers(ranks.wrap(model), settings, machine))
    progress = fit(
        model, stage, optimizers, settings, machine, context.out, context.work, context.reporter, between
    )
    model = samples.model = ranks.unwrap(model)
    if not ranks.is_first:
        return Result()
    samples.draw(progress.step)
    found = _metrics(plan, progress, settings, opened)
    if config.dtype == "auto" and machine.dtype == torch.bfloat16 and isinstance(opened, Batches):
        ids = opened.rows(0, 1)[0].tokens[: settings.row_length].tolist()
        wide, narrow = (log_probabilities(model, ids, dtype) for dtype in (None, machine.dtype))
        found["bfloat16_kl"] = divergence(wide, narrow)
        context.reporter.say(cost_line(found["bfloat16_kl"]))
    del optimizers  # their states make room for the model that it is compared with
    if config.compares:
        model.zero_grad(set_to_none=True)
        heldout, tokens = _heldout(config, setting, source), config.compared_tokens(progress.tokens)
        found["comparison"] = compare_texts(config, model, tokenizer, heldout, tokens, context.reporter)
    write_artefacts(plan, context, model, tokenizer, found)
    if config.tasks:
        found["comparison"] = joined_findings(found["comparison"], compare_tasks(plan, context))
        sign_artefacts(plan, context, found)
    return Result(found, training_view(found, context.out, config.stage, config.out))


def tokens_of(data: Path, config: Train, tokenizer: Path, work: Path, reporter: Reporter) -> Path:
    """The tokens folder of `data`: itself, or made of a file or folder of examples below `work`."""
    if is_prepared(data):
        return data
    return prepare_raw(data, config.form, tokenizer, work, reporter=reporter, **config.example_options)


def require_stops(source: Batches | Examples, settings: Settings, stops: Sequence[int]) -> None:
    """Raise UserError unless something of the run trains one of `stops`: the model would never end its answer."""
    if isinstance(source, Batches):
        rows = min(source.epoch_rows, settings.steps * settings.rows_per_step)
        trained = (row.tokens[row.mask] for index in range(rows) for row in source.rows(index, 1))
    else:
        rows = min(source.count, settings.steps * settings.examples_per_step)
        trained = (row.tokens[row.mask] for row in (row_of(source, i) for i in source.order(0, rows)))
    wanted = set(stops)
    for tokens in trained:  # they are shuffled, so the first one settles it as a rule
        if not wanted.isdisjoint(tokens.tolist()):
            return
    hint = "Prepare the conversations with a chat template that ends the assistant's turn with a stop token."
    if source.truncated or source.dropped:
        longest = source.spec.longest
        hint = f"{settings.row_length} tokens cut their ends off: give row_length={longest}, or shorter conversations."
    raise UserError(f"no token that ends an answer is trained in {rows} rows of {source.folder}", hint=hint)


def _machine(config: Train, dtype: str, ranks: Ranks) -> Machine:
    device = torch.device(resolve_device(config.device))
    if device.type != "cpu":
        return Machine(device, DTYPES[dtype], None, ranks)
    rates = measure()
    return Machine(device, DTYPES[dtype], rates.bfloat16 if dtype == "bfloat16" else rates.float32, ranks)


def _measure(config: Train, setting: Setting, tokenizer: Path) -> Any:
    ranks = setting.forward.machine.ranks
    folder = ranks.after_first(lambda: _heldout_tokens(config, setting, tokenizer))
    return None if folder is None else make_measure(folder, setting)


def _heldout_tokens(config: Train, setting: Setting, tokenizer: Path) -> Path | None:
    if config.heldout is None:
        return None
    return tokens_of(config.heldout, config, tokenizer, setting.work / "heldout", setting.reporter)


def _heldout(config: Train, setting: Setting, tokenizer: Path) -> Batches | Examples | None:
    """The held-out data to compare on."""
    folder = _heldout_tokens(config, setting, tokenizer)
    return None if folder is None else open_data(folder, setting, seed=0)


def _prompts(config: Train, source: Batches | Examples, tokenizer: Tokenizer) -> list[Any]:
    if config.stage == "reward":
        return []
    return prompts_of(config.prompts, source, tokenizer, chat=config.stage != "pretrain")


def _copy(plan: Plan, context: Context) -> Result:
    reason = "there was nothing to train on: this is the model it started from, unchanged"
    data = {"steps": 0, "copied": True, "reason": reason}
    write_copy(plan, context, data)
    return Result(data, [Text(reason)])


def _metrics(plan: Plan, progress: Progress, settings: Settings, source: Batches | Examples) -> dict[str, Any]:
    last = progress.evaluations[-1][1] if progress.evaluations else None
    passes = progress.tokens / source.epoch_tokens if isinstance(source, Batches) else (
        progress.step * settings.examples_per_step / source.count
    )
    cut = {"conversations_truncated": source.truncated, "conversations_dropped": source.dropped}
    return {
        "steps": progress.step,
        "tokens": progress.tokens,
        "trained_tokens": progress.trained_tokens,
        "parameters": plan.details["architecture"].parameter_count(),
        "passes": round(passes, 3),
        "loss": progress.guard.recent[-1] if progress.guard.recent else math.nan,
        "heldout_loss": last if progress.best_loss is None else progress.best_loss,  # of the weights that are kept
        "skipped_steps": progress.guard.skipped,
        "stopped_early": progress.stopped_early,
        "seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        "learning_rate": settings.learning_rate,
        "row_length": settings.row_length,
        "tokens_per_step": settings.rows_per_step * settings.row_length,
        "data": {name: getattr(source.spec, name) for name in ("form", "examples", "tokens", "trained_tokens")},
        **({"examples_per_step": settings.examples_per_step} if settings.examples_per_step else {}),
        **(cut if source.spec.form != "text" else {}),
    }


def training_view(data: dict[str, Any], folder: Path, stage: str, place: Path) -> list[Block]:
    """What the terminal shows of the run in `folder`, which will be `place`."""
    return training_blocks(data, folder, stage=stage, place=place, whole=False)
