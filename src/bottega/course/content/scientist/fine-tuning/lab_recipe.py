"""A recipe, read before it is run.

A file as Axolotl's users write it, with mistakes in it. Each of its lines is accounted for: understood, heeded in
another way, without effect here, or lost. Corrected, it runs; and it runs once more in smaller parts, which must change
nothing.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course.companion import companion, question_rows, write_rows
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value
from bottega.course.toolchain import follow_training

BUDGET = 30
WRITTEN = """
base_model: {model}
datasets:
  - path: {data}
    type: chat_template
    split: train
adapter: lora
lora_rank: 8
lora_alpha: 16
lora_target_linear: true
train_on_inputs: true
sequence_len: 256
micro_batch_size: 4
gradient_accumulation_steps: 4
max_steps: {steps}
optimizer: adamw_torch
lr_scheduler: cosine
learning_rate: 0.005
warmup_ratio: 0.1
neftune_noise: 5
flash_attention: true
output_dir: {out}
"""


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=40, ge=10, le=500)
    """Optimiser steps of each run."""
    part: int = Field(default=256, ge=128, le=8192)
    """Tokens that pass through the model at once in the second run."""


def run(params: Params) -> Iterator[Event]:
    """Read, correct, run, and run in parts."""
    import yaml

    from bottega.train.axolotl.mapping import translate

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_rows(folder / "rows.jsonl", question_rows(1, 1_000))
        written = yaml.safe_load(
            WRITTEN.format(model=companion("pretrained"), data=data, out=folder / "run", steps=params.steps)
        )
        first = translate(written)
        assert first is not None
        lost = [line.key for line in first.of("not understood")]
        yield Show("written", _table("The file as it was written", first, folder))
        yield Say(f"Lost: {', '.join(lost)}. Such a file is refused before a weight is read.")
        corrected = {key: value for key, value in written.items() if key not in lost}
        corrected |= {"lora_r": 8, "train_on_inputs": False}
        second = translate(corrected)
        assert second is not None
        yield Show("corrected", _table("The file, corrected", second, folder))
        settings = {**second.settings, "threads": 1, "dtype": "float32", "compare": False}
        yield Axes("loss", "One recipe, two ways to cut its batch", "step", "nats per trained token")
        losses: list[list[float]] = []
        for index, (way, part) in enumerate((("whole", 8192), (f"parts of {params.part} tokens", params.part))):
            losses.append([])
            changes = {"micro_batch_tokens": part, "out": str(folder / f"run-{index}")}
            for row in follow_training({**settings, **changes}):
                losses[-1].append(row["loss"])
                yield Point("loss", way, row["step"], row["loss"])
            yield Step(index + 1, 2, f"{way}: {losses[-1][-1]:.4f}")
    apart = max(abs(a - b) for a, b in zip(*losses, strict=True))
    examples = int(second.settings["batch_size"])
    yield Show("wrong_mean", _means())
    yield Value("lost", len(lost), "settings", 0)
    yield Value("understood", len(second.of("understood")), "settings", 0)
    yield Value("examples", examples, "conversations a step", 0)
    yield Value("first_loss", losses[0][0], "nats per trained token", 0.1)
    yield Value("last_loss", losses[0][-1], "nats per trained token", 0.2)
    yield Value("apart", apart, "nats", 30)
    yield Effect("the misspelt settings are found", sorted(lost) == ["lora_rank", "neftune_noise"])
    yield Effect("the corrected file loses nothing", not second.of("not understood"))
    yield Effect("a step is micro-batch times accumulation", examples == 16)
    yield Effect("it learns", losses[0][-1] < losses[0][0] / 2)
    yield Effect("cutting the batch into parts changes no loss by 0.001", apart < 1e-3)


def _table(title: str, foreign: Any, folder: Path) -> Table:
    fates = ("not understood", "differs", "understood", "noted")
    companions = str(companion("pretrained"))
    rows = [(fate, line.key, line.text.replace(str(folder), "…").replace(companions, "pretrained"))
            for fate in fates for line in foreign.of(fate)]  # fmt: skip
    return Table(title, ["", "there", "here"], rows)


def _means() -> Table:
    """Two parts of a batch with 3 and 60 trained tokens: the mean of the means, and the mean."""
    parts = [(3, 2.0), (60, 0.5)]
    means = sum(mean for _, mean in parts) / len(parts)
    right = sum(count * mean for count, mean in parts) / sum(count for count, _ in parts)
    rows = [*((f"part of {count} trained tokens", f"{mean:.3f}") for count, mean in parts)]
    rows += [("mean of the two means", f"{means:.3f}"), ("mean over all 63 tokens", f"{right:.3f}")]
    return Table("Which mean", ["", "nats per token"], rows)
