"""Every stage on a tiny model: golden losses, parts, exact resume, the reference, what moves, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bottega import verbs
from bottega.checkpoint.hub import locate
from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.core.progress import Quiet
from bottega.data.examples import Examples
from bottega.data.raw import prepare_raw
from bottega.data.spec import Form, TokensSpec
from bottega.generate.settings import Sampling
from bottega.model.load import load_decoder
from bottega.model.lora import adapter_parameters
from bottega.model.reward import RewardModel
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train.config import Train
from bottega.train.loop import _accumulate
from bottega.train.metrics import read_metrics
from bottega.train.plan import plan_train
from bottega.train.rewards.answer import Answer
from bottega.train.rewards.config import RewardSettings
from bottega.train.rewards.models import reward_model
from bottega.train.rollout import Rollouts
from bottega.train.settings import resolve
from bottega.train.stage import Forward, Machine
from bottega.train.stages.make import Setting, make_stage, open_data
from bottega.train.stages.unpaired import mismatched
from bottega.train.trainee import SCORE_HEAD, VALUE_HEAD, make_optimizers, make_trainee
from interrupts import Interrupt
from stage_material import WORDS, World, answer, figures, make_world, write

DATA = {"sft": "chats", "kto": "judged", "grpo": "prompts", "ppo": "prompts"}  # else pairs
ALL = ("sft", "reward", "dpo", "kto", "orpo", "simpo", "cpo", "grpo", "ppo")
KINDS = ("sft", "reward", "dpo", "orpo", "kto", "grpo", "ppo")  # simpo and cpo are dpo's and orpo's code
TUNED: dict[str, Any] = {
    "adapter": {"type": "lora", "r": 4}, "batch_size": 8, "max_steps": 10, "learning_rate": 5e-3,
    "schedule": "constant", "threads": 1, "dtype": "float32",
}  # fmt: skip
BY_POLICY: dict[str, Any] = {
    "rewards": [{"type": "contains", "unfinished": "score"}, {"type": "length", "target": 24, "unit": "characters"}],
    "policy": {"group": 3, "max_new_tokens": 10, "updates": 2, "beta": 0.05}, "batch_size": 4,
}  # fmt: skip

# Losses of the first, fifth and tenth step. They change when the arithmetic of a stage changes, and then the change
# must be meant.
GOLDEN = {
    "sft": (5.8313, 5.5047, 5.3459),
    "reward": (0.6951, 0.6348, 0.6916),
    "dpo": (0.6931, 0.6852, 0.6936),
    "kto": (0.5, 0.501, 0.502),
    "orpo": (5.9325, 5.5923, 5.4035),
    "simpo": (1.3837, 1.2639, 1.2821),
    "cpo": (6.5681, 6.2142, 6.0322),
    "grpo": (-0.0593, 0.0148, -0.0686),
    "ppo": (0.0947, 0.0306, 0.0078),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model of one layer that has just begun to speak."""
    made = make_world(
        tmp_path_factory.mktemp("world"), layers=1, hidden_size=64, steps=20, chats_seen=256, learning_rate=4e-3,
        threads=1,
    )  # fmt: skip
    verbs.train(  # it has learned nothing: what it draws does not hang on the last digits of a training
        data=made.folder / "tokens", tokenizer=made.folder / "tokenizer", layers=1, hidden_size=64, row_length=64,
        tokens_per_step=64, max_steps=1, learning_rate=1e-9, dtype="float32", out=made.folder / "blank",
    )  # fmt: skip
    tokenizer = locate(made.base)
    forms: dict[str, Form] = {"chats": "chat", "pairs": "pairs", "judged": "labelled", "prompts": "prompts"}
    for name, form in forms.items():
        prepare_raw(made.data(name), form, tokenizer, made.folder / "prepared" / name)
    return made


def settings_of(world: World, stage: str, **more: Any) -> dict[str, Any]:
    """Settings of `train`, but for `out`."""
    values = {"stage": stage, "model": world.base, "data": prepared(world, DATA.get(stage, "pairs")), **TUNED}
    return {**values, **(BY_POLICY if stage in ("grpo", "ppo") else {}), **more}


def prepared(world: World, name: str) -> Path:
    (folder,) = (world.folder / "prepared" / name).iterdir()
    return folder


