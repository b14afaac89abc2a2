"""An adapter on another base than its own: said once, in words, by whatever reads it; and never for the right one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bottega import verbs
from bottega.checkpoint.adapter import Adapter
from bottega.checkpoint.adapter_base import SAMPLE_BYTES, base_doubt, read_base, weights_sample
from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.hub import locate
from bottega.checkpoint.writer import write_tensors
from bottega.core.plan import Specs
from bottega.core.progress import Quiet
from bottega.serve.command import check_models
from bottega.serve.config import Serve
from stage_material import World, make_world


class Listener(Quiet):
    """A reporter that remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    @property
    def doubts(self) -> list[str]:
        return [each for each in self.said if each.startswith("adapter's base")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A base with an adapter, and `other`: the same shapes, one matrix of one layer moved."""
    made = make_world(
        tmp_path_factory.mktemp("world"), layers=1, hidden_size=64, steps=4, chats_seen=32, learning_rate=4e-3,
        threads=1,
    )  # fmt: skip
    verbs.train(
        stage="sft", model=made.base, data=made.data("chats"), adapter={"type": "lora", "r": 2}, batch_size=8,
        max_steps=2, threads=1, dtype="float32", compare=False, out=made.folder / "tuned",
    )  # fmt: skip
    other = shutil.copytree(locate(made.base), made.folder / "other")
    tensors = {name: tensor.load() for name, tensor in ModelFolder.open(other).tensors.items()}
    tensors["model.layers.0.mlp.down_proj.weight"] += 1e-3
    write_tensors(other, tensors)
    return made


def calls(world: World, model: Path, out: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Verbs that put the adapter on `model`, with their settings."""
    adapter = str(world.folder / "tuned")
    text = world.folder / "text" / "0.txt"
    common: dict[str, Any] = {"threads": 1, "dtype": "float32"}
    start = {"stage": "sft", "data": world.data("chats"), "batch_size": 8, "max_steps": 1, "compare": False}
    return {
        "generate": ("generate", {"model": str(model), "adapter": (adapter,), "prompt": "a", "max_new_tokens": 2}),
        "eval": ("eval", {"model": (str(model),), "adapter": (adapter,), "text": text, **common}),
        "train": ("train", {"model": model, "adapter": {"start": adapter}, "out": out / "t", **start, **common}),
        "merge": ("adapter_merge", {"model": str(model), "adapter": (adapter,), "force": True, "out": out / "m"}),
    }


@pytest.mark.parametrize("name", ["generate", "eval", "train", "merge"])
def test_another_base_is_said_once(world: World, tmp_path: Path, name: str) -> None:
    verb, settings = calls(world, world.folder / "other", tmp_path / "a")[name]
    getattr(verbs, verb)(reporter=(heard := Listener()), **settings)
    assert len(heard.doubts) == 1 and str(world.folder / "other") in heard.doubts[0] and "are others" in heard.doubts[0]
    verb, settings = calls(world, world.base, tmp_path / "b")[name]
    getattr(verbs, verb)(reporter=(heard := Listener()), **settings)
    assert heard.doubts == []


def test_a_server_says_so_of_each(world: World) -> None:
    for folder, doubtful in ((world.folder / "other", True), (world.base, False)):
        config = Serve(model=(f"m={folder}",), adapter=(f"a={world.folder / 'tuned'}",))
        assert any(check.warns for check in check_models(config, Specs())[1]) == doubtful


def test_a_plan_notes_it(world: World, tmp_path: Path) -> None:
    name, settings = calls(world, world.folder / "other", tmp_path)["generate"]
    found = [check for check in verbs.plan(name, **settings)["checks"] if check["warns"]]
    assert len(found) == 1 and found[0]["passed"]


def test_a_copy_is_the_same_base(world: World, tmp_path: Path) -> None:
    copy = shutil.copytree(locate(world.base), tmp_path / "copy")
    (copy / "README.md").write_text("another card")
    assert base_doubt(Adapter.open(world.folder / "tuned"), copy) == ""


def test_pefts_adapters_are_told_by_names(world: World, tmp_path: Path) -> None:
    theirs = shutil.copytree(world.folder / "tuned" / "adapter", tmp_path / "theirs")
    (theirs / "bottega.json").unlink()
    config = json.loads((theirs / "adapter_config.json").read_text())

    def doubt(base: str | None, revision: str | None, model: Path) -> str:
        named = config | {"base_model_name_or_path": base, "revision": revision}
        (theirs / "adapter_config.json").write_text(json.dumps(named))
        return base_doubt(Adapter.open(theirs), model)

    other = world.folder / "other"
    assert doubt("org/Other", "v1", other) == "" == doubt(None, None, other)
    assert "names org/model-7b@v1 as its base" in doubt("org/model-7b", "v1", other)
    copy = shutil.copytree(other, tmp_path / "copy")  # a folder may say where it came from
    (copy / "config.json").write_text(json.dumps(json.loads((copy / "config.json").read_text()) | {
        "_name_or_path": "org/model-7b"}))  # fmt: skip
    assert doubt("org/model-7b", None, copy) == ""


def test_a_sample_sees_each_block_and_the_size(tmp_path: Path) -> None:
    tensor = torch.zeros(64 * SAMPLE_BYTES // 4)
    found = set()
    for changed in (None, 0, len(tensor) - 1, "longer"):
        values = tensor.clone() if changed != "longer" else torch.zeros(len(tensor) + 8)
        if isinstance(changed, int):
            values[changed] = 1
        write_tensors(tmp_path, {"weight": values})
        found.add(weights_sample(tmp_path))
    assert len(found) == 4


def test_the_sample_is_written_beside_the_hash(world: World) -> None:
    origin = read_base(Adapter.open(world.folder / "tuned"))
    assert len(origin.sha256) == 64 and origin.sample == weights_sample(world.base)
