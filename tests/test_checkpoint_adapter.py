"""PEFT adapters on a base: what peft computes with them, and adapters that do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bottega import verbs
from bottega.checkpoint.adapter import Adapter
from bottega.checkpoint.folder import ModelFolder
from bottega.core.errors import UserError
from bottega.model.adapter_folder import load_adapter_into
from bottega.model.load import load_decoder
from bottega.model.low_rank import dense_weight
from bottega.tokenizer.tokenizer import Tokenizer
from conftest import Workshop

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {"target_modules": ["q_proj", "v_proj"], "lora_alpha": 24}),
    "rslora": ("llama", {"target_modules": ALL, "use_rslora": True}),
    "dora": ("llama", {"target_modules": ALL, "use_dora": True}),
    "patterns": ("llama", {"target_modules": ALL, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"mlp.up_proj": 3}}),
    "head and embedding": ("llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "saved modules": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]}),
    "new rows": ("llama", {"target_modules": ["q_proj"], "trainable_token_indices": [9, 5]}),
    "new rows of both": (
        "llama", {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [5, 9], "lm_head": [9, 4]}},
    ),
    "rows of a tied model": ("gpt2", {"target_modules": ["c_fc"], "trainable_token_indices": {"wte": [5, 9]}}),
    "fused": ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj"]}),
    "transposed": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "transposed dora": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "use_dora": True}),
}  # fmt: skip


def make(folder: Path, model_type: str, values: dict[str, Any], **more: Any) -> tuple[Path, Path, Any]:
    """A random base, a random adapter on it, and peft's model of both."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **{**(GPT2 if model_type == "gpt2" else SIZES), **more})
    base = transformers.AutoModelForCausalLM.from_config(config).eval()
    base.save_pretrained(folder / "base")
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, task_type="CAUSAL_LM", **values)).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name or "trainable_tokens_delta" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder / "adapter")
    return folder / "base", folder / "adapter", model


@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_peft(kind: str, tmp_path: Path) -> None:
    base, adapter, model = make(tmp_path, *KINDS[kind])
    decoder = load_decoder(ModelFolder.open(base, [adapter]))
    ids = torch.randint(97, (2, 20))
    with torch.no_grad():
        expected, ours, plain = model(ids).logits, decoder(ids), load_decoder(base)(ids)
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (ours - plain).abs().max() > 0.01 * expected.abs().max()  # the adapter does something


def test_a_tied_embedding_that_was_trained_with_the_output_layer(tmp_path: Path) -> None:
    values = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    base, adapter, model = make(tmp_path, "llama", values, tie_word_embeddings=True)
    decoder, ids = load_decoder(ModelFolder.open(base, [adapter])), torch.randint(97, (2, 20))
    with torch.no_grad():
        assert (decoder(ids) - model(ids).logits).abs().max() <= 1e-5 * decoder(ids).abs().max()
    assert decoder.lm_head.weight is decoder.model.embed_tokens.weight
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.lm_head.weight"] += 0.1
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match="is the output layer too"):
        ModelFolder.open(base, [adapter])


def test_verbs_take_an_adapter(workshop: Workshop, tmp_path: Path) -> None:
    """Measured and generated with the adapter on its base, as with peft's merged model."""
    vocab_size = Tokenizer.load(workshop.tokenizer).vocab_size
    base, adapter, model = make(tmp_path, *KINDS["lora"], vocab_size=vocab_size, max_position_embeddings=256)
    merged = tmp_path / "merged"
    model.merge_and_unload().save_pretrained(merged)
    for folder in (base, merged):
        for file in workshop.tokenizer.glob("tokenizer*"):
            shutil.copy(file, folder)
    text = tmp_path / "text.txt"
    text.write_text("The river keeps the stone. " * 20)
    with_it, whole, without = (
        {
            "bits": verbs.eval(model=str(each), text=text, adapter=adapters)["bits_per_byte"],
            "ids": verbs.generate(model=str(each), prompt="The", temperature=0, adapter=adapters)["token_ids"],
        }
        for each, adapters in ((base, [str(adapter)]), (merged, []), (base, []))
    )
    assert with_it["bits"] == pytest.approx(whole["bits"], rel=1e-5) and with_it["ids"] == whole["ids"]
    assert with_it["bits"] != pytest.approx(without["bits"], rel=1e-3)


def test_several_adapters_add_up_and_order_does_not_matter(tmp_path: Path) -> None:
    base, first, _ = make(tmp_path / "a", *KINDS["lora"])
    _, second, _ = make(tmp_path / "b", *KINDS["rslora"])
    ids = torch.randint(97, (1, 9))
    with torch.no_grad():
        one, other = (load_decoder(ModelFolder.open(base, pair))(ids) for pair in ([first, second], [second, first]))
    assert torch.allclose(one, other, atol=1e-5)


def test_a_row_of_zeros_under_dora_stays_one(tmp_path: Path) -> None:
    base, adapter, _ = make(tmp_path, *KINDS["dora"])
    name = "model.layers.0.self_attn.q_proj"
    for file, key in (
        (base / "model.safetensors", f"{name}.weight"),
        (adapter / "adapter_model.safetensors", f"base_model.model.{name}.lora_B.weight"),
    ):
        tensors = load_file(file)
        tensors[key][0] = 0.0
        save_file(tensors, file, metadata={"format": "pt"})
    merged = ModelFolder.open(base, [adapter]).tensors[f"{name}.weight"].load()
    assert merged.isfinite().all() and not merged[0].any() and merged[1:].any(1).all()
    decoder = load_decoder(base)
    load_adapter_into(decoder, adapter)
    assert torch.allclose(dense_weight(decoder.get_submodule(name)), merged, atol=1e-6)