def run(world: World, out: Path, stage: str, **more: Any) -> dict[str, Any]:
    return verbs.train(out=out, **settings_of(world, stage, **more))


class Bench:
    """A stage before its first step, as a run makes it; the adapter is moved a little, so that it does something."""

    def __init__(self, world: World, work: Path, stage: str, *, moved: bool = True, **more: Any) -> None:
        config = Train.parse({**settings_of(world, stage, **more), "out": work / "out"})
        work.mkdir(parents=True, exist_ok=True)
        architecture = plan_train(config, Specs()).details["architecture"]
        self.machine = Machine(torch.device("cpu"), torch.float32, None)
        self.settings = resolve(config, architecture, TokensSpec.read(config.data))
        self.model = make_trainee(config, architecture, self.machine)
        tokenizer = Tokenizer.load(locate(world.base))
        setting = Setting(self.settings, Forward(self.model, self.machine), tokenizer, work, Quiet())
        opened = open_data(config.data, setting, seed=0)
        assert isinstance(opened, Examples)
        self.examples, self.stage = opened, cast(Any, make_stage(opened, setting))
        draw = torch.Generator().manual_seed(1)
        for parameter in adapter_parameters(self.model).values() if moved else ():
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=draw)
        self.model.train()

    def gradients(self) -> tuple[float, dict[str, Tensor]]:
        """Loss and gradients of the first step."""
        loss, _ = _accumulate(self.stage, self.stage.parts(0), self.machine)
        found = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        self.model.zero_grad(set_to_none=True)
        return loss, found


@pytest.mark.parametrize("stage", ALL)
def test_golden_losses(world: World, tmp_path: Path, stage: str) -> None:
    run(world, tmp_path / "run", stage, model=world.folder / "blank")
    losses = figures(tmp_path / "run", "loss")
    assert len(losses) == 10
    assert (losses[0], losses[4], losses[9]) == pytest.approx(GOLDEN[stage], abs=3e-4)
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"adapter", "metrics.jsonl", "record.json"}
    if stage == "dpo":
        assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
        assert figures(tmp_path / "run", "margin")[0] == pytest.approx(0.0, abs=1e-6)
    if stage == "kto":
        assert figures(tmp_path / "run", "kl")[0] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("stage", KINDS)
