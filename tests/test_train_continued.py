"""Training that goes on with an adapter: its settings hold, and it is the reference as it began."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bottega import verbs
from bottega.checkpoint.adapter import Adapter
from bottega.checkpoint.adapter_base import read_base
from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.hub import locate
from bottega.checkpoint.writer import expected_tensors, write_model_files, write_tensors
from bottega.core.errors import UserError
from bottega.core.progress import Quiet
from bottega.core.recipe import Chain, recipe_from
from bottega.core.record import read_record
from bottega.model.adapter_config import AdapterSettings
from bottega.model.adapter_folder import load_adapter_into, save_adapter
from bottega.model.decoder import Decoder
from bottega.model.load import load_decoder
from bottega.model.lora import adapter_parameters, add_adapter, as_started
from bottega.verbs.registry import VERBS
from interrupts import Interrupt
from processes import together
from stage_material import World, figures, make_world

TUNED: dict[str, Any] = {
    "batch_size": 8, "max_steps": 3, "learning_rate": 5e-3, "schedule": "constant", "threads": 1, "dtype": "float32",
    "compare": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(
        tmp_path_factory.mktemp("world"), layers=1, hidden_size=64, steps=10, chats_seen=64, learning_rate=4e-3,
        threads=1,
    )  # fmt: skip
    adapter = {"type": "lora", "r": 4, "alpha": 12, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]}
    verbs.train(
        stage="sft", model=made.base, data=made.data("chats"), adapter=adapter, out=made.folder / "first", **TUNED
    )
    return made


def train(world: World, out: Path, stage: str, **more: Any) -> dict[str, Any]:
    data = world.data({"dpo": "pairs", "grpo": "prompts"}.get(stage, "chats"))
    adapter = {"start": world.folder / "first", **more.pop("adapter", {})}
    given = {"stage": stage, "model": world.base, "data": data, "adapter": adapter}
    return verbs.train(out=out, **{**TUNED, **given, **more})


def test_the_reference_is_the_adapter_as_it_began(world: World, tmp_path: Path) -> None:
    train(world, tmp_path / "dpo", "dpo")
    assert figures(tmp_path / "dpo", "loss")[0] == pytest.approx(0.693147, abs=1e-6)  # nothing has moved yet: ln 2
    assert figures(tmp_path / "dpo", "margin")[0] == pytest.approx(0, abs=1e-6)
    runs = world.folder / "first", tmp_path / "dpo"
    first, second = (load_file(run / "adapter" / "adapter_model.safetensors") for run in runs)
    assert first.keys() == second.keys()
    assert all(tensor.shape == second[name].shape for name, tensor in first.items())
    assert any(not torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_an_interrupted_run_goes_on_bitwise(world: World, tmp_path: Path) -> None:
    more = {"max_steps": 4, "save_every": 2, "adapter": {"dropout": 0.2}}
    train(world, tmp_path / "whole", "dpo", **more)
    torch.manual_seed(7)
    with pytest.raises(KeyboardInterrupt):
        train(world, tmp_path / "parts", "dpo", reporter=Interrupt("dpo", 3), **more)
    train(world, tmp_path / "parts", "dpo", **more)
    assert figures(tmp_path / "parts", "loss") == figures(tmp_path / "whole", "loss")
    whole, parts = (load_file(tmp_path / run / "adapter/adapter_model.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_weights_that_are_cut_have_the_same_reference(world: World, tmp_path: Path) -> None:
    values: dict[str, Any] = {"parallel": {"strategy": "zero3"}, "max_steps": 2}
    train(world, tmp_path / "one", "dpo", **values)
    together(2, train_cut, world, tmp_path / "two", values)
    for name in ("loss", "margin"):
        assert figures(tmp_path / "two", name) == pytest.approx(figures(tmp_path / "one", name), rel=1e-4, abs=1e-5)


def train_cut(world: World, out: Path, values: dict[str, Any]) -> None:
    train(world, out, "dpo", **values)


def test_the_distance_of_a_policy_is_to_the_adapter_as_it_began(world: World, tmp_path: Path) -> None:
    rewards = [{"type": "length", "target": 24, "unit": "characters"}]
    policy = {"group": 2, "max_new_tokens": 6, "beta": 0.1}
    train(world, tmp_path / "out", "grpo", rewards=rewards, policy=policy, batch_size=4, max_steps=2)
    assert figures(tmp_path / "out", "kl")[0] == pytest.approx(0, abs=1e-6)


def test_the_comparison_is_with_the_adapter_as_it_began(world: World, tmp_path: Path) -> None:
    found = train(world, tmp_path / "out", "sft", learning_rate=1e-9, compare=True)
    assert found["comparison"]["general"]["kl_mean"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "kind", [{}, {"use_dora": True}, {"init": "pissa"}, {"new_tokens": (3, 6)}, {"modules_to_save": ("norm",)}], ids=str
)
def test_as_started_is_what_was_read_and_leaves_what_is_trained(world: World, tmp_path: Path, kind: Any) -> None:
    ids = torch.arange(1, 9)[None]
    first = load_decoder(world.base)
    add_adapter(first, AdapterSettings.parse({"r": 4, **kind}), torch.Generator().manual_seed(0))
    move(first, 0.05)
    save_adapter(first, tmp_path / "adapter", world.base)
    decoder = load_decoder(world.base)
    info = load_adapter_into(decoder, tmp_path / "adapter")
    move(decoder, 0.1)
    trained = {name: parameter for name, parameter in decoder.named_parameters() if parameter.requires_grad}
    assert trained.keys() == adapter_parameters(decoder).keys()
    assert sum(parameter.numel() for parameter in trained.values()) == info.trainable
    with torch.no_grad():
        moved = decoder(ids)
        with as_started(decoder):
            torch.testing.assert_close(decoder(ids), first(ids), rtol=1e-4, atol=1e-5)
        assert torch.equal(decoder(ids), moved) and not torch.allclose(moved, first(ids), atol=1e-3)


@torch.no_grad()
def move(decoder: Decoder, amount: float) -> None:
    for parameter in adapter_parameters(decoder).values():
        parameter.add_(amount)


def test_settings_come_from_the_file_and_may_not_contradict_it(world: World, tmp_path: Path) -> None:
    found = train(world, tmp_path / "out", "sft", adapter={"type": "lora", "dropout": 0.1})
    assert found["steps"] == 3
    record = read_record(tmp_path / "out")
    assert record is not None
    assert [record.config["adapter"][name] for name in ("r", "use_rslora", "dropout")] == [4, True, 0.1]
    same = {"target_modules": "(.*)(q_proj|down_proj)", "alpha": 12, "r": 4}  # in other words
    assert train(world, tmp_path / "same", "sft", adapter=same)["steps"] == 3
    with pytest.raises(UserError, match=r"target_modules is 1 modules \(q_proj\), and .* has 2 modules"):
        train(world, tmp_path / "wrong", "sft", adapter={"target_modules": "q_proj"})
    with pytest.raises(UserError, match=r"adapter\.base is 'nf4', and"):
        train(world, tmp_path / "wrong", "sft", adapter={"type": "qlora"})
    with pytest.raises(UserError, match=r"adapter\.r is 8, and the adapter to go on with has 4"):
        train(world, tmp_path / "wrong", "sft", adapter={"r": 8})
    with pytest.raises(UserError, match="there is no"):
        train(world, tmp_path / "none", "sft", adapter={"start": tmp_path / "nowhere"})


def test_pefts_files_do_not_say_how_the_base_was_rounded(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.folder / "first" / "adapter", tmp_path / "theirs")
    (tmp_path / "theirs" / "bottega.json").unlink()
    train(world, tmp_path / "out", "sft", adapter={"start": tmp_path / "theirs", "type": "qlora"})
    assert read_base(Adapter.open(tmp_path / "out")).rounding == "nf4"


def test_an_adapter_of_another_shape_is_refused_before_weights_are_read(world: World, tmp_path: Path) -> None:
    config = replace(ModelFolder.open(world.base).config, intermediate_size=96)
    shutil.copytree(locate(world.base), tmp_path / "other")
    write_model_files(tmp_path / "other", config)
    tensors = {name: torch.zeros(info.shape) for name, info in expected_tensors(config).items()}
    write_tensors(tmp_path / "other", tensors)
    with pytest.raises(UserError, match=r"adapter\.start: the adapter .* does not fit: .*down_proj") as error:
        verbs.plan("train", stage="sft", model=tmp_path / "other", data=world.data("chats"), out=tmp_path / "out",
                   adapter={"start": world.folder / "first"})  # fmt: skip
    assert str(locate(world.base)) in error.value.message


def test_a_chain_is_planned_before_anything_is_there_and_runs(world: World, tmp_path: Path) -> None:
    """sft, dpo on its adapter, merge, eval of both: what is merged measures as the adapter on its base."""
    text = tmp_path / "text.txt"
    text.write_text("The word is river. Say the word river. " * 20)
    brief = {**TUNED, "max_steps": 2, "verb": "train", "model": str(world.base)}
    measured = {"verb": "eval", "text": str(text), "threads": 1, "dtype": "float32"}
    steps: dict[str, dict[str, Any]] = {
        "tuned": {**brief, "stage": "sft", "data": str(world.data("chats")), "adapter": {"r": 2, "init": "pissa"}},
        "aligned": {**brief, "stage": "dpo", "data": str(world.data("pairs")), "adapter": {"start": "${tuned}"}},
        "merged": {"verb": "adapter merge", "adapter": "${aligned}", "threads": 1, "measure": 16},
        "together": {**measured, "model": ["${merged}"]},
        "apart": {**measured, "model": [str(world.base)], "adapter": "${aligned}"},
        "before": {**measured, "model": [str(world.base)]},
        "more": {**brief, "stage": "sft", "data": str(world.data("chats")), "model": "${merged}"},
    }
    chain = Chain(recipe_from({"steps": steps}, "chain.yaml"), tmp_path / "work", VERBS)
    planned = {step.name: step.plan for step in chain.plan()}
    assert [check for plan in planned.values() for check in plan.checks if not check.passed] == []
    adapter = planned["aligned"].config.as_data()["adapter"]
    assert (adapter["r"], adapter["init"]) == (4, "default")  # as PiSSA leaves it
    assert planned["merged"].work[0].startswith("7 of ")
    done = {step.name: step for step in chain.run(Quiet())}
    assert done["merged"].plan.work[0].startswith("7 of ")  # as was foreseen
    values = {name: step.result.data.get("bits_per_byte") for name, step in done.items() if step.result}
    assert values["together"] == pytest.approx(values["apart"], rel=1e-5)
    assert values["apart"] != pytest.approx(values["before"], rel=1e-4)
    assert all(step.done for step in chain.plan())
    chain.recipe.steps["aligned"]["model"] = "${tuned}"
    with pytest.raises(UserError, match="will be an adapter, but a model is needed here"):
        Chain(chain.recipe, tmp_path / "anew", VERBS).plan()
