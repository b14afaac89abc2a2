"""`show`, the spec and the model card."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from bottega.checkpoint.card import CardText, escape, front_matter, model_card, write_card
from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.show import ShowModel, describe, plan_show, run_show, view
from bottega.checkpoint.spec import ModelSpec
from bottega.cli import render
from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.core.progress import Quiet
from bottega.core.record import Record
from bottega.core.verb import Context
from bottega.core.view import Spans, Table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config).bfloat16()
    model.generation_config.eos_token_id = [2, 7]
    path = tmp_path / "model"
    model.save_pretrained(path)
    return path


def show(folder: Path, *context: int) -> tuple[dict, list]:
    config = ShowModel(model=str(folder), context=list(context) or [1024])
    result = run_show(plan_show(config, Specs()), Context(Quiet()))
    json.dumps(result.data)  # is JSON
    return result.data, result.view


def test_the_numbers(folder: Path):
    data, view = show(folder, 64, 128)
    model = LlamaForCausalLM.from_pretrained(folder)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert data["parameters"]["total"] == total
    assert data["parameters"]["embedding"] == data["parameters"]["head"] == 96 * 32
    assert data["memory_bytes"] == {"float32": 4 * total, "bfloat16": 2 * total, "int8": total, "4-bit": total // 2}
    cache = model(torch.zeros(1, 64, dtype=torch.long), use_cache=True).past_key_values
    size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)  # in bfloat16
    assert data["kv_cache_bytes"]["64"] == {"float32": 2 * size, "bfloat16": size}
    assert data["dtypes"] == {"bfloat16": 21} and data["stored_bytes"] == 2 * total
    assert data["special_tokens"]["stop"] == [2, 7]
    assert data["licence"] is None and data["template"] is None and not data["has_tokenizer"]
    assert any(isinstance(block, Table) and "made for 64 tokens" in block.note for block in view)


def test_tokenizer_template_licence_and_parents(folder: Path):
    (folder / "tokenizer.json").write_text("{}")
    tokenizer = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "old"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    config = ModelConfig.read(folder)
    record = Record("train", 1, "0" * 64, {}, {"tokens": {"path": "../tokens", "sha256": "1" * 64}})
    write_card(folder, config, CardText("A model", "It talks.", "apache-2.0"), record)
    record.write(folder)
    data, view = show(folder)
    assert data["special_tokens"]["text"] == {"bos_token": "<s>", "eos_token": "</s>"}
    assert data["has_tokenizer"] and data["template"] == "old" and data["licence"] == "apache-2.0"
    assert data["parents"] == ["../tokens"]
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    spec = ModelSpec.read(folder)
    assert spec.template == "{{ messages }}" and spec.stop_ids == (2, 7)
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        ModelSpec.read(folder)
    assert any(isinstance(block, Spans) for block in view)


@pytest.mark.parametrize("content", ["{", "[" * 100_000])
def test_damaged_tokenizer_config(folder: Path, content: str):
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer_config\.json"):
        ModelSpec.read(folder)


def test_the_card(folder: Path):
    record = Record(
        "train",
        1,
        "f" * 64,
        {"learning_rate": 1e-3, "out": "/secret/place", "tokens": "/secret/tokens", "seed": None},
        {"tokens": {"path": "/home/me/tokens", "sha256": "abcdef" * 10}},
        metrics={"bits_per_byte": 1.23456789, "final": {"loss": 2.0}, "curve": [1, 2]},
        environment={"versions": {"torch": "2.13.0"}},
        seconds=61.2,
    )
    text = CardText(
        "Small",
        "A small model.",
        "mit",
        data=["1,000 pages"],
        limits=["It knows little."],
        tags=["python"],
        base_model="org/base",
    )
    card = model_card(ModelConfig.read(folder), text, record)
    assert front_matter(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "mit",
        "tags": ["bottega", "python"],
        "base_model": "org/base",
    }
    for line in (
        "| bits\\_per\\_byte | 1.23457 |",
        "| final.loss | 2 |",
        "| learning\\_rate | 0.001 |",
        "- 1,000 pages",
    ):
        assert line in card.splitlines()
    assert "abcdefabcdefabcd" in card and "curve" not in card
    assert "/home/me" not in card and "/secret" not in card  # a card is published: no paths of this machine


HOSTILE = "<script>alert(1)</script> | [x](javascript:y) `a` *b* &lt; \n# heading\n---\nlicense: mit"


def test_text_cannot_become_markup(folder: Path):
    record = Record("train", 1, "f" * 64, {"note": HOSTILE}, {HOSTILE: {"path": HOSTILE, "sha256": "0"}})
    card = model_card(ModelConfig.read(folder), CardText(HOSTILE, HOSTILE, data=[HOSTILE], limits=[HOSTILE]), record)
    assert "<script" not in card and "[x](" not in card
    assert "license" not in front_matter(card)
    assert not [line for line in card.splitlines() if line.startswith("# heading")]
    rows = [line for line in card.splitlines() if line.startswith("| note")]
    assert len(rows) == 1 and rows[0].replace("\\|", "").count("|") == 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1. a", "&#49;. a"),
        ("- a", "\\- a"),
        ("# a", "\\# a"),
        ("2.5 a-b", "2.5 a-b"),
        ("a_b", "a\\_b"),
        ("=", "\\="),
        ("", ""),
    ],
)
def test_escape(text: str, shown: str):
    assert escape(text) == shown


@pytest.mark.parametrize(
    "card",
    [
        "",
        "# no front",
        "---\nlicense: mit",
        "---\n- a\n---\n",
        "---\n{: [\n---\n",
        "---\n!!python/object:os.system {}\n---\n",
    ],
)
def test_no_front_matter(card: str):
    assert front_matter(card) == {}


@pytest.mark.parametrize(
    ("model_type", "values", "said"),
    [
        ("mixtral", {"num_local_experts": 4, "sliding_window": 8}, ["2 of 4 for a token", "8 tokens in 2 of 2 layers"]),
        ("gemma2", {"head_dim": 8}, ["capped", "scores at 50, logits at 30", "RMSNorm, both"]),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, ["2 × 32", "learned", "plain, gelu_new", "LayerNorm"]),
        ("bloom", {"n_layer": 2, "n_head": 4}, ["linear biases (ALiBi)"]),
        ("smollm3", {"no_rope_layer_interval": 2}, ["none in 1 layers"]),
        ("gpt_neox", {}, ["on 25% of a head"]),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            ["linear scaling, factor 2"],
        ),
    ],
)
def test_families_say_what_is_their_own(
    model_type: str, values: dict[str, Any], said: list[str], tmp_path: Path
) -> None:
    sizes = {
        "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    common = {"gpt2": ("vocab_size",), "bloom": ("vocab_size", "hidden_size"), "gpt_neox": tuple(sizes)[:5]}
    kept = {key: sizes[key] for key in (*common.get(model_type, tuple(sizes)), "bos_token_id", "eos_token_id")}
    config = transformers.AutoConfig.for_model(model_type, **kept, **values)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    plan = plan_show(ShowModel(model=str(tmp_path)), Specs())
    data = describe(plan.details["spec"], tmp_path, [1024])
    console = Console(width=160, record=True, file=io.StringIO())
    render.show(view(data), console)
    text = console.export_text()
    assert all(words in text for words in said), text
    assert data["parameters"]["active"] <= data["parameters"]["total"]