def test_parts_have_the_gradients_of_the_whole(world: World, tmp_path: Path, stage: str) -> None:
    (whole, expected), (split, got) = (
        Bench(world, tmp_path / str(size), stage, micro_batch_tokens=size).gradients() for size in (8192, 64)
    )
    assert split == pytest.approx(whole, abs=1e-6)
    assert expected.keys() == got.keys() and any(gradient.abs().max() > 0 for gradient in expected.values())
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("stage", ["sft", "masters sft", "reward", "dpo", "whole dpo", "kto", "grpo", "ppo"])
def test_an_interrupted_run_goes_on_bitwise(world: World, tmp_path: Path, stage: str) -> None:
    """Dropout and all; grpo and ppo are stopped between two updates on the same answers."""
    more: dict[str, Any] = {"save_every": 2, "max_steps": 6, "adapter": {"type": "lora", "r": 4, "dropout": 0.2}}
    file = "adapter/adapter_model.safetensors"
    if stage == "whole dpo":  # the reference is what it was before the first step
        stage, more["adapter"], file = "dpo", None, "model/model.safetensors"
    if stage == "masters sft":
        stage, file = "sft", "model/model.safetensors"
        more |= {"adapter": None, "weights": "bfloat16", "optimizer": "adamw_masters"}
    run(world, tmp_path / "whole", stage, **more)
    torch.manual_seed(7)  # whatever the process did before
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "parts", stage, reporter=Interrupt(stage, 3), **more)
    assert not (tmp_path / "parts").exists()
    run(world, tmp_path / "parts", stage, **more)
    rows = [
        [{k: v for k, v in row.items() if k not in ("tokens_per_second", "mfu")} for row in read_metrics(path)]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "parts" / "metrics.jsonl")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 6
    whole, parts = (load_file(tmp_path / name / file) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_reference_is_the_model_that_was_started_from(world: World, tmp_path: Path) -> None:
    bench = Bench(world, tmp_path, "dpo")
    untouched = Forward(load_decoder(locate(world.base)), bench.machine)
    (part,) = bench.stage.parts(0)
    with torch.no_grad():
        expected, now = untouched.answer_log_probs(part.batch), bench.stage.forward.answer_log_probs(part.batch)
    torch.testing.assert_close(part.extra["reference"], expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(now, expected, atol=1e-2), "the adapter does nothing"


@pytest.mark.parametrize("stage", KINDS)
def test_all_of_the_adapter_moves_and_nothing_else(world: World, tmp_path: Path, stage: str) -> None:
    bench = Bench(world, tmp_path, stage)
    before = {name: tensor.clone() for name, tensor in bench.model.state_dict().items()}
    optimizers = make_optimizers(bench.model, bench.settings, bench.machine)
    for step in range(3):
        _accumulate(bench.stage, bench.stage.parts(step), bench.machine)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    trained = {name for name, parameter in bench.model.named_parameters() if parameter.requires_grad}
    moved = {name for name, tensor in bench.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == trained
    heads = {"reward": {f"{SCORE_HEAD}.weight"}, "ppo": {f"{VALUE_HEAD}.weight"}}.get(stage, set())
    of_adapter = {id(parameter) for parameter in adapter_parameters(bench.model).values()}
    assert trained == {n for n, p in bench.model.named_parameters() if id(p) in of_adapter} | heads


@pytest.mark.parametrize("stage", ["sft", "dpo", "kto", "grpo"])
def test_the_token_that_ends_an_answer_is_trained(world: World, tmp_path: Path, stage: str) -> None:
    bench = Bench(world, tmp_path, stage)
    stops = Tokenizer.load(locate(world.base)).stop_ids
    ended = [
        bool(stops & set(part.batch.targets[part.batch.owners == document].tolist()))
        for part in bench.stage.parts(0)
        for document in range(part.batch.documents)
    ]
    if stage == "grpo":
        assert ended == [each.finished for each in bench.stage.batch.rollouts]
    else:
        assert all(ended)


def test_what_held_out_data_tell(world: World, tmp_path: Path) -> None:
    more = {"max_steps": 6, "evaluate_every": 3}
    for stage, names in (("dpo", ("accuracy", "margin")), ("grpo", ("reward",))):
        heldout = world.data(DATA.get(stage, "pairs"), heldout=True)
        run(world, tmp_path / stage, stage, heldout=heldout, **more)
        for name in ("loss", *names):
            assert len(figures(tmp_path / stage, f"heldout_{name}")) == 2, (stage, name)


def test_the_distance_to_the_start_grows_on_held_out_data_too(world: World, tmp_path: Path) -> None:
    """All answers are good and alike, so that kto makes them likelier behind every prompt."""
    rows = [{"prompt": f"Say {word}.", "completion": answer("river"), "label": True} for word in WORDS]
    data = write(tmp_path / "rows.jsonl", rows)
    run(world, tmp_path / "run", "kto", data=data, heldout=data, max_steps=6, evaluate_every=3)
    for name in ("kl", "heldout_kl"):
        found = figures(tmp_path / "run", name)
        assert found[-1] > found[0] >= 0, name


def test_early_stopping_keeps_the_best_adapter(world: World, tmp_path: Path) -> None:
    more = {"heldout": world.data("pairs", heldout=True), "evaluate_every": 1, "patience": 1, "learning_rate": 0.3}
    data = run(world, tmp_path / "run", "dpo", max_steps=30, **more)
    found = figures(tmp_path / "run", "heldout_loss")
    assert data["stopped_early"] and data["steps"] < 30
    assert data["heldout_loss"] == min(found) == found[-2]


def examples_of(world: World, folder: Path, rows: list[dict[str, Any]], row_length: int = 64) -> Examples:
    folder.mkdir()
    made = prepare_raw(write(folder / "rows.jsonl", rows), "labelled", locate(world.base), folder)
    return Examples(made, row_length=row_length, seed=0)


def test_mismatched_answers_are_those_of_other_prompts(world: World, tmp_path: Path) -> None:
    """Also where many rows share a prompt, and where the prompt leaves room for one token."""
    asked = ["Say the word river."] * 40 + ["Give me clock."] * 2
    rows = [{"prompt": each, "completion": each[::-1], "label": True} for each in asked]
    examples = examples_of(world, tmp_path / "two", rows)
    prompt = {i: int(examples.documents(i)[0].mask.argmax()) for i in range(examples.count)}
    shortest = max(prompt.values()) + 1
    for opened in (examples, Examples(examples.folder, row_length=shortest, seed=0)):
        for i in range(opened.count):
            (own,), row = opened.documents(i), mismatched(opened, i)
            other = next(k for k in range(opened.count) if prompt[k] != prompt[i])
            (theirs,) = opened.documents(other)
            expected = np.concatenate([own.tokens[: prompt[i]], theirs.tokens[prompt[other] :]])[: opened.row_length]
            assert np.array_equal(row.tokens, expected) and row.mask.any() and not row.mask[: prompt[i]].any()


def test_kto_on_a_single_prompt_is_refused(world: World, tmp_path: Path) -> None:
    rows = [{"prompt": "Say.", "completion": answer(word), "label": True} for word in ("river", "clock")]
    data = write(tmp_path / "one.jsonl", rows)
    with pytest.raises(UserError, match="has no other"):
        run(world, tmp_path / "run", "kto", data=data)
    run(world, tmp_path / "run", "kto", data=data, preference={"loss": "apo_zero_unpaired"}, max_steps=1)


@pytest.fixture(scope="module")
def judge(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model, trained as an adapter."""
    out = tmp_path_factory.mktemp("reward") / "run"
    run(world, out, "reward")
    return out


def texts(world: World, count: int = 6) -> list[list[int]]:
    examples = Examples(prepared(world, "pairs"), row_length=64, seed=0)
    return [document.tokens.tolist() for i in range(count) for document in examples.documents(i)]


def test_a_reward_model_opens_in_transformers(world: World, judge: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(judge / "model", dtype=torch.float32)
    ours = RewardModel.load(judge / "model").scores(texts(world))
    with torch.no_grad():
        scores = [theirs(torch.tensor([ids])).logits[0, 0] for ids in texts(world)]
    torch.testing.assert_close(ours, torch.stack(scores), rtol=1e-5, atol=1e-5)
    assert ours.std() > 1e-3


def test_the_adapter_of_a_reward_model_opens_in_peft(world: World, judge: Path) -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        locate(world.base), num_labels=1, dtype=torch.float32
    )
    base.config.pad_token_id = 0
    theirs = peft.PeftModel.from_pretrained(base, judge / "adapter").eval()
    ours = RewardModel.load(judge / "model").scores(texts(world))
    with torch.no_grad():
        scores = [theirs(input_ids=torch.tensor([ids])).logits[0, 0] for ids in texts(world)]
    torch.testing.assert_close(ours, torch.stack(scores), rtol=1e-5, atol=1e-5)


def test_a_reward_model_reads_an_answer_as_it_was_trained_to(world: World, judge: Path) -> None:
    """The model stops at the token that ends its answer; the template's line feed behind it belongs to the text."""
    ids = texts(world, 1)[0]
    examples = Examples(prepared(world, "pairs"), row_length=64, seed=0)
    mask = examples.documents(0)[0].mask
    start, stop = int(mask.argmax()), int(np.flatnonzero(mask)[-1]) + 1
    assert stop < len(ids), "the template writes something behind an answer"
    score = reward_model(RewardSettings(type="model", path=str(judge / "model")), "cpu")
    said = [Answer("", {}, finished, ids[:start], ids[start:stop]) for finished in (True, False)]
    expected = RewardModel.load(judge / "model").scores([ids, ids[:stop]]).tolist()
    assert score(said) == pytest.approx(expected, abs=1e-6)


def test_draws_depend_on_seed_and_batch_alone(world: World, tmp_path: Path) -> None:
    """The first batch of grpo is what the rollouts draw of the untrained model."""
    bench = Bench(world, tmp_path, "grpo", moved=False)
    bench.stage.parts(0)
    indices = bench.examples.indices(0, 4)
    asked = [bench.examples.documents(i)[0].tokens.tolist() for i in indices]
    rollouts = Rollouts(load_decoder(locate(world.base)), Tokenizer.load(locate(world.base)))
    expected = rollouts.sample(asked, 3, Sampling(max_new_tokens=10), 2**20)
    rollouts.close()
    assert [each.completion_ids for each in bench.stage.batch.rollouts] == [each.completion_ids for each in expected]


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("dpo", {"data": "judged"}, "dpo on judged answers"),
    ("sft", {"data": "pairs"}, "sft on pairs"),
    ("grpo", {"rewards": []}, "grpo needs rewards"),
    ("dpo", {"rewards": [{"type": "contains"}]}, "rewards are for grpo and ppo"),
    ("grpo", {"policy": {"group": 1}}, "2 at least"),
    ("ppo", {"adapter": None}, "train an adapter, or give beta: 0"),
    ("grpo", {"adapter": None, "policy": {"beta": 0.1}}, "train an adapter, or give beta: 0"),
    ("grpo", {"row_length": 12}, "Raise row_length"),
    ("grpo", {"rewards": [{"type": "exact", "field": "solution"}]}, "solution"),
    ("dpo", {"row_length": 16}, "Raise row_length"),
    ("kto", {"preference": {"loss": "ipo"}}, "not one of kto"),
    ("simpo", {"preference": {"loss": "ipo"}}, "simpo has one loss"),
    ("orpo", {"tokens_per_step": 64}, "counts examples"),
]


@pytest.mark.parametrize(("stage", "more", "message"), WRONG, ids=[f"{stage}-{text}" for stage, _, text in WRONG])
def test_what_cannot_be_is_said(
    world: World, tmp_path: Path, stage: str, more: dict[str, Any], message: str
) -> None:
    if isinstance(more.get("data"), str):
        more = {"data": prepared(world, more["data"])}
    if "tokens_per_step" in more:
        more = more | {"batch_size": None}
    with pytest.raises(UserError) as error:
        run(world, tmp_path / "run", stage, **more)
    assert message in f"{error.value} {error.value.hint}"
    assert not (tmp_path / "run").exists()


def test_a_setting_that_the_stage_does_not_look_at_is_refused() -> None:
    given = {"model": "m", "data": "d", "out": "o"}
    rewards = {"rewards": [{"type": "length", "target": 3}], "adapter": {"type": "lora"}}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"stage": "dpo", "preference": {"margin": 0.5}}, r"preference\.margin is for simpo, not dpo"),
        ({"stage": "dpo", "preference": {"desirable_weight": 2.0}}, r"preference\.desirable_weight is for kto"),
        ({"stage": "sft", "preference": {"beta": 0.2}}, r"preference\.beta is for dpo"),
        ({"stage": "ppo", "policy": {"normaliser": "dr_grpo"}, **rewards}, r"policy\.normaliser is for grpo, not ppo"),
        ({"stage": "grpo", "policy": {"value_clip": 0.1}, **rewards}, r"policy\.value_clip is for ppo, not grpo"),
        ({"stage": "dpo", "policy": {"group": 4}}, r"policy\.group is for ppo, grpo"),
        ({"stage": "dpo", "warmup": 0.1, "warmup_steps": 3}, "not both"),
    ]
    for values, message in wrong:
        with pytest.raises(UserError, match=message):
            Train.parse({**given, **values})
    Train.parse({**given, "stage": "kto", "preference": {"balance": True, "beta": 0.2}})


