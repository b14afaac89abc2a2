"""Model folders that want to do harm, or were damaged on the way: one error of ours each, soon, and little memory.

Every file of a small folder is mutated as JSON and as bytes; whatever comes of it, opening, reading and computing
either work or end in a UserError.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bottega.checkpoint.adapter import Adapter
from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.spec import ModelSpec
from bottega.core.errors import UserError
from bottega.model.load import load_decoder
from bottega.tokenizer.tokenizer import Tokenizer
from conftest import Workshop

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 384, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": {
        "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8},
    "qwen2_moe": {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 8},
}  # fmt: skip
JSON_FILES = ("config.json", "model.safetensors.index.json", "tokenizer_config.json", "generation_config.json")


@pytest.fixture(scope="module")
def folders(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sharded folder with a tokenizer of each of three families, and an adapter."""
    found = {}
    for model_type, values in FAMILIES.items():
        folder = tmp_path_factory.mktemp("hostile") / model_type
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(model_type, **SIZES, **values)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder, max_shard_size="20KB")
        for file in workshop.tokenizer.iterdir():
            if file.name.startswith(("tokenizer", "special", "chat")):
                shutil.copy(file, folder)
        found[model_type] = folder
    return found


def use(folder: Path) -> str:
    """Open, read, compute; "" or the error's message. Anything but a UserError escapes."""
    try:
        ModelSpec.read(folder)
        Tokenizer.load(folder).encode("The river keeps the stone.")
        decoder = load_decoder(ModelFolder.open(folder))
        with torch.no_grad():
            decoder(torch.tensor([[1, 2, 3]]))
    except UserError as error:
        return error.message
    return ""


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.sampled_from([10**9, 2**40, 2**63, -(2**31), 10**400]),
    st.floats(), st.text(max_size=8),
    st.sampled_from([[], {}, [1] * 50, [[[[]]]], "../../etc/passwd", "\x00", "/dev/zero"]),
)  # fmt: skip


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in inside for path in paths(item, (*at, key)))][:400]


def changed(value: Any, data: st.DataObject) -> Any:
    """The JSON value with one to three values inside it replaced, taken out, or added."""
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(paths(value)))
        if not path:
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        action = data.draw(st.sampled_from(["replace", "drop", "rename"]))
        if action == "replace" or isinstance(holder, list):
            holder[path[-1]] = copy.deepcopy(data.draw(VALUES))  # the lists among them would be shared
        elif action == "drop":
            del holder[path[-1]]
        else:
            holder[data.draw(st.text(max_size=6))] = holder.pop(path[-1])
    return value


def damage(folder: Path, target: Path, data: st.DataObject) -> None:
    """Copy `folder` to `target` and change one of its files."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    weights = sorted(path.name for path in target.glob("*.safetensors"))
    name = data.draw(st.sampled_from([*JSON_FILES, "tokenizer.json", *weights]))
    file = target / name
    if name.endswith(".safetensors") and data.draw(st.booleans()):
        content = file.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.dumps(changed(json.loads(content[8 : 8 + length]), data)).encode()
        file.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    elif name in JSON_FILES:
        file.write_text(json.dumps(changed(json.loads(file.read_text()), data)))
    else:
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, min(len(content), 4000) - 1))] = data.draw(st.integers(0, 255))
        file.write_bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])


def check_damaged(folders: dict[str, Path], target: Path, data: st.DataObject) -> None:
    shutil.rmtree(target, ignore_errors=True)
    damage(folders[data.draw(st.sampled_from(sorted(folders)))], target, data)
    use(target)


LOOSE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=100, deadline=20_000, suppress_health_check=LOOSE)
@given(data=st.data())
def test_a_damaged_folder_is_read_or_refused(folders: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    check_damaged(folders, tmp_path / "m", data)


@pytest.mark.slow
@settings(max_examples=2000, deadline=20_000, suppress_health_check=LOOSE)
@given(data=st.data())
def test_many_damaged_folders(folders: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    check_damaged(folders, tmp_path / "m", data)


def test_the_folders_are_good(folders: dict[str, Path]) -> None:
    assert [use(folder) for folder in folders.values()] == [""] * len(folders)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "chat_template.jinja", "README.md"])
def test_an_enormous_file_is_refused_without_being_read(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(folders["llama"], folder)
    with (folder / name).open("wb") as file:
        file.truncate(3 << 30)  # sparse: it takes no room on the disk
    tracemalloc.start()
    said = use(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 << 20 and (name == "README.md" or "larger than" in said)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "shard"])
def test_a_pipe_is_no_file_and_nobody_waits_for_it(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(folders["llama"], folder)
    path = sorted(folder.glob("*.safetensors"))[0] if name == "shard" else folder / name
    path.unlink()
    os.mkfifo(path)
    said = use(folder)
    # A folder may do without tokenizer_config.json; what is no file is not there.
    assert said or name == "tokenizer_config.json"


@pytest.mark.parametrize("place", ["../secret.safetensors", "/etc/passwd", "..", "a/b.safetensors", "a\\b", "\x00", ""])
def test_an_index_reaches_no_file_outside_its_folder(folders: dict[str, Path], tmp_path: Path, place: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(folders["llama"], folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], place)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "is not a file name beside the index" in use(folder)


def test_a_link_is_read_only_as_what_it_must_be(folders: dict[str, Path], tmp_path: Path) -> None:
    """The hub's cache is made of links, so they are followed; what is behind them must be a file of weights."""
    folder = tmp_path / "m"
    shutil.copytree(folders["llama"], folder)
    shard = sorted(folder.glob("*.safetensors"))[0]
    real = tmp_path / "blob"
    shutil.move(shard, real)
    shard.symlink_to(real)
    assert use(folder) == ""
    shard.unlink()
    shard.symlink_to("/etc/passwd")
    assert "/etc/passwd" not in use(folder) and shard.name in use(folder)


def test_a_download_cut_short_is_said(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(folders["llama"], folder)
    shards = sorted(folder.glob("*.safetensors"))
    shards[0].write_bytes(shards[0].read_bytes()[:-10])
    assert "the file has" in use(folder)
    shards[0].unlink()
    assert f"lacks {shards[0].name}" in use(folder)


@settings(max_examples=100, deadline=20_000, suppress_health_check=LOOSE)
@given(data=st.data())
def test_a_damaged_adapter_is_read_or_refused(folders: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    from safetensors.torch import save_file

    adapter = tmp_path / "adapter"
    adapter.mkdir(exist_ok=True)
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file(
        {f"{name}.lora_A.weight": torch.ones(4, 16), f"{name}.lora_B.weight": torch.ones(16, 4)},
        adapter / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": {}, "use_rslora": False, "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(changed(config, data)))
    try:
        Adapter.open(adapter)
        folder = ModelFolder.open(folders["llama"], [adapter])
        folder.tensors["model.layers.0.self_attn.q_proj.weight"].load()
    except UserError:
        pass
