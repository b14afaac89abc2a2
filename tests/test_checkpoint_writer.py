"""The writer: read back by safetensors, by transformers and by our reader; nothing appears before it is complete."""

import json
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.header import DTYPES, TensorInfo, read_header, read_headers
from bottega.checkpoint.tensors import map_tensors
from bottega.checkpoint.writer import TensorWriter, expected_tensors, write_model_files, write_tensors
from bottega.core.errors import BottegaError, UserError
from bottega.tokenizer.files import write_tokenizer

TORCH_DTYPES = [getattr(torch, name) for name, _ in DTYPES.values()]


def values(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Random bytes as a tensor (a bool's bytes are 0 or 1)."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randint(0, 256, (torch.Size(shape).numel() * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    return (flat % 2 if dtype == torch.bool else flat).view(dtype).reshape(shape)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    as_bytes = [t.contiguous().reshape(-1).view(torch.uint8) for t in (left, right)]
    return left.shape == right.shape and left.dtype == right.dtype and torch.equal(*as_bytes)


tensor_sets = st.dictionaries(
    st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__" and name.isprintable()),
    st.tuples(st.lists(st.integers(0, 5), max_size=4), st.sampled_from(TORCH_DTYPES)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(tensor_sets, st.integers(1, 400), st.randoms(use_true_random=False))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, shapes, max_shard_bytes, random):
    folder = tmp_path_factory.mktemp("round")
    tensors = {name: values(tuple(shape), dtype, seed) for seed, (name, (shape, dtype)) in enumerate(shapes.items())}
    declared = {name: TensorInfo(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors.items()}
    order = list(tensors)
    random.shuffle(order)
    with TensorWriter(folder, declared, max_shard_bytes=max_shard_bytes) as writer:
        for name in order:
            writer.add(name, tensors[name])

    ours = map_tensors(read_headers(folder))
    assert set(ours) == set(tensors)
    assert all(same(ours[name].load(), tensor) for name, tensor in tensors.items())
    theirs: dict[str, torch.Tensor] = {}
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        part = load_file(file)
        size = sum(t.nbytes for t in part.values())
        assert size <= max_shard_bytes or sum(1 for t in part.values() if t.nbytes) == 1
        for place in read_header(file).values():
            assert place.start % getattr(torch, place.info.dtype).itemsize == 0
        theirs |= part
    assert all(same(theirs[name], tensor) for name, tensor in tensors.items()) and len(theirs) == len(tensors)
    index = folder / "model.safetensors.index.json"
    assert index.exists() == (len(files) > 1)
    if index.exists():
        assert json.loads(index.read_text())["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@settings(max_examples=30, deadline=None)
@given(tensor_sets)
def test_we_read_what_safetensors_writes(tmp_path_factory: pytest.TempPathFactory, shapes):
    file = tmp_path_factory.mktemp("theirs") / "model.safetensors"
    tensors = {name: values(tuple(shape), dtype, seed) for seed, (name, (shape, dtype)) in enumerate(shapes.items())}
    save_file(tensors, file)
    ours = map_tensors(read_header(file))
    assert all(same(ours[name].load(), tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("max_shard_bytes", [2**30, 20_000])
def test_transformers_loads_it_with_the_same_logits(tmp_path: Path, tied: bool, max_shard_bytes: int):
    torch.manual_seed(0)
    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    theirs = LlamaForCausalLM(
        LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied)
    ).eval()
    config = ModelConfig.from_data(theirs.config.to_dict())
    state = theirs.state_dict()
    with TensorWriter(tmp_path, expected_tensors(config), max_shard_bytes=max_shard_bytes) as writer:
        for name in expected_tensors(config):
            writer.add(name, state[name])
    write_model_files(tmp_path, config)
    again, loading = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    ids = torch.arange(10)[None]
    assert torch.equal(again(ids).logits, theirs(ids).logits)


def test_an_error_leaves_nothing(tmp_path: Path):
    declared = {"a": TensorInfo((2,), "float32"), "b": TensorInfo((2,), "float32")}
    with pytest.raises(RuntimeError, match="stop"), TensorWriter(tmp_path, declared) as writer:
        writer.add("a", torch.zeros(2))
        assert not (tmp_path / "model.safetensors").exists()
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_set_leaves_nothing(tmp_path: Path):
    declared = {"a": TensorInfo((2,), "float32"), "b": TensorInfo((2,), "float32")}
    with (
        pytest.raises(BottegaError, match="1 declared tensors were not written"),
        TensorWriter(tmp_path, declared) as w,
    ):
        w.add("a", torch.zeros(2))
    assert list(tmp_path.iterdir()) == []


def test_only_what_was_declared(tmp_path: Path):
    declared = {"a": TensorInfo((2,), "float32")}
    with TensorWriter(tmp_path, declared) as writer:
        for name, tensor in (("b", torch.zeros(2)), ("a", torch.zeros(3)), ("a", torch.zeros(2).double())):
            with pytest.raises(BottegaError):
                writer.add(name, tensor)
        writer.add("a", torch.ones(2))
        with pytest.raises(BottegaError, match="written already"):
            writer.add("a", torch.zeros(2))
    assert load_file(tmp_path / "model.safetensors")["a"].tolist() == [1, 1]


def test_a_dtype_without_a_name_in_the_format(tmp_path: Path):
    with pytest.raises(BottegaError, match="complex64"):
        write_tensors(tmp_path, {"a": torch.zeros(2, dtype=torch.complex64)})


def test_views_and_gradients_are_written_by_value(tmp_path: Path):
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    write_tensors(tmp_path, {"transposed": base.T, "row": base[1], "scalar": torch.tensor(3.0)})
    read = load_file(tmp_path / "model.safetensors")
    assert torch.equal(read["transposed"], base.T) and torch.equal(read["row"], base[1]) and read["scalar"] == 3


def test_memory_is_that_of_one_tensor(tmp_path: Path):
    declared = {f"t{i}": TensorInfo((1 << 20,), "float32") for i in range(16)}  # 16 × 4 MiB
    tracemalloc.start()
    with TensorWriter(tmp_path, declared) as writer:
        for i, name in enumerate(declared):
            writer.add(name, torch.full((1 << 20,), float(i)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20  # torch's own memory is not traced: nothing is copied through Python
    assert load_file(tmp_path / "model.safetensors")["t7"][0] == 7


def test_a_second_checkpoint_replaces_the_first(tmp_path: Path):
    for value in (1.0, 2.0):
        write_tensors(tmp_path, {"a": torch.full((4,), value), "b": torch.full((4,), value)}, max_shard_bytes=16)
    assert {t.load()[0].item() for t in map_tensors(read_headers(tmp_path)).values()} == {2.0}
    write_tensors(tmp_path, {"a": torch.full((4,), 3.0)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


def test_generation_settings_and_the_tokenizers_files(tmp_path: Path):
    config = ModelConfig.from_data(
        LlamaConfig(
            vocab_size=96, hidden_size=32, num_attention_heads=4, num_hidden_layers=1, eos_token_id=[2, 5]
        ).to_dict()
    )
    source = tmp_path / "tokenizer"
    source.mkdir()
    with pytest.raises(UserError, match="has no vocabulary"):
        write_tokenizer(source, tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json", "record.json"):
        (source / name).write_text("{}")
    write_tokenizer(source, tmp_path / "m")
    write_model_files(tmp_path / "m", config, generation={"temperature": 0.7})
    generation = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": [2, 5], "temperature": 0.7}
    assert (tmp_path / "m" / "tokenizer.json").exists() and not (tmp_path / "m" / "record.json").exists()