def test_balanced_examples_have_the_same_say(world: World, tmp_path: Path) -> None:
    plain, balanced = (
        Bench(world, tmp_path / str(on), "kto", preference={"balance": on}).stage for on in (False, True)
    )
    good = sum(bool(plain.examples.row(i)["label"]) for i in range(plain.examples.count))
    assert plain.weights == (1.0, 1.0)
    assert balanced.weights[0] * good == pytest.approx(balanced.weights[1] * (plain.examples.count - good))
    assert min(balanced.weights) == 1.0


def test_warmup_steps_are_steps(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "out", "sft", warmup_steps=4, max_steps=6, compare=False)
    rates = figures(tmp_path / "out", "learning_rate")
    assert rates == pytest.approx([5e-3 * share for share in (0.25, 0.5, 0.75, 1, 1, 1)])


def test_masters_in_float32_train_bfloat16_weights(world: World, tmp_path: Path) -> None:
    settings = {"adapter": None, "weights": "bfloat16", "optimizer": "adamw_masters", "compare": False, "max_steps": 6}
    run(world, tmp_path / "whole", "sft", **settings)
    tensors = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    assert all(tensor.dtype == torch.bfloat16 for tensor in tensors.values())
    losses = figures(tmp_path / "whole", "loss")
    assert losses[-1] < losses[0]
