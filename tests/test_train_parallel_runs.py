"""Whole runs of `train` in two processes equal those of one, in every stage; one that is asked to stop goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bottega import verbs
from bottega.core.atomic import WORK_FOLDER, partial_path
from bottega.core.errors import UserError
from bottega.train.launch.commands import STOP_FILE
from bottega.train.metrics import read_metrics
from processes import together
from stage_material import World, figures, make_world

LORA: dict[str, Any] = {"adapter": {"type": "lora", "r": 4}}
TINY: dict[str, Any] = {
    "batch_size": 6, "max_steps": 4, "learning_rate": 5e-3, "schedule": "constant", "threads": 1, "dtype": "float32",
    "micro_batch_tokens": 64, "optimizer": "adamw", "device": "cpu", "save_every": 2,
}  # fmt: skip
REWARDED: dict[str, Any] = {
    "rewards": [{"type": "contains", "unfinished": "score"}, {"type": "length", "target": 24, "unit": "characters"}],
    "policy": {"group": 3, "max_new_tokens": 8, "updates": 2, "beta": 0.05}, "batch_size": 5,
}  # fmt: skip
# Stage, what it trains on, strategy, and what it needs beside. An uneven number of examples for two processes each.
RUNS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "sft": ("sft", "chats", "zero3", {**LORA, "batch_size": 5}),
    "sft-whole": ("sft", "chats", "zero2", {"heldout": "heldout-chats", "evaluate_every": 2}),
    "sft-best": ("sft", "chats", "zero3", {"heldout": "heldout-chats", "evaluate_every": 1, "patience": 1}),
    "sft-four-bits": ("sft", "chats", "zero3", {"adapter": {"type": "qlora", "r": 4}}),
    "reward": ("reward", "pairs", "zero1", LORA),
    "dpo": ("dpo", "pairs", "ddp", {**LORA, "batch_size": 5}),
    "dpo-cut": ("dpo", "pairs", "zero3", {**LORA, "checkpointing": "full"}),
    "orpo": ("orpo", "pairs", "zero2", LORA),
    "kto": ("kto", "judged", "zero1", LORA),
    "kto-cut": ("kto", "judged", "zero3", LORA),
    "grpo": ("grpo", "prompts", "ddp", {**LORA, **REWARDED}),
    "grpo-one": ("grpo", "prompts", "zero1", {**LORA, **REWARDED, "batch_size": 1}),  # nothing for the second process
    "ppo-one": ("ppo", "prompts", "ddp", {**LORA, **REWARDED, "batch_size": 1}),
    "ppo": ("ppo", "prompts", "zero1", {**LORA, **REWARDED}),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(
        tmp_path_factory.mktemp("world"), layers=1, hidden_size=64, steps=10, chats_seen=96, learning_rate=4e-3,
        threads=1,
    )  # fmt: skip


def settings_of(world: World, name: str) -> dict[str, Any]:
    stage, data, strategy, more = RUNS[name]
    more = {key: world.folder / f"{value}.jsonl" if key == "heldout" else value for key, value in more.items()}
    values = {**TINY, **more, "stage": stage, "model": world.base, "data": world.data(data)}
    return {**values, "parallel": {"strategy": strategy}}


def run_all(world: World, out: Path) -> None:
    for name in RUNS:
        verbs.train(out=out / name, **settings_of(world, name))


@pytest.fixture(scope="module")
def pair(world: World) -> Path:
    """Every run, by two processes; the second run meets where the first did."""
    folder = world.folder / "pair"
    folder.mkdir()
    together(2, run_all, world, folder)
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_as_one(world: World, pair: Path, tmp_path: Path, name: str) -> None:
    verbs.train(out=tmp_path / "one", **settings_of(world, name))
    one, two = (read_metrics(folder / "metrics.jsonl") for folder in (tmp_path / "one", pair / name))
    assert [row.keys() for row in one] == [row.keys() for row in two]
    for row, other in zip(one, two, strict=True):
        timed = {"tokens_per_second", "mfu"}
        kept = {key for key, value in row.items() if key not in timed and value is not None}
        assert {key: other[key] for key in kept} == pytest.approx({key: row[key] for key in kept}, rel=2e-4, abs=2e-5)
    left = [path.relative_to(tmp_path / "one") for path in sorted((tmp_path / "one").rglob("*.safetensors"))]
    assert left and left == [path.relative_to(pair / name) for path in sorted((pair / name).rglob("*.safetensors"))]
    for path in left:
        ours, theirs = load_file(pair / name / path), load_file(tmp_path / "one" / path)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            # Adam moves a value whose gradient is nearly nothing by the sign of its rounding error.
            close = (ours[key] - value).abs() < 1e-4
            assert close.float().mean() > 0.98, (path, key)


def test_answers_are_drawn_by_every_process_and_whole_weights(world: World, tmp_path: Path) -> None:
    together(2, refused, world, tmp_path)


def refused(world: World, out: Path) -> None:
    values = {**settings_of(world, "grpo"), "parallel": {"strategy": "zero3"}}
    with pytest.raises(UserError, match="take ddp or zero1"):
        verbs.train(out=out / "run", **values)


def test_a_run_that_is_asked_to_stop_goes_on(world: World, tmp_path: Path) -> None:
    values = {**settings_of(world, "sft-whole"), "save_every": 100}
    verbs.train(out=tmp_path / "whole", **values)
    work = partial_path(tmp_path / "parts") / WORK_FOLDER
    asks = Asks(work / STOP_FILE, step=2)
    with pytest.raises(KeyboardInterrupt):
        verbs.train(out=tmp_path / "parts", **values, reporter=asks)
    assert not (work / STOP_FILE).exists()
    assert [path.name for path in work.glob("state-*")] == ["state-00000002"]
    verbs.train(out=tmp_path / "parts", **values)
    assert figures(tmp_path / "parts", "loss") == figures(tmp_path / "whole", "loss")


class Asks:
    """A reporter that asks the run to stop in its step number `step`."""

    def __init__(self, file: Path, step: int) -> None:
        self.file, self.left = file, step

    def say(self, message: str) -> None:
        pass

    def bar(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Any:
        return self if name == "sft" else Silent()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.left -= 1
        if self.left == 1:  # the bar moves behind a step: it is asked before the next one
            self.file.touch()


class Silent(Asks):
    def __init__(self) -> None:
        super().__init__(Path(), 0)


@pytest.mark.slow
def test_torchrun_starts_a_run_and_another_number_of_processes_ends_it(world: World, tmp_path: Path) -> None:
    """By the command line, as people do: three processes, asked to stop, then two, then compared with one."""
    values = {**settings_of(world, "sft-whole"), "max_steps": 30, "save_every": 1000, "parallel": {"strategy": "zero3"}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(values, default=str))
    out = tmp_path / "run"
    work = partial_path(out) / WORK_FOLDER
    first = subprocess.Popen(torchrun(3, recipe, out), env=environment(), stderr=subprocess.PIPE, text=True)
    work.mkdir(parents=True, exist_ok=True)
    while first.poll() is None and not list(work.glob("heldout*")):
        pass
    (work / STOP_FILE).touch()
    _, said = first.communicate(timeout=50)
    assert first.returncode and "the same command goes on from there" in said
    (state,) = work.glob("state-*")
    assert 0 < int(state.name[6:]) < 30
    second = subprocess.run(torchrun(2, recipe, out), env=environment(), capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert f"going on after step {int(state.name[6:])} of 30" in second.stderr
    assert second.stdout.count("written:") == 1  # one of them speaks
    verbs.train(out=tmp_path / "one", **values)
    ours, theirs = (torch.tensor(figures(folder, "loss")) for folder in (out, tmp_path / "one"))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def torchrun(processes: int, recipe: Path, out: Path) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, "-m", "bottega", "train", str(recipe), "--out", str(out)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}
