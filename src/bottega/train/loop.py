"""The training loop, for every stage.

A step takes its rows (a pure function of seed and step), sums the loss of its micro-batches, divides
by the trained tokens of the whole step, clips, and lets the optimisers move the weights. All the rest
(measuring, sampling, saving, logging) happens between steps and cannot change what they compute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from bottega.core.progress import Reporter
from bottega.core.view import human_count
from bottega.data.batches import Batches, Row
from bottega.model.attention import Attention
from bottega.model.decoder import Decoder
from bottega.model.experts import MixtureOfExperts
from bottega.train.batch import MicroBatch, micro_batches
from bottega.train.guard import Guard
from bottega.train.loss import linear_cross_entropy
from bottega.train.metrics import MetricsLog
from bottega.train.optimizer import build_optimizers
from bottega.train.schedule import learning_rate_factor
from bottega.train.settings import Settings, flops_per_token
from bottega.train.state import BEST_FILE, Progress, restore_best, restore_state, save_state, weights_of


@dataclass(frozen=True)
class Machine:
    """Where the loop computes. `peak_flops` is the measured rate of matrix products, for MFU; None if unknown."""

    device: torch.device
    dtype: torch.dtype
    peak_flops: float | None


@dataclass(frozen=True)
class Between:
    """What happens between steps: a loss on held-out data, and sample texts; both optional."""

    evaluate: Callable[[], float] | None = None
    sample: Callable[[int], None] | None = None


def fit(
    model: Decoder,
    batches: Batches,
    settings: Settings,
    machine: Machine,
    folder: Path,
    work: Path,
    reporter: Reporter,
    between: Between,
) -> Progress:
    """Train `model` in place; going on from the newest state in `work`, if any; `metrics.jsonl` goes into `folder`.

    Returns where the run ended. Raises BottegaError when bad steps may not, or can no longer, be skipped.
    """
    config, rate = settings.config, settings.learning_rate
    optimizers = build_optimizers(
        model, config.optimizer, learning_rate=rate, weight_decay=config.weight_decay, work_dtype=machine.dtype
    )
    guard = Guard(config.spike_sigma, stop=config.on_bad_step == "stop")
    progress = restore_state(work, model, optimizers) or Progress(guard)
    if progress.step:
        reporter.say(f"going on after step {progress.step} of {settings.steps}")
    if config.compile:
        _compile(model)
    log = MetricsLog(folder, progress.step, config.trackers)
    flops, peak = flops_per_token(model.config, settings.row_length), machine.peak_flops
    model.train()
    with reporter.bar(config.stage, settings.tokens, "tok", progress.tokens) as bar:
        while progress.step < settings.steps and not progress.stopped_early:
            started = time.perf_counter()
            rate = _set_rate(optimizers, progress.step, settings)
            rows = batches.rows(progress.step * settings.rows_per_step, settings.rows_per_step)
            loss, trained = _accumulate(model, micro_batches(rows, config.micro_batch_tokens), machine)
            norm = float(nn.utils.clip_grad_norm_(model.parameters(), config.clip))
            progress.step += 1
            accepted = progress.guard.accepts(progress.step, loss, norm)
            for optimizer in optimizers:
                if accepted:
                    optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            tokens, seconds = sum(len(row.tokens) for row in rows), time.perf_counter() - started
            progress.tokens += tokens
            progress.trained_tokens += trained
            progress.seconds += seconds
            peak = peak and max(peak, flops * tokens / seconds)  # a rate measured on a busy machine may be too low
            mfu = flops * tokens / seconds / peak if peak else None
            log.write(
                step=progress.step, tokens=progress.tokens, loss=loss, gradient_norm=norm, learning_rate=rate,
                tokens_per_second=tokens / seconds, mfu=mfu, skipped=not accepted,
            )  # fmt: skip
            bar.advance(tokens, _note(loss, mfu, progress))
            _between_steps(model, optimizers, settings, work, progress, between, log)
    log.close()
    _restore_best(model, work, progress)
    reporter.say(
        f"{config.stage}: {progress.step} steps, {human_count(progress.tokens)} tokens, "
        f"{human_count(progress.tokens / max(progress.seconds, 1e-9))} tok/s"
    )
    return progress


def _accumulate(model: Decoder, parts: Sequence[MicroBatch], machine: Machine) -> tuple[float, int]:
    """Gradients of the step's mean loss per trained token; returns that loss and the number of tokens."""
    trained = sum(len(part.targets) for part in parts)
    loss = 0.0
    for part in (part.to(machine.device) for part in parts if len(part.targets)):
        with torch.autocast(machine.device.type, machine.dtype, enabled=machine.dtype != torch.float32):
            states = model.hidden(part.input_ids, segments=part.segments)[0, part.positions]
        states = states.to(_product_type(states, machine))
        summed = linear_cross_entropy(states, model.lm_head.weight, part.targets, model.config.switches.logit_cap)
        (summed / trained).backward()
        loss += float(summed.detach()) / trained
    return loss, trained


