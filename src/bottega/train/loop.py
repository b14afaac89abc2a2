"""The training loop, for every stage.

A step takes its parts (a pure function of seed and step), sums their losses, divides by what the stage takes its
mean over (trained tokens, pairs, answers of the whole step), clips, and lets the optimisers move the weights. All
the rest (measuring, sampling, saving, logging) happens between steps and cannot change what they compute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

from bottega.core.progress import Reporter
from bottega.core.view import human_count
from bottega.model.attention import Attention
from bottega.model.decoder import Decoder
from bottega.model.experts import MixtureOfExperts
from bottega.train.config import POLICY_STAGES, Train
from bottega.train.guard import Guard
from bottega.train.launch.commands import STOP_FILE
from bottega.train.metrics import MetricsLog, NoLog
from bottega.train.parallel.ranks import Ranks
from bottega.train.schedule import learning_rate_factor
from bottega.train.settings import Settings, training_flops_per_token
from bottega.train.stage import Figures, Machine, Part, Stage
from bottega.train.state import BEST_FOLDER, Progress, restore_best, restore_state, save_best, save_state


@dataclass(frozen=True)
class Between:
    """What happens between steps: figures of held-out data (`loss` among them), and sample texts; both optional."""

    evaluate: Callable[[], dict[str, float]] | None = None
    sample: Callable[[int], None] | None = None


def fit(
    model: Decoder,
    stage: Stage,
    optimizers: list[torch.optim.Optimizer],
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
    config = settings.config
    guard = Guard(config.spike_sigma, stop=config.on_bad_step == "stop", by_loss=config.stage not in POLICY_STAGES)
    ranks = machine.ranks
    progress = restore_state(work, model, optimizers, ranks) or Progress(guard)
    if progress.step:
        reporter.say(f"going on after step {progress.step} of {settings.steps}")
    if config.compile:
        _compile(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    log = MetricsLog(folder, progress.step, config.trackers) if ranks.is_first else NoLog()
    flops, peak = training_flops_per_token(model.config, settings), machine.peak_flops
    model.train(config.drops)
    with reporter.bar(config.stage, *_extent(settings, progress)) as bar:
        while progress.step < settings.steps and not progress.stopped_early:
            started = time.perf_counter()
            rate = _set_rate(optimizers, progress.step, settings)
            _seed_dropout(config, progress.step, ranks.rank)
            parts = stage.parts(progress.step)
            loss, figures = _accumulate(stage, parts, machine)
            norm, accepted = _move(optimizers, trained, loss, config.clip, progress, ranks)
            tokens, targets, asked = (int(count) for count in ranks.sum([*_counts(parts), _is_asked(ranks, work)]))
            seconds = time.perf_counter() - started
            progress.tokens += tokens
            progress.trained_tokens += targets
            progress.seconds += seconds
            peak = peak and max(peak, flops * tokens / seconds)  # a rate measured on a busy machine may be too low
            mfu = flops * tokens / seconds / peak if peak else None
            means = {name: total / max(count, 1e-9) for name, (total, count) in figures.items()}
            progress.guard.watch(progress.step, means)
            log.write(
                step=progress.step, tokens=progress.tokens, loss=loss, **means, gradient_norm=norm, learning_rate=rate,
                tokens_per_second=tokens / seconds, mfu=mfu, skipped=not accepted,
            )  # fmt: skip
            bar.advance(settings.examples_per_step or tokens, _note(loss, means, mfu, progress))
            _between_steps(model, stage, optimizers, settings, work, progress, between, log, ranks)
            if asked and progress.step < settings.steps and stage.settled(progress.step):
                _stop(model, optimizers, work, progress, log, ranks)
    log.close()
    _restore_best(model, work, progress, ranks)
    reporter.say(
        f"{config.stage}: {progress.step} steps, {human_count(progress.tokens)} tokens, "
        f"{human_count(progress.tokens / max(progress.seconds, 1e-9))} tok/s"
    )
    return progress


def _move(
    optimizers: Sequence[torch.optim.Optimizer],
    trained: Sequence[torch.nn.Parameter],
    loss: float,
    clip: float,
    progress: Progress,
    ranks: Ranks,
) -> tuple[float, bool]:
    """Let the optimisers move the weights, unless the guard refuses; the gradient's norm, and whether they did."""
    ranks.reduce_gradients(trained)
    norm = ranks.clip(trained, clip)
    progress.step += 1
    accepted = progress.guard.accepts(progress.step, loss, norm)
    for optimizer in optimizers:
        if accepted:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    ranks.finish_step()
    return norm, accepted


def _extent(settings: Settings, progress: Progress) -> tuple[int, str, int]:
    """How many there are of what the bar counts, what that is, and how many are behind us."""
    if settings.examples_per_step:
        return settings.steps * settings.examples_per_step, "examples", progress.step * settings.examples_per_step
    return settings.tokens, "tok", progress.tokens


def _accumulate(stage: Stage, parts: Sequence[Part], machine: Machine) -> tuple[float, Figures]:
    """Gradients of this process's share of the step's loss; returns the loss and the figures of the whole step."""
    ranks = machine.ranks
    weight = ranks.sum([sum(part.weight for part in parts)])[0]
    loss, own, figures = 0.0, Figures(), Figures()
    turns = ranks.turns([part for part in parts if part.weight], spare=parts[:1])
    for place, (part, counts) in enumerate(turns):
        summed, more = stage.loss(part.to(machine.device))
        ranks.backward(summed * counts / weight, place == len(turns) - 1)
        if counts:
            loss += float(summed.detach()) / weight
            add_figures(own, more)
    add_figures(own, stage.about())
    for each in ranks.gather(own):
        add_figures(figures, each)
    return ranks.sum([loss])[0], figures


