"""How the benchmarks of fine-tuning start both sides in their process, and read the clock at every step."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import alternate
from bottega.core.progress import Quiet


class Clock(Quiet):
    """A reporter that notes when each step of a stage ended, and how long other work under a bar took."""

    def __init__(self, stage: str, now: Callable[[], float]) -> None:
        self.stage, self.now = stage, now
        self.marks, self.before = list[float](), dict[str, float]()
        self._under = ""

    @contextlib.contextmanager
    def bar(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[Clock]:  # noqa: ARG002
        """The stage's own bar is advanced once a step."""
        under, self._under, started = self._under, name, self.now()
        if name == self.stage:
            self.mark()
        yield self
        self._under = under
        self.before[name] = self.before.get(name, 0.0) + self.now() - started

    def advance(self, amount: float = 1, note: str = "") -> None:  # noqa: ARG002
        """A step has ended, if the bar is the stage's."""
        if self._under == self.stage:
            self.mark()

    def mark(self) -> None:
        """Note the time."""
        self.marks.append(self.now())

    def seconds(self) -> list[float]:
        """Of each step."""
        return [after - before for before, after in pairwise(self.marks)]


def serve(work: Callable[[], alternate.Answer]) -> None:
    """Answer requests until the parent ends; what `work` prints goes to standard error, as the answers are on ours."""

    def apart(_: Any) -> alternate.Answer:
        with contextlib.redirect_stdout(sys.stderr):
            return work()

    alternate.serve(apart)


def import_bottega(threads: int) -> None:
    """Everything that the verb needs, so that what it then holds is the run's."""
    for name in ("train.run", "train.stages.tokens", "train.stages.preference", "verbs.registry"):
        importlib.import_module(f"bottega.{name}")
    _set_threads(threads)


def train_with_bottega(recipe: dict[str, Any], out: Path, clock: Clock) -> list[dict[str, Any]]:
    """`bottega train RECIPE --out OUT` with `clock` in place of its bar; returns the rows of its metrics."""
    import yaml

    from bottega.cli import commands
    from bottega.cli.main import main as bottega

    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    commands.reporter_for = lambda *_: clock
    sys.argv = ["bottega", "train", str(path), "--out", str(out)]
    try:
        bottega()
    except SystemExit as ended:
        if ended.code:
            raise
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [row for row in rows if "loss" in row]


def import_trl(threads: int) -> dict[str, tuple[Any, Any]]:
    """TRL's trainer and config of each stage, imported whole and quiet."""
    import datasets
    import peft  # noqa: F401
    import transformers

    trl: Any = importlib.import_module("trl")
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    _set_threads(threads)
    return {"sft": (trl.SFTTrainer, trl.SFTConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig)}


def train_with_trl(trainer: Any, clock: Clock) -> tuple[list[float], list[tuple[int, int]]]:
    """Train; returns the losses, and of each batch the tokens that are real and those that were computed."""
    import transformers

    class Marks(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.mark()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.mark()

    collate, counted = trainer.data_collator, list[tuple[int, int]]()

    def counting(examples: Any) -> Any:
        batch = collate(examples)
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        counted.append((ids.numel() if mask is None else int(mask.sum()), ids.numel()))
        return batch

    trainer.data_collator = counting
    trainer.add_callback(Marks())
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], counted


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