def _compile(model: Decoder) -> None:
    """Compile what does not depend on how a row is cut into documents, or on which experts its tokens choose."""
    for block in model.model.layers:
        for part in block.children():
            if not isinstance(part, Attention | MixtureOfExperts):
                part.compile(dynamic=True)


@torch.no_grad()
def mean_loss(model: Decoder, rows: Sequence[Row], machine: Machine, micro_batch_tokens: int) -> float:
    """Mean loss per trained token over `rows`, in nats."""
    total, trained = 0.0, 0
    for part in micro_batches(rows, micro_batch_tokens):
        moved = part.to(machine.device)
        with torch.autocast(machine.device.type, machine.dtype, enabled=machine.dtype != torch.float32):
            states = model.hidden(moved.input_ids, segments=moved.segments)[0, moved.positions]
        cap = model.config.switches.logit_cap
        total += float(linear_cross_entropy(states, model.lm_head.weight, moved.targets, cap))
        trained += len(part.targets)
    return total / max(trained, 1)


def _product_type(states: torch.Tensor, machine: Machine) -> torch.dtype:
    return states.dtype if machine.dtype == torch.float32 else machine.dtype


def _set_rate(optimizers: Sequence[torch.optim.Optimizer], step: int, settings: Settings) -> float:
    config = settings.config
    factor = learning_rate_factor(
        step, settings.steps, config.schedule, warmup=config.warmup, decay=config.decay, floor=config.final_rate
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
    return settings.learning_rate * factor


def _between_steps(
    model: Decoder,
    optimizers: list[torch.optim.Optimizer],
    settings: Settings,
    work: Path,
    progress: Progress,
    between: Between,
    log: MetricsLog,
) -> None:
    """Measure, sample and save where it is time to, and always at the end."""
    config, step = settings.config, progress.step
    last = step == settings.steps
    if between.evaluate and (last or step % config.evaluate_every == 0):
        model.eval()
        loss = between.evaluate()
        model.train()
        progress.evaluations.append((step, loss))
        log.write(step=step, heldout_loss=loss)
        _judge(model, work, progress, loss, config.patience)
    if (
        between.sample and config.sample_every and step % config.sample_every == 0 and not last
    ):  # the run shows the last
        model.eval()
        between.sample(step)
        model.train()
    if last or progress.stopped_early or step % config.save_every == 0:
        log.flush()
        save_state(work, model, optimizers, progress)


def _judge(model: Decoder, work: Path, progress: Progress, loss: float, patience: int | None) -> None:
    """Early stopping: remember the best weights, and stop when they have not been beaten for long."""
    if patience is None:
        return
    if progress.best_loss is None or loss < progress.best_loss:
        progress.best_loss, progress.best_step, progress.without_gain = loss, progress.step, 0
        save_file(weights_of(model), work / BEST_FILE)
        return
    progress.without_gain += 1
    progress.stopped_early = progress.without_gain >= patience


def _restore_best(model: Decoder, work: Path, progress: Progress) -> None:
    if progress.best_step and (work / BEST_FILE).exists():
        restore_best(work, model)


def _note(loss: float, mfu: float | None, progress: Progress) -> str:
    parts = [f"loss {loss:.3f}"] + ([] if mfu is None else [f"MFU {mfu:.0%}"])
    return " · ".join(parts + [f"held-out {value:.3f}" for _, value in progress.evaluations[-1:]])