def _is_asked(ranks: Ranks, work: Path) -> bool:
    """Whether somebody (the script of a cluster whose time is up) asks the run to save its state and end."""
    return ranks.is_first and (work / STOP_FILE).exists()


def _stop(
    model: Decoder,
    optimizers: list[torch.optim.Optimizer],
    work: Path,
    progress: Progress,
    log: MetricsLog | NoLog,
    ranks: Ranks,
) -> NoReturn:
    """End the run, so that it can go on from here."""
    log.flush()
    save_state(work, model, optimizers, progress, ranks)
    (work / STOP_FILE).unlink(missing_ok=True)
    raise KeyboardInterrupt


def _counts(parts: Sequence[Part]) -> list[float]:
    """Tokens, and tokens that are trained."""
    return [sum(part.batch.input_ids.numel() for part in parts), sum(len(part.batch.targets) for part in parts)]


def add_figures(figures: Figures, more: Figures) -> None:
    """Add the figures of another part."""
    for name, (total, count) in more.items():
        held_total, held_count = figures.get(name, (0.0, 0.0))
        figures[name] = held_total + total, held_count + count


@torch.no_grad()
def measure_parts(stage: Stage, parts: Sequence[Part], machine: Machine) -> dict[str, float]:
    """The loss of some parts, without a step, and their figures; the processes share the parts."""
    total, weight, own, figures = 0.0, 0.0, Figures(), Figures()
    for part in (part.to(machine.device) for part in machine.ranks.share(parts) if part.weight):
        summed, more = stage.loss(part)
        total += float(summed)
        weight += part.weight
        add_figures(own, more)
    total, weight = machine.ranks.sum([total, weight])
    for each in machine.ranks.gather(own):
        add_figures(figures, each)
    means = {name: total / max(count, 1e-9) for name, (total, count) in figures.items()}
    return {"loss": total / max(weight, 1), **means}


def _compile(model: Decoder) -> None:
    """Compile what does not depend on how a row is cut into documents, or on which experts its tokens choose."""
    for block in model.model.layers:
        for part in block.children():
            if not isinstance(part, Attention | MixtureOfExperts):
                part.compile(dynamic=True)


def _set_rate(optimizers: Sequence[torch.optim.Optimizer], step: int, settings: Settings) -> float:
    config = settings.config
    warmup = config.warmup if config.warmup_steps is None else config.warmup_steps / settings.steps
    factor = learning_rate_factor(
        step, settings.steps, config.schedule, warmup=warmup, decay=config.decay, floor=config.final_rate
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
    return settings.learning_rate * factor


def _seed_dropout(config: Train, step: int, rank: int) -> None:
    """What is dropped depends on seed, step and process alone, so that a run that goes on drops the same."""
    if config.adapter is not None and config.adapter.dropout:
        torch.manual_seed(((config.seed * 2**24 + step) * 2**12 + rank) % 2**63)


def _between_steps(
    model: Decoder,
    stage: Stage,
    optimizers: list[torch.optim.Optimizer],
    settings: Settings,
    work: Path,
    progress: Progress,
    between: Between,
    log: MetricsLog | NoLog,
    ranks: Ranks,
) -> None:
    """Measure, sample and save where it is time to, and always at the end."""
    config, step = settings.config, progress.step
    last = step == settings.steps
    if between.evaluate and (last or step % config.evaluate_every == 0):
        model.eval()
        with ranks.gathered(model):
            found = between.evaluate()
        model.train(config.drops)
        progress.evaluations.append((step, found["loss"]))
        log.write(step=step, **{f"heldout_{name}": value for name, value in found.items()})
        _judge(model, work, progress, found["loss"], config.patience, ranks)
    if (
        between.sample and config.sample_every and step % config.sample_every == 0 and not last
    ):  # the run shows the last
        model.eval()
        with ranks.gathered(model):
            between.sample(step)
        model.train(config.drops)
    due = step // config.save_every > progress.saved // config.save_every
    if last or progress.stopped_early or (due and stage.settled(step)):
        progress.saved = step
        log.flush()
        save_state(work, model, optimizers, progress, ranks)


def _judge(
    model: Decoder, work: Path, progress: Progress, loss: float, patience: int | None, ranks: Ranks
) -> None:
    """Early stopping: remember the best weights, and stop when they have not been beaten for long."""
    if patience is None:
        return
    if progress.best_loss is None or loss < progress.best_loss:
        progress.best_loss, progress.best_step, progress.without_gain = loss, progress.step, 0
        save_best(work, model, ranks)
        return
    progress.without_gain += 1
    progress.stopped_early = progress.without_gain >= patience


def _restore_best(model: Decoder, work: Path, progress: Progress, ranks: Ranks) -> None:
    if progress.best_step and (work / BEST_FOLDER).exists():
        restore_best(work, model, ranks)


def _note(loss: float, means: dict[str, float], mfu: float | None, progress: Progress) -> str:
    parts = [f"loss {loss:.3f}"]
    parts += [f"{name} {means[name]:.3f}" for name in ("accuracy", "reward", "kl") if name in means]
    parts += [] if mfu is None else [f"MFU {mfu:.0%}"]
    return " · ".join(parts + [f"held-out {value:.3f}" for _, value in progress.evaluations[-1:]])
