"""Every stage reaches its effect, measured on questions that it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bottega import verbs
from bottega.checkpoint.hub import locate
from bottega.data.examples import Examples
from bottega.data.raw import prepare_raw
from bottega.model.decoder import Decoder
from bottega.model.load import load_decoder
from bottega.train.batch import MicroBatch, collate
from bottega.train.metrics import read_metrics
from bottega.train.samples import read_samples
from bottega.train.stage import Forward, Machine
from bottega.train.stages.tokens import row_of
from stage_material import WORDS, World, answer, figures, make_world, questions

pytestmark = pytest.mark.slow
THREADS = 1
COMMON: dict[str, Any] = {
    "adapter": {"type": "lora", "r": 16}, "batch_size": 16, "learning_rate": 1e-3, "threads": THREADS,
    "dtype": "float32", "evaluate_every": 10,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A base of two layers that says the word that it was asked for once in six times or so."""
    return make_world(
        tmp_path_factory.mktemp("world"), layers=2, hidden_size=128, steps=300, chats_seen=1600, learning_rate=1e-3,
        threads=THREADS,
    )  # fmt: skip


def run(world: World, out: Path, stage: str, data: str, **more: Any) -> dict[str, Any]:
    """Train, and measure on other questions."""
    values = {"data": world.data(data), "heldout": world.data(data, heldout=True), **COMMON, **more}
    return verbs.train(stage=stage, model=world.base, out=out, **values)


def heldout(folder: Path) -> dict[str, float]:
    """The last figures on held-out data."""
    last = [row for row in read_metrics(folder / "metrics.jsonl") if "heldout_loss" in row][-1]
    return {name.removeprefix("heldout_"): value for name, value in last.items()}


def trained(out: Path) -> Decoder:
    """The model with its adapter merged, if it has one."""
    if (out / "adapter").is_dir():
        verbs.adapter_merge(adapter=(str(out / "adapter"),), measure=0, out=out / "merged")
        return load_decoder(locate(out / "merged"))
    return load_decoder(locate(out))


def answers(world: World, name: str, work: Path) -> MicroBatch:
    """Held-out pairs or conversations, as one part."""
    form = "pairs" if name in ("pairs", "ranked") else "chat"
    folder = prepare_raw(world.data(name, heldout=True), form, locate(world.base), work)
    examples = Examples(folder, row_length=64, seed=0)
    return collate([row_of(examples, i) for i in range(examples.count)])


@torch.no_grad()
def log_probs(model: Decoder, batch: MicroBatch) -> Tensor:
    """Of each document's trained tokens together."""
    return Forward(model, Machine(torch.device("cpu"), torch.float32, None)).answer_log_probs(batch)


@torch.no_grad()
def divergence(model: Decoder, start: Decoder, batch: MicroBatch) -> float:
    """KL from what was started from, in nats a token, over the tokens of the answers."""
    now, before = (
        torch.log_softmax(each(batch.input_ids, segments=batch.segments)[0, batch.positions].double(), -1)
        for each in (model, start)
    )
    return float((now.exp() * (now - before)).sum(-1).mean())


def preference(model: Decoder, batch: MicroBatch) -> tuple[float, float]:
    """How often the better answer of a pair is the likelier one; and the better ones' loss, in nats a token."""
    better, worse = log_probs(model, batch).reshape(-1, 2).unbind(1)
    tokens = torch.bincount(batch.owners)[::2]
    return float((better > worse).double().mean()), float(-better.sum() / tokens.sum())


def test_fine_tuning_lowers_the_loss_and_answers_end(world: World, tmp_path: Path) -> None:
    asked = dict(questions(heldout=True))
    run(world, tmp_path / "run", "sft", "chats", max_steps=40, prompts=tuple(asked))
    batch = answers(world, "chats", tmp_path / "data")
    before, after = (
        float(-log_probs(model, batch).sum() / len(batch.targets))
        for model in (load_decoder(locate(world.base)), trained(tmp_path / "run"))
    )
    assert after < 0.5 * before
    assert heldout(tmp_path / "run")["loss"] == pytest.approx(after, abs=1e-3)
    said = {row["prompt"]: row for row in read_samples(tmp_path / "run" / "samples.jsonl") if row["step"] == 40}
    assert all(said[question]["finished"] for question in asked), "each answer ends with the stop token"
    right = [said[question]["text"] == answer(word) for question, word in asked.items()]
    assert np.mean(right) > 0.8