def test_loading_is_lazy_and_the_base_is_not_changed(tmp_path: Path) -> None:
    base, adapter, _ = make(tmp_path, *KINDS["lora"])
    before = (base / "model.safetensors").read_bytes()
    tensor = ModelFolder.open(base, [adapter]).tensors["model.layers.0.self_attn.q_proj.weight"]
    assert tensor.dtype == "float32" and tensor.shape == (32, 32)
    assert not torch.equal(
        tensor.load(), ModelFolder.open(base).tensors["model.layers.0.self_attn.q_proj.weight"].load()
    )
    assert (base / "model.safetensors").read_bytes() == before


def change_config(folder: Path, **values: Any) -> None:
    data = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(data | values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "'PREFIX_TUNING' are not supported"),
        ({"bias": "all"}, "bias 'all'"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"target_parameters": ["x"]}, "target_parameters"),
        ({"r": 5}, "its config says 5"),
        ({"r": 0}, "r must be a whole number"),
        ({"lora_alpha": "x"}, "lora_alpha a number"),
        ({"rank_pattern": {"(a+)+$": 3}}, "is no module's name"),
        ({"use_dora": True}, "has no lora_magnitude_vector"),
        ({"init_lora_weights": "pissa_niter_4"}, "does not fit the original"),
    ],
)
def test_configs_that_are_refused(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    base, adapter, _ = make(tmp_path, *KINDS["lora"])
    change_config(adapter, **values)
    with pytest.raises(UserError) as error:
        ModelFolder.open(base, [adapter])
    assert said in error.value.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update({"x.lora_A.weight": torch.zeros(4, 32)}), "is no tensor of an adapter"),
        (
            lambda t: t.update({"base_model.model.lm_head.token_adapter.trainable_tokens_delta": torch.zeros(2, 32)}),
            "has no usable ids for lm_head",
        ),
        (lambda t: t.update({"base_model.model.x.lora_A.weight": torch.zeros(4, 32)}), "is no tensor of the base"),
        (lambda t: t.update({"base_model.model.x.lora_C.weight": torch.zeros(4, 32)}), "is of an unknown kind"),
        (lambda t: t.pop("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"), "lacks lora_B.weight"),
        (
            lambda t: t.update({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(4, 31)}),
            "does not fit the base's [32, 32]",
        ),
        (
            lambda t: t.update(
                {
                    f"base_model.model.model.norm.lora_{part}.weight": torch.zeros(shape)
                    for part, shape in (("A", (4, 32)), ("B", (32, 4)))
                }
            ),
            "is no matrix",
        ),
        (
            lambda t: t.update({"base_model.model.model.norm.weight": torch.zeros(5)}),
            "has the shape [5], the base's [32]",
        ),
    ],
)
def test_tensors_that_do_not_fit(change: Any, said: str, tmp_path: Path) -> None:
    base, adapter, _ = make(tmp_path, *KINDS["lora"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError) as error:
        ModelFolder.open(base, [adapter])
    assert said in error.value.message


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([5, 97], "row for token 97, the base only 97"),
        ([5, 5], "twice"),
        ([5, -1], "no usable ids"),
        ([5, True], "no usable ids"),
        ("5", "no usable ids"),
        ([5], "rows of the shape [2, 32]"),
        ({"head": [5, 6]}, "no usable ids"),
    ],
)
def test_rows_of_tokens_that_do_not_fit(ids: Any, said: str, tmp_path: Path) -> None:
    kind, values = KINDS["new rows"]
    base, adapter, _ = make(tmp_path, kind, values)
    change_config(adapter, trainable_token_indices=ids)
    with pytest.raises(UserError) as error:
        ModelFolder.open(base, [adapter])
    assert said in error.value.message


@pytest.mark.parametrize("values", [{"target_modules": ["embed_tokens"]}, {"modules_to_save": ["embed_tokens"]}])
def test_an_embedding_that_is_the_output_layer_too_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    """PEFT changes the embedding alone; in a tied model that would change the output layer as well."""
    base, adapter, _ = make(tmp_path, "llama", {"target_modules": ["q_proj"], **values}, tie_word_embeddings=True)
    with pytest.raises(UserError, match="is the output layer too"):
        ModelFolder.open(base, [adapter])


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_folders_that_are_no_adapter(missing: str, tmp_path: Path) -> None:
    _, adapter, _ = make(tmp_path, *KINDS["lora"])
    (adapter / missing).unlink()
    with pytest.raises(UserError, match=f"has no {missing}"):
        Adapter.open(adapter)


def test_the_folder_of_a_run_stands_for_its_adapter(tmp_path: Path) -> None:
    base, adapter, _ = make(tmp_path / "run", *KINDS["lora"])
    assert Adapter.open(tmp_path / "run").path == adapter
    with pytest.raises(UserError, match=r"has no config\.json") as caught:
        ModelFolder.open(tmp_path / "run")
    assert "--adapter" in caught.value.hint and str(adapter) in caught.value.hint
    shutil.copytree(base, tmp_path / "run" / "model")  # a run that wrote both would mean its model
    assert ModelFolder.open(tmp_path / "run").path == tmp_path / "run" / "model"
