"""Settings of adapters: what a model cannot have, what they come to without weights, config and card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bottega.checkpoint.adapter import Adapter, base_of_adapter
from bottega.checkpoint.adapter_base import AdapterBase
from bottega.checkpoint.adapter_writer import write_adapter
from bottega.checkpoint.card import CardText
from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.model.adapter_config import AdapterSettings
from bottega.model.adapter_folder import save_adapter
from bottega.model.adapter_targets import trainable_parameters
from bottega.model.load import load_decoder
from bottega.model.lora import (
    adapter_config,
    adapter_tensors,
    add_adapter,
)
from lora_models import TIED, Bases, adapted

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory)


@pytest.mark.parametrize(
    ("family", "values", "said"),
    [
        ("phi3", {"target_modules": ["q_proj"]}, "held in qkv_proj"),
        ("gpt2", {"target_modules": "v_proj"}, "held in c_attn"),
        ("llama", {"target_modules": ["q_prj"]}, "q_proj"),
        ("llama", {"target_modules": r".*\.7\..*"}, "names no module"),
        ("llama", {"modules_to_save": ["nrm"]}, "norm"),
        ("llama", {"new_tokens": [97]}, "no row of an embedding of 97"),
        ("llama", {"new_tokens": [3], "modules_to_save": ["embed_tokens"]}, "trained whole"),
        ("llama", {"modules_to_save": ["q_proj"]}, "adapted in another way"),
        ("llama tied", {"target_modules": ["lm_head"]}, "embedding and output layer in one"),
    ],
)
def test_settings_that_a_model_cannot_have(family: str, values: dict[str, Any], said: str, bases: Bases) -> None:
    base = bases(**TIED) if family == "llama tied" else bases(family)
    with pytest.raises(UserError) as error:
        adapted(base, **values)
    assert said in f"{error.value.message} {error.value.hint}"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"init": "pissa", "use_dora": True}, "do not go together"),
        ({"init": "pissa", "dropout": 0.1}, "dropout"),
        ({"init": "pissa", "type": "qlora"}, "base: none"),
        ({"target_modules": []}, "nothing to train"),
        ({"target_modules": "(q_proj"}, "no regular expression"),
        ({"rank_pattern": {"q_proj": 0}}, "rank"),
        ({"alpha_pattern": {"q_proj": -1.0}}, "positive"),
        ({"new_tokens": [-1]}, "not negative"),
        ({"rang": 3}, "unknown setting 'rang'"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        AdapterSettings.parse(values)
    assert AdapterSettings.parse({"type": "qlora"}).base == "nf4"


def test_planning_needs_no_weights(bases: Bases) -> None:
    """Counts from the config alone; `auto` stands for the tokens that a recipe added."""
    config = ModelConfig.read(bases())
    by_hand = 2 * 8 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    assert trainable_parameters(config, AdapterSettings(r=8)) == by_hand
    auto = AdapterSettings(r=8, new_tokens="auto")
    assert trainable_parameters(config, auto, added=(95, 96)) == by_hand + 2 * 2 * 32
    decoder = load_decoder(bases())
    assert add_adapter(decoder, auto, torch.Generator(), added=(96, 95)).ids == (95, 96)
    assert isinstance(decoder.lm_head, nn.Module) and adapter_config(decoder, "x")["trainable_token_indices"] == {
        "embed_tokens": [95, 96],
        "lm_head": [95, 96],
    }


def test_the_card_and_the_config(bases: Bases, tmp_path: Path) -> None:
    decoder = adapted(bases(), modules_to_save=("norm",))
    save_adapter(decoder, tmp_path / "adapter", bases())
    data = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    known = set(peft.LoraConfig().to_dict()) | {"peft_version"}
    assert data.keys() <= known, data.keys() - known
    assert data["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert data["modules_to_save"] == ["model.norm"] and data["base_model_name_or_path"] == str(bases())
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "library\\_name" not in card and "library_name: peft" in card and "base_model: llama" in card


@pytest.mark.parametrize(
    ("base", "name", "revision"),
    [
        ("org/small", "org/small", None),
        ("org/small@v1.0", "org/small", "v1.0"),
        ("org/small@refs/pr/3", "org/small", "refs/pr/3"),
        ("/models/small@v1", "/models/small@v1", None),
    ],
)
def test_the_revision_of_a_base_stands_apart_as_peft_reads_it(
    base: str, name: str, revision: str | None, bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = adapted(bases())
    write_adapter(
        tmp_path / "adapter", adapter_tensors(decoder), adapter_config(decoder, base), AdapterBase(name=base),
        CardText("a", "An adapter.", base_model=base),
    )  # fmt: skip
    theirs = peft.PeftConfig.from_pretrained(tmp_path / "adapter")
    assert (theirs.base_model_name_or_path, theirs.revision) == (name, revision)
    assert Adapter.open(tmp_path / "adapter").base_model == base
    assert f"base_model: {name}\n" in (tmp_path / "adapter" / "README.md").read_text()
    # A folder of that name here is a folder.
    monkeypatch.chdir(tmp_path)
    Path(base.lstrip("/")).mkdir(parents=True)
    assert adapter_config(decoder, base.lstrip("/"))["revision"] is None
    assert base_of_adapter({"base_model_name_or_path": base.lstrip("/"), "revision": "v2"}) == base.lstrip("/")