@pytest.mark.parametrize(("stage", "drift"), [("dpo", 1.0), ("simpo", 2.0)])
def test_pairs_are_told_apart(world: World, tmp_path: Path, stage: str, drift: float) -> None:
    run(world, tmp_path / "run", stage, "pairs", max_steps=80)
    batch = answers(world, "pairs", tmp_path / "data")
    start, now = load_decoder(locate(world.base)), trained(tmp_path / "run")
    before, after = preference(start, batch)[0], preference(now, batch)[0]
    moved = divergence(now, start, batch)
    print(f"{stage}: accuracy {before:.2f} → {after:.2f}, KL {moved:.3f} nats a token")
    assert before < 0.8 and after > 0.9
    assert moved < drift
    if stage == "dpo":
        assert heldout(tmp_path / "run")["accuracy"] > 0.9


def test_kto_tells_good_answers_from_bad_ones(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "run", "kto", "judged", max_steps=80)
    found = heldout(tmp_path / "run")
    batch = answers(world, "pairs", tmp_path / "data")
    accuracy = preference(trained(tmp_path / "run"), batch)[0]
    print(f"kto: accuracy {accuracy:.2f}, {found}")
    assert accuracy > 0.9 and found["accuracy"] > 0.8
    assert found["reward_desirable"] > found["reward_undesirable"] + 0.5


def test_orpo_learns_the_order_that_fine_tuning_cannot_see(world: World, tmp_path: Path) -> None:
    """Every word is chosen equally often, so that the chosen answers alone do not tell which words are liked."""
    more = {"max_steps": 120, "batch_size": 32, "learning_rate": 2e-3, "evaluate_every": 120}
    run(world, tmp_path / "sft", "sft", "chosen", **more)
    run(world, tmp_path / "orpo", "orpo", "ranked", preference={"beta": 0.15}, **more)
    batch = answers(world, "ranked", tmp_path / "data")
    (blind, loss), (seeing, other) = (preference(trained(tmp_path / name), batch) for name in ("sft", "orpo"))
    print(f"sft {blind:.2f} at {loss:.4f}, orpo {seeing:.2f} at {other:.4f} ({other / loss - 1:+.1%})")
    assert seeing > max(0.85, blind + 0.05)
    assert other == pytest.approx(loss, rel=0.02)


def test_grpo_raises_a_reward_that_can_be_checked(world: World, tmp_path: Path) -> None:
    policy = {"group": 8, "max_new_tokens": 12}
    rewards = [{"type": "contains"}]
    run(world, tmp_path / "run", "grpo", "prompts", rewards=rewards, policy=policy, batch_size=8, max_steps=60)
    found = figures(tmp_path / "run", "reward")
    print(f"grpo: reward {np.mean(found[:3]):.2f} → held-out {heldout(tmp_path / 'run')['reward']:.2f}")
    assert np.mean(found[:3]) < 0.3
    assert heldout(tmp_path / "run")["reward"] > 0.9


BUDGET = 0.5  # nats a token; to say one word always instead of ten equally often costs 2.3 nats, a third of it a token


def test_ppo_raises_a_trained_reward_within_its_budget(world: World, tmp_path: Path) -> None:
    """The reward model has learned which words are liked; ppo then says those, and stays near where it began."""
    run(world, tmp_path / "judge", "reward", "ranked", max_steps=80)
    assert heldout(tmp_path / "judge")["accuracy"] > 0.9
    rewards = [{"type": "model", "path": str(tmp_path / "judge" / "model")}]
    policy = {"group": 2, "max_new_tokens": 12, "beta": 1.0}
    run(
        world, tmp_path / "run", "ppo", "prompts", rewards=rewards, policy=policy, batch_size=32, max_steps=25,
        prompts=tuple(question for question, _ in questions(heldout=True)),
    )  # fmt: skip
    reward, kl = figures(tmp_path / "run", "reward"), figures(tmp_path / "run", "kl")
    print(f"ppo: reward {reward[0]:.2f} → held-out {heldout(tmp_path / 'run')['reward']:.2f}, KL {kl[-1]:.3f}")
    assert heldout(tmp_path / "run")["reward"] > reward[0] + 2
    assert np.mean(kl[-5:]) < BUDGET
    said = [row for row in read_samples(tmp_path / "run" / "samples.jsonl") if row["step"] == 25]
    ranks = [at for row in said for at, word in enumerate(WORDS) if row["text"] == answer(word)]
    assert len(ranks) > 0.8 * len(said) and np.mean(ranks) > 6, "liked words, and still sentences"
