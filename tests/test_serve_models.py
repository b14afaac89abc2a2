"""Several models and adapters behind one server: names, loading on demand, room for few, adapters in one batch."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from starlette.testclient import TestClient

from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.generate.generator import Generator
from bottega.generate.sampling import Sampling
from bottega.serve.command import load_generator, open_models, plan_serve
from bottega.serve.config import Serve
from bottega.serve.engine import Order
from bottega.serve.failures import ApiError
from bottega.serve.models import Models, sources_of
from test_serve_api import make_app, make_model

ASK: dict[str, Any] = {"prompt": "The panel", "max_tokens": 12, "temperature": 0}
SAMPLING = Sampling(max_new_tokens=12, temperature=0)


def make_adapter(folder: Path, seed: int) -> Path:
    """A random LoRA adapter in PEFT's layout, strong enough to change what is said."""
    folder.mkdir()
    source = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(2):
        for name, out in (("q_proj", 64), ("v_proj", 32)):
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{place}.lora_A.weight"] = torch.randn((4, 64), generator=source)
            tensors[f"{place}.lora_B.weight"] = torch.randn((out, 4), generator=source)
    save_file(tensors, folder / "adapter_model.safetensors")
    values = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, `one` and `two`, and two adapters, `red` and `blue`."""
    root = tmp_path_factory.mktemp("models")
    make_model(root / "one")
    shutil.copytree(root / "one", root / "two")
    make_adapter(root / "red", 1)
    make_adapter(root / "blue", 2)
    return root


def test_names_of_models_and_adapters(folders: Path) -> None:
    def names(model: list[str], adapter: list[str] = [], **more: Any) -> dict[str, list[str]]:  # noqa: B006
        places = {"model": [text.replace("@", f"{folders}/") for text in model]}
        config = Serve.parse({**places, "adapter": [text.replace("@", f"{folders}/") for text in adapter], **more})
        return {source.name: list(source.adapters) for source in sources_of(config)}

    assert names(["@one", "deux=@two"]) == {"one": [], "deux": []}
    assert names(["@one"], ["@red", "azure=@blue"], name="own") == {"own": ["red", "azure"]}
    assert names(["@one", "@two"], ["two:@red", "one:azure=@blue"]) == {"one": ["azure"], "two": ["red"]}
    for wrong in (
        {"model": ["@one", "@one"]},
        {"model": ["@one"], "adapter": ["@red", "@red"]},
        {"model": ["@one"], "adapter": ["one=@red"]},
        {"model": ["@one", "@two"], "adapter": ["@red"]},
        {"model": ["@one", "@two"], "name": "own"},
        {"model": ["@nothing"]},
        {"model": []},
    ):
        with pytest.raises(UserError):
            names(**wrong)  # pyright: ignore[reportArgumentType]


def test_the_plan_checks_every_model_and_adapter(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    config = Serve.parse({"model": [f"{folders}/one", f"{folders}/two"], "adapter": [f"two:{tmp_path}/bad"], "port": 0})
    plan = plan_serve(config, Specs())
    assert list(plan.inputs) == ["one", "two"]
    assert [check.name for check in plan.checks if not check.passed] == ["adapter"]


def test_models_are_loaded_when_asked_for(folders: Path) -> None:
    app = make_app(folders / "one", model=[f"{folders}/one", f"zwei={folders}/two"])
    with TestClient(app, base_url="http://localhost") as inside:

        def loaded() -> dict[str, bool]:
            return {card["id"]: card["bottega"]["loaded"] for card in inside.get("/v1/models").json()["data"]}

        assert loaded() == {"one": True, "zwei": False}
        answers = [inside.post("/v1/completions", json={**ASK, "model": name}).json() for name in ("one", "zwei")]
        assert answers[0]["choices"] == answers[1]["choices"] and answers[1]["model"] == "zwei"
        assert loaded() == {"one": True, "zwei": True}
        unknown = inside.post("/v1/completions", json={**ASK, "model": "two"})
        assert unknown.status_code == 404 and "'one', 'zwei'" in unknown.json()["error"]["message"]
        assert inside.post("/tokenize", json={"prompt": "a"}).json()["error"]["param"] == "model"


def test_the_one_not_used_for_longest_makes_room_and_a_busy_one_does_not(folders: Path) -> None:
    settings = {"model": [f"{name}={folders}/{name[:3]}" for name in ("one", "two", "two-b")], "max_loaded": 2}

    async def ask() -> None:
        config = Serve.parse({**settings, "threads": 1})
        models = open_models(config, sources_of(config))

        async def use(name: str) -> None:
            async with models.using(name) as served:
                jobs = served.engine.submit([Order([260], SAMPLING)])
            async for _ in jobs.pieces():
                pass

        def loaded() -> list[str]:
            return [card.id for card in models.cards() if card.bottega.loaded]

        for name in ("one", "two", "one", "two-b"):
            await use(name)
        assert loaded() == ["one", "two-b"]
        counted = models.statistics()["two"]["generated_tokens"]
        assert counted == 12  # also after it has gone
        async with models.using("one"), models.using("two-b"):
            with pytest.raises(ApiError) as caught:
                await use("two")
            assert caught.value.status == 503 and "Retry-After" in caught.value.headers
        long = Order([260], Sampling(max_new_tokens=3000, temperature=0, ignore_eos=True))
        async with models.using("one") as served:
            jobs = served.engine.submit([long])  # busy: two-b has to go, though it was used later
        async with models.using("two-b"):
            pass
        await use("two")
        assert loaded() == ["one", "two"] and jobs.live
        assert models.statistics()["two"]["generated_tokens"] == 2 * counted
        await models.stop()

    asyncio.run(ask())


def test_a_model_that_cannot_be_loaded_is_our_failure_and_the_others_are_served(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "two", tmp_path / "two")
    app = make_app(folders / "one", model=[f"{folders}/one", f"{tmp_path}/two"])
    weights = tmp_path / "two" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with TestClient(app, base_url="http://localhost") as inside:
        broken = inside.post("/v1/completions", json={**ASK, "model": "two"})
        assert broken.status_code == 500 and "'two' cannot be loaded" in broken.json()["error"]["message"]
        assert inside.post("/v1/completions", json={**ASK, "model": "one"}).status_code == 200


def test_adapters_are_models_of_their_own_in_one_batch(folders: Path) -> None:
    adapters = {name: str(folders / name) for name in ("red", "blue")}
    prompt = Generator.load(folders / "one", threads=1).prompt_ids("The panel", chat=False)
    expected = {"one": Generator.load(folders / "one", threads=1).complete(prompt, SAMPLING).text}
    for name, place in adapters.items():
        merged = Generator.load(folders / "one", adapters=[place], threads=1)
        expected[name] = merged.complete(prompt, SAMPLING).text
    assert len(set(expected.values())) == 3
    with TestClient(make_app(folders / "one", adapter=list(adapters.values())), base_url="http://localhost") as inside:
        cards = inside.get("/v1/models").json()["data"]
        assert [(card["id"], card.get("parent")) for card in cards] == [("one", None), ("red", "one"), ("blue", "one")]
        for name in ("one", "red", "blue", "one:red", "one:blue"):
            answer = inside.post("/v1/completions", json={**ASK, "model": name}).json()
            assert answer["choices"][0]["text"] == expected[name.rpartition(":")[2]], name
        plain = {"model": "one", "input": "The panel"}
        before = inside.post("/v1/embeddings", json=plain).json()["data"]
        assert inside.post("/v1/completions", json={**ASK, "model": "red"}).status_code == 200
        assert inside.post("/v1/embeddings", json=plain).json()["data"] == before
        assert inside.post("/v1/embeddings", json={**plain, "model": "red"}).status_code == 400

    async def together() -> dict[str, str]:
        config = Serve.parse({"model": f"{folders}/one", "adapter": list(adapters.values()), "threads": 1})
        models: Models = open_models(config, sources_of(config))
        models.adopt(load_generator(config, sources_of(config)[0]))

        async def ask(name: str) -> str:
            async with models.using(name) as served:
                jobs = served.engine.submit([Order(prompt, SAMPLING, served.adapter)])
            return "".join([piece.text async for items in jobs.pieces() for _, piece in items if piece is not None])

        texts = await asyncio.gather(*map(ask, expected))
        await models.stop()
        return dict(zip(expected, texts, strict=True))

    assert asyncio.run(together()) == expected
