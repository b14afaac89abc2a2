"""The run of `train`: build or load the model, train it, write the model folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bottega.checkpoint.card import CardText, write_card
from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.writer import write_model_files, write_tensors
from bottega.core.errors import UserError
from bottega.core.machine import measure, resolve_device, resolve_threads
from bottega.core.plan import Plan
from bottega.core.progress import Reporter
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Table, Text, human_count
from bottega.data.batches import Batches
from bottega.generate.generator import Generator
from bottega.generate.sampling import Sampling
from bottega.model.decoder import Decoder
from bottega.model.load import DTYPES, load_decoder, stored_tensors
from bottega.model.precision import cost_line, divergence, log_probabilities
from bottega.tokenizer.files import write_tokenizer
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train.batch import collate
from bottega.train.config import Train
from bottega.train.loop import Between, Machine, fit, mean_loss
from bottega.train.metrics import METRICS_FILE, loss_chart
from bottega.train.settings import Settings, with_whole_pass
from bottega.train.state import Progress, weights_of

CUT = (
    "Longer than a row of {row_length} tokens: {conversations_truncated} conversations, which were cut there and do "
    "not teach how they end, and {conversations_dropped}, which were dropped because nothing to train was left."
)


def run_train(plan: Plan, context: Context) -> Result:
    """Train as planned; the out folder is a model folder with `metrics.jsonl` beside the weights."""
    config, settings = plan.config, plan.details["settings"]
    assert isinstance(config, Train)
    torch.set_num_threads(resolve_threads(config.threads))
    machine = _machine(config, plan.details["dtype"])
    source = config.model or config.tokenizer
    assert source is not None
    if not settings.steps:
        return _copy(plan, config, context)
    model = _model(config, plan.details["architecture"], machine)
    batches = Batches(config.data, row_length=settings.row_length, seed=config.seed)
    settings = with_whole_pass(settings, batches.epoch_rows)
    tokenizer = Tokenizer.load(source)
    if config.stage == "sft":
        require_stops(batches, settings, _stop_ids(tokenizer, plan.details["architecture"]))
    between = Between(
        evaluate=_evaluation(config, settings, model, machine),
        sample=_sampling(config, model, tokenizer, context.reporter),
    )
    progress = fit(model, batches, settings, machine, context.out, context.work, context.reporter, between)
    data = _metrics(progress, settings, batches, model.config)
    if config.dtype == "auto" and machine.dtype == torch.bfloat16:
        ids = batches.rows(0, 1)[0].tokens[: settings.row_length].tolist()
        wide, narrow = (log_probabilities(model, ids, dtype) for dtype in (None, machine.dtype))
        data["bfloat16_kl"] = divergence(wide, narrow)
        context.reporter.say(cost_line(data["bfloat16_kl"]))
    _write_model(context.out, model, plan.details["architecture"], source, tokenizer)
    _write_card(plan, config, context, plan.details["architecture"], data)
    if config.prompts and between.sample:
        between.sample(progress.step)
    return Result(data, _view(data, context.out))


def require_stops(batches: Batches, settings: Settings, stop_ids: Sequence[int]) -> None:
    """Raise UserError unless some row of the run trains one of `stop_ids`: the model would never end its answer."""
    wanted = torch.tensor(stop_ids, dtype=torch.int64)
    rows = min(batches.epoch_rows, settings.steps * settings.rows_per_step)
    for index in range(rows):  # rows are shuffled, so the first one settles it as a rule
        if torch.isin(collate(batches.rows(index, 1)).targets, wanted).any():
            return
    longest, length = batches.spec.longest, settings.row_length
    hint = "Prepare the conversations with a chat template that ends the assistant's turn with a stop token."
    if batches.truncated or batches.dropped:
        hint = f"Rows of {length} tokens cut their ends off: give row_length={longest}, or shorter conversations."
    raise UserError(f"no token that ends an answer is trained in {rows} rows of {batches.folder}", hint=hint)


def _machine(config: Train, dtype: str) -> Machine:
    device = torch.device(resolve_device(config.device))
    if device.type != "cpu":
        return Machine(device, DTYPES[dtype], None)
    rates = measure()
    return Machine(device, DTYPES[dtype], rates.bfloat16 if dtype == "bfloat16" else rates.float32)


def _model(config: Train, architecture: ModelConfig, machine: Machine) -> Decoder:
    """The decoder to train, its weights in float32 whatever the precision of the products."""
    if config.model:
        return load_decoder(config.model, device=machine.device)
    model = Decoder(architecture).initialise(torch.Generator().manual_seed(config.seed))
    return model.to(machine.device)


def _evaluation(config: Train, settings: Settings, model: Decoder, machine: Machine) -> Callable[[], float] | None:
    if config.heldout is None:
        return None
    heldout = Batches(config.heldout, row_length=settings.row_length, seed=0)
    rows = heldout.rows(0, min(heldout.epoch_rows, max(1, config.evaluate_tokens // settings.row_length)))
    return lambda: mean_loss(model, rows, machine, config.micro_batch_tokens)


def _sampling(config: Train, model: Decoder, tokenizer: Tokenizer, reporter: Reporter) -> Callable[[int], None] | None:
    """Show what the model says to each prompt; the texts do not enter the result."""
    if not config.prompts:
        return None
    generator = Generator(model, tokenizer)

    def sample(step: int) -> None:
        for prompt in config.prompts:
            ids = generator.prompt_ids(prompt, chat=config.stage == "sft")
            text = generator.complete(ids, Sampling(max_new_tokens=48, temperature=0.0)).text
            reporter.say(f"  step {step} · {prompt!r} → {text!r}")

    return sample


def _copy(plan: Plan, config: Train, context: Context) -> Result:
    assert config.model is not None
    folder = ModelFolder.open(config.model)
    write_tensors(context.out, {name: tensor.load() for name, tensor in folder.tensors.items()})
    write_tokenizer(config.model, context.out)
    write_model_files(context.out, folder.config, generation=folder.generation_config)
    reason = "there was nothing to train on: this is the model it started from, unchanged"
    data = {"steps": 0, "copied": True, "reason": reason}
    _write_card(plan, config, context, folder.config, data)
    return Result(data, [Text(reason)])


def _write_card(plan: Plan, config: Train, context: Context, model: ModelConfig, data: dict[str, Any]) -> None:
    lines = [f"Tokens: {config.data.name}, prepared with `bottega data prepare`."]
    if plan.details["data_licence"]:
        lines.append(f"Licence of the text: {plan.details['data_licence']}.")
    if data.get("conversations_truncated") or data.get("conversations_dropped"):
        lines.append(CUT.format(**data))
    what = "pre-trained" if config.stage == "pretrain" else "fine-tuned on conversations"
    text = CardText(
        title=config.out.name,
        summary=f"A small language model, {what} with bottega." if not data.get("copied") else data["reason"],
        licence=plan.details["licence"],
        data=lines,
        base_model=_base_name(config.model) if config.model else None,
        limits=["It is small and was trained for minutes: what it says may be wrong. Check before you rely on it."],
    )
    write_card(context.out, model, text, context.record(data))


def _base_name(model: Path) -> str:
    """The name of the model that was started from: a folder's own, without where it lies, or org/name of the hub."""
    return model.resolve().name if model.exists() else str(model).partition("@")[0]


