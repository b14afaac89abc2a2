"""What is shown of a run: every rule on figures made for it, curves, the page, and runs that are stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bottega.core.errors import BottegaError
from bottega.core.record import Record
from bottega.core.report import Section, render_report
from bottega.core.view import Chart, Table, Text
from bottega.train.curves import curves
from bottega.train.guard import BEGINNING, LATELY, WARM, Guard
from bottega.train.samples_view import samples_table
from bottega.train.signs import RULES, Watched, warnings
from bottega.train.view import figures_table, training_blocks
from bottega.verbs.reports import training

STEPS = 40
METRICS = {
    "steps": STEPS, "tokens": 4000, "parameters": 1000, "passes": 2.0, "loss": 0.5, "heldout_loss": None,
    "tokens_per_second": 10.0, "skipped_steps": 0,
}  # fmt: skip
Figure = Callable[[float], float]


def rows(**figures: Figure) -> list[dict[str, Any]]:
    """A row a step; each figure is a function of how much of the run is behind it, from 0 to 1."""
    found = []
    for step in range(STEPS):
        values = {name: each(step / (STEPS - 1)) for name, each in figures.items()}
        found.append({"step": step + 1, "tokens": 100 * (step + 1), **values})
    return found


def line(start: float, end: float) -> Figure:
    return lambda done: start + (end - start) * done


HEALTHY: dict[str, dict[str, Figure]] = {
    "sft": {"loss": line(3, 1), "heldout_loss": line(3.1, 1.2)},
    "dpo": {"loss": line(0.69, 0.2), "reward_chosen": line(0, 1), "reward_rejected": line(0, -2), "margin": line(0, 3),
            "accuracy": line(0.5, 1), "heldout_accuracy": line(0.5, 0.9), "heldout_loss": line(0.69, 0.3)},
    "grpo": {"loss": line(0, 0.1), "reward": line(0.2, 0.9), "reward_std": line(0.4, 0.3), "length": line(20, 25),
             "heldout_reward": line(0.2, 0.8), "heldout_reward_std": line(0.4, 0.4), "kl": line(0, 0.05),
             "entropy": line(1.5, 0.9), "zero_variance": line(0.1, 0.5), "finished": line(0.5, 1),
             "clip_low": line(0, 0.1), "clip_high": line(0, 0.1), "heldout_loss": line(-0.2, -0.8)},
}  # fmt: skip
ILL: dict[str, tuple[str, dict[str, Figure], dict[str, Any]]] = {
    "far from the start": ("grpo", {"kl": line(0, 0.6)}, {}),
    "other on general text": ("sft", {}, {"comparison": {"general": {"kl_mean": 0.8}}}),
    "reward parts from held-out": ("grpo", {"heldout_reward": line(0.4, 0.2)}, {}),
    "accuracy parts from held-out": ("dpo", {"heldout_accuracy": line(0.8, 0.6)}, {}),
    "held-out loss rises again": ("sft", {"heldout_loss": lambda done: 2 + abs(done - 0.5)}, {}),
    "entropy collapse": ("grpo", {"entropy": line(1.5, 0.1)}, {}),
    "groups without variance": ("grpo", {"zero_variance": line(0.5, 1)}, {}),
    "one reward for all": ("ppo", {"reward_std": lambda _: 0.0}, {}),
    "cut off": ("grpo", {"finished": lambda _: 0.0}, {}),
    "chosen grow rarer": ("dpo", {"reward_chosen": line(0, -2), "reward_rejected": line(0, -5)}, {}),
    "mostly clipped": ("grpo", {"clip_low": line(0, 0.4), "clip_high": line(0, 0.3)}, {}),
    "skipped steps": ("sft", {}, {"skipped_steps": 10}),
}
HEALTHY["ppo"] = {name: each for name, each in HEALTHY["grpo"].items() if name != "zero_variance"}


def holding(run: list[dict[str, Any]], metrics: dict[str, Any]) -> list[str]:
    return [rule.name for rule in RULES if rule.holds(Watched(run, metrics))]


@pytest.mark.parametrize("stage", sorted(HEALTHY))
def test_a_healthy_run_warns_of_nothing(stage: str) -> None:
    assert not warnings(rows(**HEALTHY[stage]), METRICS)


@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_each_rule_holds_of_what_it_is_for_and_of_it_alone(name: str) -> None:
    stage, figures, more = ILL[name]
    run, metrics = rows(**{**HEALTHY[stage], **figures}), {**METRICS, **more}
    assert holding(run, metrics) == [name]
    (sentence,) = warnings(run, metrics)
    assert "{" not in sentence and "nan" not in sentence


def test_a_run_of_one_step_warns_of_nothing() -> None:
    for stage in ("sft", "dpo"):
        assert not warnings(rows(**HEALTHY[stage])[:1], METRICS)
    assert not warnings([], METRICS)


def test_one_chart_for_each_kind_of_figure() -> None:
    found = {chart.title: chart for chart in curves(rows(**HEALTHY["dpo"]))}
    assert list(found) == ["Rewards", "Accuracy"]
    assert [series.name for series in found["Rewards"].series] == ["chosen", "rejected", "margin"]
    assert [series.name for series in found["Accuracy"].series] == ["training", "held-out"]
    assert found["Accuracy"].series[1].points[-1] == pytest.approx((STEPS, 0.9))
    more = {"reward/exact": line(0, 1), "reward/exact_std": line(0, 1), "reward/length": line(0, 1)}
    assert [series.name for series in curves(rows(**HEALTHY["grpo"], **more))[1].series] == ["exact", "length"]
    assert len(curves(rows(**HEALTHY["grpo"], **more))) <= 6
    assert not curves(rows(**HEALTHY["sft"])), "the loss has a chart of its own"


def test_figures_that_say_nothing_are_left_out() -> None:
    quiet = {**HEALTHY["grpo"], "clip_low": lambda _: 0.0, "clip_high": lambda _: 0.0}
    last = curves(rows(**quiet))[-1]
    assert [series.name for series in last.series] == ["ended by themselves", "groups of equal rewards"]
    table = figures_table(Watched(rows(**quiet), {}))
    assert table is not None and not any("clipped" in row[0] for row in table.rows)


def test_figures_begin_and_end_with_means_of_a_tenth() -> None:
    table = figures_table(Watched(rows(**HEALTHY["dpo"]), {}))
    assert table is not None
    margin = next(row for row in table.rows if row[0] == "margin")
    part = [3 * step / (STEPS - 1) for step in range(STEPS)]
    assert margin[1:3] == [f"{sum(part[:4]) / 4:.3f}", f"{sum(part[-4:]) / 4:.3f}"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "aligned.partial"
    (folder / "adapter").mkdir(parents=True)
    ill = rows(**{**HEALTHY["dpo"], "reward_chosen": line(0, -2), "reward_rejected": line(0, -5)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ill))
    said = [
        {"step": 0, "prompt": "user\n<b>Who?</b>\n", "text": "\n\n\n", "finished": False},
        {"step": STEPS, "prompt": "user\n<b>Who?</b>\n", "text": "The <i>river</i>.\nYes.", "finished": True},
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    Record("train", 1, "00", {"stage": "dpo"}, {}, metrics=METRICS).write(folder)
    return folder


def test_the_report_warns_draws_and_shows_samples(run: Path) -> None:
    blocks = training(run)
    assert isinstance(blocks[0], Text) and "chosen answers grew less likely" in blocks[0].text
    assert [each.title for each in blocks if isinstance(each, Chart)] == ["Loss", "Rewards", "Accuracy"]
    page = render_report("aligned", [Section("Training", blocks)])
    assert "<b>Who" not in page and "&lt;b&gt;Who" in page and "<i>river" not in page
    assert "The &lt;i&gt;river&lt;/i&gt;. ↵ Yes." in page


def test_the_terminal_names_the_place_where_the_adapter_will_be(run: Path) -> None:
    place = run.with_name("aligned")
    blocks = training_blocks(METRICS, run, stage="dpo", place=place, whole=False)
    last = blocks[-1]
    assert isinstance(last, Text) and f"bottega adapter merge {place / 'adapter'} --out" in last.text
    assert "partial" not in last.text
    assert [each.title for each in blocks if isinstance(each, Chart)] == ["Loss", "Rewards"]


def test_where_rewards_are_learned_from_no_loss_is_shown(run: Path) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(**HEALTHY["grpo"])))
    blocks = training_blocks({**METRICS, "heldout_loss": -0.8}, run, stage="grpo", place=run, whole=True)
    assert "Loss" not in [each.title for each in blocks if isinstance(each, Chart)]
    table = next(each for each in blocks if isinstance(each, Table))
    assert not any("loss" in str(row[0]) for row in table.rows)


def test_samples_tell_where_an_answer_was_cut(run: Path) -> None:
    table = samples_table(run / "samples.jsonl")
    assert table is not None and table.columns == ("prompt", "step 0", f"step {STEPS}")
    assert table.rows == [("user ↵ <b>Who?</b>", "↵ …", "The <i>river</i>. ↵ Yes.")]


def test_a_run_whose_loss_creeps_up_is_stopped() -> None:
    """Each step by too little to be a spike: only the window sees it."""
    guard, taken = Guard(sigma=6.0, stop=False), 0
    with pytest.raises(BottegaError, match="has diverged: the loss rose from 2"):
        for step in range(1000):
            assert guard.accepts(step, 2.0 + 0.01 * step, 1.0), "not a spike"
            taken = step
    assert taken > BEGINNING + LATELY


def test_losses_that_fall_wobble_or_are_negative_go_on() -> None:
    losses: list[Callable[[int], float]] = [
        lambda step: 9.0 / (1 + step), lambda step: 1.0 + 0.4 * (-1) ** step, lambda step: -3.0 + 0.4 * (step % 2)
    ]  # fmt: skip
    for loss in losses:
        guard = Guard(sigma=6.0, stop=False)
        assert all(guard.accepts(step, loss(step), 1.0) for step in range(300))


def test_the_guard_goes_on_from_what_was_saved() -> None:
    whole, parts = Guard(sigma=6.0, stop=False), Guard(sigma=6.0, stop=False)
    for step in range(WARM):
        whole.accepts(step, 2.0 + 0.01 * step, 1.0)
        parts = Guard(**json.loads(json.dumps(asdict(parts))))
        parts.accepts(step, 2.0 + 0.01 * step, 1.0)
    assert parts == whole
    assert Guard(sigma=6.0, stop=False, recent=[1.0]).beginnings == {}, "states of before are read"


def test_where_rewards_are_learned_from_reward_and_distance_are_watched() -> None:
    def steps(reward: Figure, kl: Figure) -> Guard:
        guard = Guard(sigma=6.0, stop=False, by_loss=False)
        for step in range(100):
            assert guard.accepts(step, 0.01 * step, 1.0), "the loss means nothing here"
            guard.watch(step, {"reward": reward(step / 99), "reward_std": 0.2, "kl": kl(step / 99)})
        return guard

    steps(line(0.3, 0.9), line(0, 0.3))
    with pytest.raises(BottegaError, match="mean reward fell by more than its deviation"):
        steps(line(0.8, 0.1), line(0, 0))
    with pytest.raises(BottegaError, match=r"2\.\d+ nats a token away"):
        steps(line(0.3, 0.9), line(0, 6))
    Guard(sigma=6.0, stop=False).watch(1, {"reward": 1.0})  # the loss is what counts elsewhere
