"""ModelFolder: single, sharded, tied, legacy; and folders that are not what their config says."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.spec import ModelSpec
from bottega.core.errors import UserError


def make(folder: Path, tied: bool = False, **save) -> dict[str, torch.Tensor]:
    """A random model saved by transformers; its state dict."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder, **save)
    return model.state_dict()


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_what_transformers_saved(tmp_path: Path, tied: bool, shard: str):
    state = make(tmp_path, tied, max_shard_size=shard)
    assert (shard == "20KB") == (tmp_path / "model.safetensors.index.json").exists()
    folder = ModelFolder.open(str(tmp_path))
    expected = {name for name in state if not (tied and name == "lm_head.weight")}
    assert set(folder.tensors) == expected
    assert all(torch.equal(folder.tensors[name].load(), state[name]) for name in expected)
    assert folder.generation_config["eos_token_id"] == 2
    spec = ModelSpec.read(tmp_path)
    assert spec.tensors == {name: tensor.info for name, tensor in folder.tensors.items()}
    assert spec.nbytes == 4 * folder.config.parameter_count()


def test_loading_is_lazy_and_private(tmp_path: Path):
    make(tmp_path)
    file = tmp_path / "model.safetensors"
    before = file.read_bytes()
    tensor = ModelFolder.open(tmp_path).tensors["model.norm.weight"].load()
    tensor.add_(1)  # the file's pages are copied on write
    assert file.read_bytes() == before
    assert torch.equal(tensor, torch.full((32,), 2.0))


def test_a_tensor_outlives_the_folder(tmp_path: Path):
    state = make(tmp_path)
    tensor = ModelFolder.open(tmp_path).tensors["lm_head.weight"].load()
    (tmp_path / "model.safetensors").unlink()
    assert torch.equal(tensor, state["lm_head.weight"])


def test_tied_stored_twice_or_under_the_other_name(tmp_path: Path):
    state = make(tmp_path, tied=True)
    embedding = state["model.embed_tokens.weight"]
    rewrite(tmp_path, lambda tensors: tensors.update({"lm_head.weight": embedding.clone()}))
    assert "lm_head.weight" not in ModelFolder.open(tmp_path).tensors
    rewrite(tmp_path, lambda tensors: tensors.pop("model.embed_tokens.weight"))
    assert torch.equal(ModelFolder.open(tmp_path).tensors["model.embed_tokens.weight"].load(), embedding)
    rewrite(tmp_path, lambda tensors: tensors.update({"model.embed_tokens.weight": embedding + 1}))
    with pytest.raises(UserError, match="a different lm_head"):
        ModelFolder.open(tmp_path)


def test_untied_without_its_output_layer(tmp_path: Path):
    make(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(UserError) as error:
        ModelFolder.open(tmp_path)
    assert "1 missing (lm_head.weight)" in error.value.message and "tie_word_embeddings" in error.value.hint


def test_wrong_tensors_are_named_in_one_error(tmp_path: Path):
    make(tmp_path)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for i in range(5):
            tensors[f"extra.{i}"] = torch.zeros(1)
        del tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.norm.weight"] = torch.zeros(31)

    rewrite(tmp_path, change)
    for read in (ModelFolder.open, ModelSpec.read):
        with pytest.raises(UserError) as error:
            read(tmp_path)
        assert "1 missing (model.layers.1.mlp.up_proj.weight)" in error.value.message
        assert "5 unexpected (extra.0, extra.1, extra.2, …)" in error.value.message
        assert "1 of another shape (model.norm.weight [31] instead of [32])" in error.value.message


def test_old_buffers_are_ignored(tmp_path: Path):
    make(tmp_path)
    rewrite(tmp_path, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}))
    assert len(ModelFolder.open(tmp_path).tensors) == 21


@pytest.mark.parametrize("sharded", [False, True])
def test_legacy_bin(tmp_path: Path, sharded: bool):
    state = make(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    if sharded:
        names = list(state)
        for number, part in enumerate((names[:5], names[5:])):
            torch.save({name: state[name] for name in part}, tmp_path / f"pytorch_model-{number}.bin")
        places = {name: f"pytorch_model-{int(i >= 5)}.bin" for i, name in enumerate(names)}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    else:
        torch.save(state, tmp_path / "pytorch_model.bin")
    tensors = ModelFolder.open(tmp_path).tensors
    assert all(torch.equal(tensors[name].load(), tensor) for name, tensor in state.items())
    assert ModelSpec.read(tmp_path).tensors["lm_head.weight"].shape == (96, 32)


class Attack:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", ["attack", "pickle", "list", "garbage", "not a tensor"])
def test_hostile_bin(tmp_path: Path, content: str):
    make(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    file, touched = tmp_path / "pytorch_model.bin", tmp_path / "touched"
    if content == "attack":
        torch.save({"model.norm.weight": Attack(touched)}, file)
    elif content == "pickle":
        file.write_bytes(pickle.dumps({"a": Attack(touched)}))
    elif content == "garbage":
        file.write_bytes(b"garbage")
    else:
        torch.save([torch.zeros(1)] if content == "list" else {"model.norm.weight": 3}, file)
    with pytest.raises(UserError):
        ModelFolder.open(tmp_path)
    assert not touched.exists()


@pytest.mark.parametrize("tensor", [torch.ones(4).to_sparse(), torch.empty(4, device="meta")])
def test_tensors_without_plain_values_are_refused(tmp_path: Path, tensor: torch.Tensor):
    make(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"model.norm.weight": tensor}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="has no plain values"):
        ModelFolder.open(tmp_path)


def test_no_weights(tmp_path: Path):
    make(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights"):
        ModelFolder.open(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path):
    make(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        ModelFolder.open(tmp_path / "model.safetensors")


def test_headers_are_read_without_torch(tmp_path: Path):
    make(tmp_path)
    code = (
        "import sys; from pathlib import Path; from bottega.checkpoint.show import *\n"
        f"run_show(plan_show(ShowModel(model={str(tmp_path)!r}), Specs()), None)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
