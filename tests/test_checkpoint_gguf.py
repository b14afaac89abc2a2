"""GGUF files as models: written with gguf-py as llama.cpp's converter does, and read back equal, for every family."""

import re
import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.folder import ModelFolder, place_tensors
from bottega.checkpoint.gguf import open_gguf, per_head, rotate_half
from bottega.checkpoint.gguf_config import config_data, llama3_scaling
from bottega.checkpoint.gguf_names import FAMILIES
from bottega.checkpoint.spec import ModelSpec
from bottega.codec.gguf import read_gguf
from bottega.core.errors import UserError
from bottega.model.load import load_decoder

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64,
    "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.25,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [1.0, 2.0, 3.0, 4.0],
    "short_factor": [1.0, 1.0, 1.5, 2.0], "original_max_position_embeddings": 64,
}  # fmt: skip
# name → (architecture of the GGUF file, config)
MODELS: dict[str, tuple[str, Any]] = {
    "llama": ("llama", hf.LlamaConfig(**SIZES)),
    "llama tied, with biases": (
        "llama", hf.LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    ),
    "llama, wide heads": ("llama", hf.LlamaConfig(**SIZES, head_dim=16)),
    "llama3": ("llama", hf.LlamaConfig(**{**SIZES, "hidden_size": 256, "head_dim": 64}, rope_parameters=LLAMA3)),
    "llama yarn": ("llama", hf.LlamaConfig(**SIZES, rope_parameters=YARN)),
    "llama linear": (
        "llama",
        hf.LlamaConfig(**SIZES, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    ),
    "mistral": ("llama", hf.MistralConfig(**SIZES, sliding_window=16)),
    "mixtral": ("llama", hf.MixtralConfig(**SIZES, head_dim=8, num_local_experts=4, num_experts_per_tok=2)),
    "qwen2": ("qwen2", hf.Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "qwen2_moe": ("qwen2moe", hf.Qwen2MoeConfig(**SIZES, **EXPERTS, shared_expert_intermediate_size=40)),
    "qwen3": ("qwen3", hf.Qwen3Config(**SIZES, head_dim=16)),
    "qwen3_moe": ("qwen3moe", hf.Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=16, norm_topk_prob=True)),
    "gemma2": ("gemma2", hf.Gemma2Config(**SIZES, head_dim=16, sliding_window=16, query_pre_attn_scalar=16)),
    "gemma3": ("gemma3", hf.Gemma3TextConfig(**SIZES, head_dim=16, sliding_window=16, query_pre_attn_scalar=16)),
    "phi3": ("phi3", hf.Phi3Config(**SIZES)),
    "phi3 long": (
        "phi3",
        hf.Phi3Config(
            **{**SIZES, "max_position_embeddings": 128}, original_max_position_embeddings=64, rope_parameters=LONG
        ),
    ),
    "olmo2": ("olmo2", hf.Olmo2Config(**SIZES)),
    "smollm3": ("smollm3", hf.SmolLM3Config(**SIZES)),
    "gpt2": ("gpt2", hf.GPT2Config(
        vocab_size=96, n_positions=64, n_embd=32, n_layer=2, n_head=4, n_inner=128, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )),
    "gpt_neox": ("gptneox", hf.GPTNeoXConfig(
        **{key: value for key, value in SIZES.items() if key != "num_key_value_heads"}, use_parallel_residual=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    )),
    "bloom": ("bloom", hf.BloomConfig(
        vocab_size=96, hidden_size=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )),
}  # fmt: skip


def sizes_of(config: Any) -> tuple[int, int, int]:
    """Layers, heads and key heads, by whatever names the config has for them."""
    heads = config.num_attention_heads
    return config.num_hidden_layers, heads, getattr(config, "num_key_value_heads", heads)


def permuted(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """As the converter does for `llama`: halves of each head interleaved."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def by_kind(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Queries, keys and values of each head, as the converter rearranges them for gpt-neox and bloom."""
    kinds = rows.reshape(heads, 3, -1, *rows.shape[1:])
    return torch.cat([kinds[:, kind].reshape(-1, *rows.shape[1:]) for kind in range(3)])


def converted(state: dict[str, torch.Tensor], architecture: str, config: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """(gguf-py's name, values as the converter writes them) of every tensor of a checkpoint."""
    layers, heads, key_heads = sizes_of(config)
    names = gguf.get_tensor_name_map(arch_of(architecture), layers)
    experts: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(.*experts)\.(\d+)\.(.*)", name)
        if match:
            experts.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = tensor
            continue
        if architecture in ("llama", "smollm3") and re.search(r"\.[qk]_proj\.", name):
            tensor = permuted(tensor, heads if ".q_proj." in name else key_heads)
        if "query_key_value" in name:
            tensor = by_kind(tensor, heads)
        if architecture == "gpt2" and re.search(r"\.(c_attn|c_proj|c_fc)\.weight", name):
            tensor = tensor.T
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            tensor = tensor + 1
        yield peer_name(names, name), tensor
    for name, group in experts.items():
        merged = (
            name.replace("model.", "").replace("block_sparse_moe", "feed_forward") if "block_sparse" in name else name
        )
        yield peer_name(names, merged), torch.stack([group[number] for number in sorted(group)])


def arch_of(architecture: str) -> gguf.MODEL_ARCH:
    return next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)


def peer_name(names: gguf.TensorNameMap, name: str) -> str:
    found = names.get_name(name, (".weight", ".bias")) or names.get_name(
        name.removeprefix("transformer."), (".weight", ".bias")
    )
    assert found is not None, name
    return found


def write(path: Path, state: dict[str, torch.Tensor], architecture: str, config: Any, kind: str = "F32") -> None:
    """The file that the converter would write, without a tokenizer."""
    writer = gguf.GGUFWriter(path, architecture)
    add_metadata(writer, architecture, config)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", np.array(llama3_factors(rope, config.head_dim), dtype=np.float32))
    for name in ("long", "short"):
        if f"{name}_factor" in rope:
            writer.add_tensor(f"rope_factors_{name}.weight", np.array(rope[f"{name}_factor"], dtype=np.float32))
    for name, tensor in converted(state, architecture, config):
        values = tensor.contiguous().float().numpy()
        quantised = gguf.GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(values, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_metadata(writer: gguf.GGUFWriter, architecture: str, config: Any) -> None:
    layers, heads, key_heads = sizes_of(config)
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    given = {
        writer.add_block_count: layers,
        writer.add_head_count: heads,
        writer.add_head_count_kv: key_heads if architecture != "gpt2" else None,
        writer.add_embedding_length: config.hidden_size,
        writer.add_context_length: getattr(config, "max_position_embeddings", 32),
        writer.add_feed_forward_length: getattr(config, "intermediate_size", 4 * config.hidden_size),
        writer.add_layer_norm_rms_eps: getattr(config, "rms_norm_eps", None),
        writer.add_layer_norm_eps: getattr(config, "layer_norm_epsilon", getattr(config, "layer_norm_eps", None)),
        writer.add_rope_freq_base: rope.get("rope_theta") if architecture != "gptneox" else None,
        writer.add_expert_count: getattr(config, "num_local_experts", getattr(config, "num_experts", None)),
        writer.add_expert_used_count: getattr(config, "num_experts_per_tok", None),
        writer.add_sliding_window: getattr(config, "sliding_window", None) if "qwen" not in architecture else None,
        writer.add_final_logit_softcapping: getattr(config, "final_logit_softcapping", None),
        writer.add_attn_logit_softcapping: getattr(config, "attn_logit_softcapping", None),
        writer.add_expert_feed_forward_length: getattr(config, "moe_intermediate_size", None),
        writer.add_expert_shared_feed_forward_length: getattr(config, "shared_expert_intermediate_size", None),
        writer.add_parallel_residual: getattr(config, "use_parallel_residual", None),
        writer.add_bos_token_id: 1,
        writer.add_eos_token_id: 2,
        writer.add_pad_token_id: 0,
        writer.add_vocab_size: 96,
        writer.add_key_length: getattr(config, "head_dim", None),
    }
    for add, value in given.items():
        if value is not None:
            add(value)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    if architecture in ("llama", "phi3", "gptneox", "smollm3"):
        writer.add_rope_dimension_count(int(width * rope.get("partial_rotary_factor", 1.0)))
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_attn_factor(rope["attention_factor"])
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    if architecture == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)


def llama3_factors(rope: dict[str, Any], dim: int) -> list[float]:
    """By how much llama3's scaling divides each frequency, from transformers' own computation."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = hf.LlamaConfig(hidden_size=dim, num_attention_heads=1, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    return [rope["rope_theta"] ** (-2 * i / dim) / value for i, value in enumerate(scaled.tolist())]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"root": tmp_path_factory.mktemp("checkpoints")}


def folder_of(root: Path, name: str) -> Path:
    return root / re.sub(r"\W+", "_", name)


def checkpoint(root: Path, name: str) -> tuple[str, Any, dict[str, torch.Tensor]]:
    """A tiny random model as transformers saves it: architecture, config, tensors by their names on the disk."""
    architecture, config = MODELS[name]
    folder = folder_of(root, name)
    if not folder.exists():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
        model.save_pretrained(folder)
    return architecture, config, load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", MODELS)
def test_every_family_is_read_back(checkpoints: dict[str, Path], tmp_path: Path, name: str):
    architecture, config, state = checkpoint(checkpoints["root"], name)
    write(tmp_path / "m.gguf", state, architecture, config)
    data, ours = open_gguf(read_gguf(tmp_path / "m.gguf"))
    assert set(ours) == set(state)
    for key, tensor in state.items():
        assert ours[key].shape == tuple(tensor.shape)
        # 1 + w − 1 is not w to the last bit.
        assert torch.allclose(ours[key].load(), tensor, rtol=0, atol=1e-6 if "gemma" in name else 0), key
        assert ours[key].load().is_contiguous()
    read = hf.AutoConfig.for_model(**data).to_dict()
    original = config.to_dict()
    ignored = {"architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "head_dim"}
    assert {k: read.get(k) for k in original.keys() - ignored} == {k: original[k] for k in original.keys() - ignored}
    # And our own config of it is the checkpoint's, with the tensors that it asks for.
    made, written = ModelConfig.from_data(data), ModelConfig.read(folder_of(checkpoints["root"], name))
    assert (made.switches, made.rms_norm_eps, made.eos_token_id) == (
        written.switches, written.rms_norm_eps, written.eos_token_id,
    )  # fmt: skip
    place_tensors({key: tensor.info for key, tensor in ours.items()}, made, tmp_path)
    assert read["head_dim"] == (original.get("head_dim") or 8) if "head_dim" in original else True


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F16", "BF16"])
def test_types_of_tensors(checkpoints: dict[str, Path], tmp_path: Path, kind: str):
    architecture, config, state = checkpoint(checkpoints["root"], "mixtral")
    write(tmp_path / "m.gguf", state, architecture, config, kind)
    data, ours = open_gguf(read_gguf(tmp_path / "m.gguf"), "bfloat16")
    expected = "float16" if kind == "F16" else "bfloat16"
    assert data["torch_dtype"] == expected
    assert ours["model.norm.weight"].dtype == "float32"
    for key, tensor in state.items():
        if tensor.ndim == 1:
            continue
        assert ours[key].dtype == expected
        theirs = gguf.quants.quantize(tensor.numpy(), gguf.GGMLQuantizationType[kind])
        theirs = torch.from_numpy(gguf.quants.dequantize(theirs, gguf.GGMLQuantizationType[kind]).copy())
        assert torch.equal(ours[key].load(), theirs.to(getattr(torch, expected))), key


def test_transformers_reads_the_same_model(checkpoints: dict[str, Path], tmp_path: Path):
    architecture, config, state = checkpoint(checkpoints["root"], "llama, wide heads")
    write(tmp_path / "m.gguf", state, architecture, config, "Q8_0")
    theirs = hf.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf").state_dict()
    _, ours = open_gguf(read_gguf(tmp_path / "m.gguf"))
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name].load(), theirs[name]) for name in theirs)


@settings(max_examples=20, deadline=None)
@given(heads=st.integers(1, 4), pairs=st.integers(1, 4), columns=st.sampled_from([(), (3,)]))
def test_rearranged_rows_come_back(heads: int, pairs: int, columns: tuple[int, ...]):
    rows = torch.randn(heads * pairs * 2, *columns)
    assert torch.equal(rotate_half(permuted(rows, heads), heads), rows)
    rows = torch.randn(3 * heads * pairs, *columns)
    assert torch.equal(per_head(by_kind(rows, heads), heads), rows)


def tensor_names(model_type: str, layers: int, experts: int) -> dict[str, str]:
    """Name in the checkpoint → name in a GGUF file, of every tensor that the tables speak of."""
    tables, found = FAMILIES[model_type], {}
    groups = [(tables.whole, "", "")]
    groups += [(tables.rows, tables.layer.format(layer=layer), f"blk.{layer}.") for layer in range(layers)]
    for rows, before, block in groups:
        for row in rows:
            for expert in range(experts) if row.change == "experts" else (0,):
                for end in ("weight", "bias") if row.bias else ("weight",):
                    found[f"{before}{row.checkpoint.format(expert=expert)}.{end}"] = f"{block}{row.gguf}.{end}"
    return found


@pytest.mark.parametrize("name", sorted({re.split(r"[ ,]", name)[0] for name in MODELS} - {"llama3"}))
def test_names_are_gguf_pys(name: str):
    architecture, config = MODELS[name]
    model_type = "gemma3_text" if name == "gemma3" else name
    layers, experts = 3, 2 if hasattr(config, "num_experts_per_tok") else 0
    ours = tensor_names(model_type, layers, experts)
    theirs = gguf.get_tensor_name_map(arch_of(architecture), layers)
    for checkpoint_name, gguf_name in ours.items():
        merged = re.sub(r"experts\.\d+\.", "experts.", checkpoint_name)
        if "block_sparse_moe.experts" in merged:
            merged = merged.removeprefix("model.").replace("block_sparse_moe", "feed_forward")
        assert peer_name(theirs, merged) == gguf_name
    # Each GGUF tensor is one of the checkpoint's, or holds one of each expert.
    back: dict[str, list[str]] = {}
    for checkpoint_name, gguf_name in ours.items():
        back.setdefault(gguf_name, []).append(checkpoint_name)
    assert all(len(names) == (experts if "_exps" in name else 1) for name, names in back.items())
    # And no tensor that such a file has is left out.
    known = {re.sub(r"^blk\.\d+", "blk.{bid}", name).rpartition(".")[0] for name in ours.values()}
    expected = {gguf.TENSOR_NAMES[kind] for kind in gguf.MODEL_TENSORS[arch_of(architecture)]}
    rope = {name for name in expected if "rope_f" in name or "rot_embd" in name}
    other = {"phi3": {"blk.{bid}.attn_q", "blk.{bid}.attn_k", "blk.{bid}.attn_v"}}.get(name, set())
    if architecture == "llama":  # gguf-py lists llama's and mixtral's together
        other = {
            stem for stem in expected if "exps" in stem or "gate_inp" in stem or re.search(r"ffn_(gate|up|down)$", stem)
        }
        expected -= other
        known -= other
    assert expected - rope - other == known


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize(("factor", "length"), [(8.0, 8192), (32.0, 8192), (4.0, 4096)])
@pytest.mark.parametrize("high", [4.0, 8.0])
def test_llama3_scaling_from_its_factors(dim: int, factor: float, length: int, high: float):
    rope = {**LLAMA3, "factor": factor, "original_max_position_embeddings": length, "high_freq_factor": high}
    found = llama3_scaling([float(np.float32(value)) for value in llama3_factors(rope, dim)], 500000.0)
    assert found is not None
    assert {**found, "rope_theta": 500000.0} == rope


def test_llama3_factors_that_say_nothing_or_nonsense():
    assert llama3_scaling([1.0] * 8, 10000.0) is None
    with pytest.raises(UserError, match="follow no rule"):
        llama3_scaling([1.0, 3.0, 2.0, 8.0], 10000.0)


LLAMA = {
    "general.architecture": "llama", "llama.block_count": 2, "llama.context_length": 64, "llama.embedding_length": 32,
    "llama.feed_forward_length": 48, "llama.attention.head_count": 4, "llama.attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip


def test_config_from_metadata_alone():
    data = config_data({**LLAMA, "tokenizer.ggml.tokens": ["a"] * 7, "tokenizer.ggml.eos_token_id": 3,
                        "tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.padding_token_id": 2**32 - 1})  # fmt: skip
    assert data["model_type"] == "llama"
    assert (data["num_key_value_heads"], data["head_dim"], data["rope_theta"]) == (4, 8, 10000.0)
    assert (data["vocab_size"], data["eos_token_id"], data["pad_token_id"]) == (7, [3, 5], None)
    assert config_data({**LLAMA, "llama.rope.scale_linear": 4.0})["rope_scaling"] == {
        "rope_type": "linear",
        "factor": 4.0,
    }
    gemma = {key.replace("llama", "gemma2"): value for key, value in LLAMA.items()}
    gemma |= {"general.architecture": "gemma2", "gemma2.attention.key_length": 16}
    assert config_data(gemma)["query_pre_attn_scalar"] == 16
    assert config_data({**gemma, "gemma2.block_count": 46})["query_pre_attn_scalar"] == 8  # 27B: hidden / heads


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"general.architecture": "lama"}, "'lama' are not read"),
        ({"general.architecture": None}, "are not read"),
        ({"llama.block_count": None}, "lacks llama.block_count"),
        ({"llama.block_count": "two"}, "not a usable number"),
        ({"llama.block_count": 1 << 50}, "not a usable number"),
        ({"llama.rope.freq_base": float("nan")}, "not a usable number"),
        ({"llama.attention.head_count": 0}, "has 0 heads"),
        ({"llama.rope.scaling.type": "dynamic", "llama.rope.scaling.factor": 2.0}, "'dynamic' with factor 2.0"),
        ({"llama.rope.scaling.type": ["yarn"]}, "is not read"),
        ({"llama.feed_forward_length": array("i", [48, 64])}, "differs from layer to layer"),
        ({"llama.feed_forward_length": array("i")}, "differs from layer to layer"),
    ],
)  # fmt: skip
def test_metadata_that_is_not_a_model_s(change: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        config_data({**LLAMA, **change})


def one_tensor(path: Path, name: str, values: np.ndarray, kind: str = "F32", **metadata: int) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    add_metadata(writer, "llama", MODELS["llama"][1])
    for key, value in metadata.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_tensor(name, values, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("blk.0.attn_qq.weight", np.zeros((4, 4)), r"not those of a llama model: blk\.0\.attn_qq\.weight"),
        ("blk.0.attn_norm.bias", np.zeros(4), "not those of a llama model"),
        ("blk.0.attn_q", np.zeros(4), "not those of a llama model"),
        ("blk.0.attn_q.weight", np.zeros((6, 4)), "6 rows, which are not those of 4 heads"),
        ("rope_freqs.weight", np.zeros((2, 4)), "is not a row of factors"),
        ("rope_freqs.weight", np.zeros(4), "not positive numbers"),
        ("rope_factors_long.weight", np.ones(4), "only one of rope_factors_long"),
    ],
)
def test_tensors_that_are_not_the_family_s(tmp_path: Path, name: str, values: np.ndarray, said: str):
    path = one_tensor(tmp_path / "m.gguf", name, values.astype(np.float32))
    with pytest.raises(UserError, match=said) as error:
        open_gguf(read_gguf(path))
    assert str(path) in error.value.message


def test_headers_are_read_without_torch(checkpoints: dict[str, Path], tmp_path: Path):
    architecture, config, state = checkpoint(checkpoints["root"], "llama3")
    write(tmp_path / "m.gguf", state, architecture, config)
    code = (
        "import sys; from pathlib import Path; from bottega.checkpoint.gguf import open_gguf;"
        "from bottega.codec.gguf import read_gguf;"
        f"data, tensors = open_gguf(read_gguf(Path({str(tmp_path / 'm.gguf')!r})));"
        "assert data['rope_scaling']['factor'] == 8.0 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_vocabulary_is_no_model(tmp_path: Path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match="holds no tensors"):
        open_gguf(read_gguf(tmp_path / "m.gguf"))


def test_types_that_are_not_read(tmp_path: Path):
    raw = np.zeros((4, 66), dtype=np.uint8)
    path = one_tensor(tmp_path / "m.gguf", "blk.0.attn_q.weight", raw, "IQ2_XXS")
    with pytest.raises(UserError, match="IQ2_XXS are not read"):
        open_gguf(read_gguf(path))


def test_experts_that_are_not_as_many(tmp_path: Path):
    stacked = np.zeros((3, 4, 4), dtype=np.float32)
    path = one_tensor(tmp_path / "m.gguf", "blk.0.ffn_up_exps.weight", stacked, expert_count=4, expert_used_count=2)
    with pytest.raises(UserError, match="does not hold 4 experts"):
        open_gguf(read_gguf(path))


def check_damaged(folder: Path, data: st.DataObject) -> None:
    """Numbers and bytes of a good file replaced: a model, or a UserError."""
    good = folder / "good-mixtral.gguf"
    if not good.exists():
        architecture, config, state = checkpoint(folder, "mixtral")
        write(good, state, architecture, config, "Q4_0")
    content = bytearray(good.read_bytes())
    header = gguf.GGUFReader(good).data_offset
    for _ in range(data.draw(st.integers(1, 3))):
        at, width = data.draw(st.integers(0, header)), data.draw(st.sampled_from([1, 4]))
        content[at : at + width] = data.draw(st.integers(0, 256**width - 1)).to_bytes(width, "little")
    file = folder / "damaged-mixtral.gguf"
    file.write_bytes(content)
    try:
        _, tensors = open_gguf(read_gguf(file))
        for tensor in tensors.values():
            assert tensor.load().shape == tensor.shape
    except UserError:
        pass


@settings(max_examples=100, deadline=10_000)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_never_worse(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    check_damaged(tmp_path_factory.getbasetemp(), data)


@pytest.mark.slow
@settings(max_examples=2000, deadline=10_000)
@given(data=st.data())
def test_many_damaged_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    check_damaged(tmp_path_factory.getbasetemp(), data)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "qwen3_moe"])
def test_a_file_runs_as_the_folder_it_was_made_from(checkpoints: dict[str, Path], tmp_path: Path, name: str):
    architecture, config, state = checkpoint(checkpoints["root"], name)
    path = tmp_path / "m.gguf"
    write(path, state, architecture, config)
    ids = torch.randint(config.vocab_size, (1, 9))
    with torch.no_grad():
        ours, expected = load_decoder(path)(ids), load_decoder(folder_of(checkpoints["root"], name))(ids)
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
    spec = ModelSpec.read(path)
    assert spec.quantised.startswith("GGUF: F32") and spec.config == ModelFolder.open(path).config