def _write_model(folder: Path, model: Decoder, config: ModelConfig, source: Path, tokenizer: Tokenizer) -> None:
    write_tensors(folder, stored_tensors(config, {name: tensor.cpu() for name, tensor in weights_of(model).items()}))
    stops = _stop_ids(tokenizer, config)
    generation = {"eos_token_id": stops if len(stops) != 1 else stops[0]} if stops else {}
    write_tokenizer(source, folder)
    write_model_files(folder, config, generation=generation)


def _stop_ids(tokenizer: Tokenizer, config: ModelConfig) -> list[int]:
    return sorted(tokenizer.stop_ids) or list(config.eos_token_id)


def _metrics(progress: Progress, settings: Settings, batches: Batches, config: ModelConfig) -> dict[str, Any]:
    last = progress.evaluations[-1][1] if progress.evaluations else None
    cut = {"conversations_truncated": batches.truncated, "conversations_dropped": batches.dropped}
    return {
        "steps": progress.step,
        "tokens": progress.tokens,
        "trained_tokens": progress.trained_tokens,
        "parameters": config.parameter_count(),
        "passes": round(progress.tokens / batches.epoch_tokens, 3),
        "loss": progress.guard.recent[-1] if progress.guard.recent else math.nan,
        "heldout_loss": last if progress.best_loss is None else progress.best_loss,  # of the weights that are kept
        "skipped_steps": progress.guard.skipped,
        "stopped_early": progress.stopped_early,
        "seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        "learning_rate": settings.learning_rate,
        "row_length": settings.row_length,
        "tokens_per_step": settings.rows_per_step * settings.row_length,
        **(cut if batches.spec.chat else {}),
    }


def _view(data: dict[str, Any], folder: Path) -> list[Block]:
    rows = [
        ("steps", data["steps"]),
        ("tokens", human_count(data["tokens"])),
        ("loss", f"{data['loss']:.3f}"),
        ("held-out loss", "–" if data["heldout_loss"] is None else f"{data['heldout_loss']:.3f}"),
        ("tokens/s", human_count(data["tokens_per_second"])),
    ]
    cut = data.get("conversations_truncated") or data.get("conversations_dropped")
    note = CUT.format(**data) if cut else ""
    return [Table("Training", ("", ""), rows, note), loss_chart(folder / METRICS_FILE, "Loss")]
