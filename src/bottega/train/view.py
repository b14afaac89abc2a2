"""What is shown of a finished run: in the terminal, and in a report. From its folder and figures alone; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bottega.core.view import Block, Table, Text, human_count
from bottega.train.comparison_view import comparison_blocks
from bottega.train.config import POLICY_STAGES, TOKEN_STAGES
from bottega.train.curves import HELD, curves, is_silent
from bottega.train.metrics import METRICS_FILE, loss_chart, read_metrics
from bottega.train.samples_view import SAMPLES_FILE, samples_table
from bottega.train.signs import Watched, warnings

CUT = (
    "Longer than a row of {row_length} tokens: {conversations_truncated} conversations, which were cut there and do "
    "not teach how they end, and {conversations_dropped}, which were dropped because nothing to train was left."
)
MERGE = "To make it a model of its own: bottega adapter merge {place} --out DIR"
# Figures by name: what they are called, and the format of their values.
FIGURES = {
    "reward": ("reward", ".3f"), "reward_chosen": ("reward of chosen answers", ".3f"),
    "reward_rejected": ("reward of rejected answers", ".3f"), "reward_desirable": ("reward of good answers", ".3f"),
    "reward_undesirable": ("reward of bad answers", ".3f"), "margin": ("margin", ".3f"),
    "accuracy": ("accuracy", ".1%"), "log_prob_chosen": ("log-probability of chosen answers", ".1f"),
    "log_prob_rejected": ("log-probability of rejected answers", ".1f"),
    "nll_chosen": ("loss of chosen answers", ".3f"),
    "longer_chosen": ("length bias: the chosen answer is the longer one", ".0%"), "kl": ("KL from the start", ".4f"),
    "drift": ("KL within a batch of answers", ".4f"), "entropy": ("entropy", ".3f"),
    "length": ("tokens an answer", ".1f"),
    "finished": ("answers that end by themselves", ".0%"), "zero_variance": ("groups of equal rewards", ".0%"),
    "clip_low": ("ratios clipped below", ".1%"), "clip_high": ("ratios clipped above", ".1%"),
    "explained_variance": ("explained variance of the values", ".2f"),
}  # fmt: skip


def training_blocks(
    metrics: Mapping[str, Any], folder: Path, *, stage: str, place: Path, whole: bool, note: str = ""
) -> list[Block]:
    """The figures of a run, what they warn of, curves, samples, and the comparison with the start.

    Args:
        metrics: of the record.
        folder: where the run's files are now.
        stage: the way of learning.
        place: where they will be, for what people are told to type.
        whole: every curve (a report); else the first ones (a terminal).
        note: what else there is to say about the run as a whole.
    """
    rows = read_metrics(folder / METRICS_FILE)
    blocks: list[Block] = [Text(f"Warning: {sentence}") for sentence in warnings(rows, metrics)]
    blocks.append(_run(metrics, note, by_loss=stage not in POLICY_STAGES))
    figures = figures_table(Watched(rows, metrics))
    blocks += [figures] if figures else []
    if stage not in POLICY_STAGES:  # there the loss says nothing of how well it goes
        blocks.append(loss_chart(folder / METRICS_FILE, "Loss", "nats per token" if stage in TOKEN_STAGES else ""))
    blocks += curves(rows)[: None if whole else 1]
    samples = samples_table(folder / SAMPLES_FILE)
    blocks += [samples] if samples else []
    blocks += comparison_blocks(metrics.get("comparison") or {}, whole=whole)
    if (folder / "adapter").is_dir():
        blocks.append(Text(MERGE.format(place=place / "adapter")))
    return blocks


def figures_table(run: Watched) -> Table | None:
    """Where the stage's own figures began and ended; None if it has none."""
    names = [name for name in FIGURES if run.has(name) and not is_silent(run.rows, name)]
    if not names:
        return None
    held = any(run.has(HELD + name) for name in names)
    rows = []
    for name in names:
        label, form = FIGURES[name]
        row = [label, format(run.first(name), form), format(run.last(name), form)]
        rows.append([*row, format(run.last(HELD + name), form) if run.has(HELD + name) else ""] if held else row)
    columns = ("", "at the start", "at the end", *(["held-out"] if held else []))
    return Table("What was watched", columns, rows, "Means over the first and the last tenth of the steps.")


def _run(metrics: Mapping[str, Any], note: str, *, by_loss: bool) -> Table:
    heldout = metrics.get("heldout_loss") if by_loss else None
    rows = [
        ("parameters", human_count(metrics["parameters"])),
        ("steps", metrics["steps"]),
        ("tokens", human_count(metrics["tokens"])),
        ("passes over the data", metrics["passes"]),
        *([("loss", f"{metrics['loss']:.3f}")] if by_loss else []),
        *([("held-out loss", f"{heldout:.3f}")] if heldout is not None else []),
        ("tokens per second", human_count(metrics["tokens_per_second"])),
        ("skipped steps", metrics["skipped_steps"]),
    ]
    cut = metrics.get("conversations_truncated") or metrics.get("conversations_dropped")
    return Table("Training", ("", ""), rows, " ".join(filter(None, [CUT.format(**metrics) if cut else "", note])))
