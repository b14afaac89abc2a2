"""Folders quantised by others, as plain tensors: every method, mixed folders, and folders that do not fit together."""

import copy
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes.functional as bnb
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.header import read_header
from bottega.checkpoint.quantised import dequantised, describe
from bottega.checkpoint.spec import ModelSpec
from bottega.checkpoint.tensors import LazyTensor, map_tensors
from bottega.codec import awq, compressed_tensors, gptq
from bottega.core.errors import UserError
from bottega.model.load import load_decoder

Parts = dict[str, torch.Tensor]


def rounded(
    weight: torch.Tensor, bits: int, group: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, scales, zero points (round to nearest, with a zero point), and the weight that they stand for."""
    groups = weight.reshape(len(weight), -1, group)
    least, greatest = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scales = ((greatest - least) / (2**bits - 1)).half().float()
    zeros = (-least / scales).round().clamp(0, 2**bits - 1)
    codes = (groups / scales + zeros).round().clamp(0, 2**bits - 1)
    plain = ((codes - zeros) * scales).reshape(weight.shape)
    return codes.reshape(weight.shape).byte(), scales.squeeze(-1), zeros.squeeze(-1).byte(), plain


def as_gptq(weight: torch.Tensor, bits: int = 4, group: int = 16, offset: int = 1) -> tuple[Parts, torch.Tensor]:
    codes, scales, zeros, plain = rounded(weight, bits, group)
    order = torch.arange(weight.shape[1]) // group
    return gptq.pack(codes, scales.half(), zeros, bits, offset, order), plain


def as_awq(weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    codes, scales, zeros, plain = rounded(weight, 4, 16)
    return awq.pack(codes, scales.half(), zeros), plain


def as_bitsandbytes(weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    # Rows of at least a block (64): shorter ones bitsandbytes 0.50.2 itself reads wrongly on the CPU.
    codes, state = bnb.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    parts = {f"weight.{name}": part for name, part in state.as_dict(packed=True).items()}
    return {"weight": codes, **parts}, bnb.dequantize_4bit(codes, state)


def as_int8(weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    codes, scales, _ = bnb.int8_vectorwise_quant(weight.half())
    parts = {"weight": codes, "SCB": scales, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return parts, bnb.int8_vectorwise_dequant(codes, scales)


def as_fp8(weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    blocks = weight.reshape(len(weight) // 16, 16, -1, 16)
    scale = blocks.abs().amax((1, 3), keepdim=True) / 448
    stored = (blocks / scale).to(torch.float8_e4m3fn)
    plain = (stored.float() * scale).reshape(weight.shape)
    return {"weight": stored.reshape(weight.shape), "weight_scale_inv": scale.reshape(scale.shape[0], -1)}, plain


def as_channel_fp8(weight: torch.Tensor) -> tuple[Parts, torch.Tensor]:
    scale = weight.abs().amax(1, keepdim=True) / 448
    stored = (weight / scale).to(torch.float8_e4m3fn)
    parts = {"weight": stored, "weight_scale": scale, "input_scale": torch.ones(1)}
    return parts, stored.float() * scale


def as_compressed(weight: torch.Tensor, bits: int = 4) -> tuple[Parts, torch.Tensor]:
    codes, scales, zeros, plain = rounded(weight, bits, 16)
    half = 1 << bits - 1
    signed, signed_zeros = (part.short().sub(half).to(torch.int8) for part in (codes, zeros))
    return compressed_tensors.pack(signed, scales, signed_zeros, bits), plain


FP8 = {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic"}
GROUPS = {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 16, "symmetric": False}}}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": GROUPS}
FLOATS = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}},
}
METHODS: dict[str, tuple[dict[str, Any], Callable[[torch.Tensor], tuple[Parts, torch.Tensor]], str]] = {
    "gptq": (
        {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "sym": False},
        as_gptq,
        "GPTQ, 4 bits, groups of 16",
    ),
    "gptq_v2": (
        {"quant_method": "gptq", "bits": 4, "group_size": 16, "checkpoint_format": "gptq_v2"},
        lambda weight: as_gptq(weight, offset=0),
        "GPTQ, 4 bits, groups of 16",
    ),
    "gptq_3bit": (
        {"quant_method": "gptq", "bits": 3, "group_size": -1},
        lambda weight: as_gptq(weight, 3, weight.shape[1]),
        "GPTQ, 3 bits, one group",
    ),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"},
        as_awq,
        "AWQ, 4 bits, groups of 16",
    ),
    "nf4": (
        {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
        },
        as_bitsandbytes,
        "bitsandbytes, NF4, double quantisation",
    ),
    "int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, as_int8, "bitsandbytes, LLM.int8"),
    "fp8": (FP8, as_fp8, "fp8, blocks of 16 × 16"),
    "fbgemm_fp8": ({"quant_method": "fbgemm_fp8"}, as_channel_fp8, "fp8"),
    "packed": (COMPRESSED, as_compressed, "compressed-tensors, pack-quantized, 4 bits, groups of 16"),
    "floats": (FLOATS, as_channel_fp8, "compressed-tensors, float-quantized, 8 bits"),
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    return LlamaForCausalLM(config)


def quantise(state: Parts, method: Callable[[torch.Tensor], tuple[Parts, torch.Tensor]]) -> tuple[Parts, Parts]:
    """The tensors of a folder in which all linear layers but the last are quantised, and what they stand for."""
    stored, plain = {}, {}
    for name, tensor in state.items():
        if "_proj.weight" not in name:
            stored[name] = plain[name] = tensor
            continue
        parts, plain[name] = method(tensor)
        stored |= {f"{name.removesuffix('weight')}{part}": value for part, value in parts.items()}
    return stored, plain


def lazy(folder: Path, tensors: Parts) -> dict[str, LazyTensor]:
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return map_tensors(read_header(path))


@pytest.mark.parametrize("name", METHODS)
def test_every_method(tmp_path: Path, model: LlamaForCausalLM, name: str):
    config, method, said = METHODS[name]
    stored, plain = quantise(model.state_dict(), method)
    ours = dequantised(lazy(tmp_path, stored), config, "float32")
    assert describe(config) == said
    assert set(ours) == set(plain)
    for key, expected in plain.items():
        assert (ours[key].shape, ours[key].dtype) == (tuple(expected.shape), "float32")
        assert torch.allclose(ours[key].load(), expected.float(), rtol=1e-3 if name == "int8" else 1e-5, atol=1e-7), key
        if "_proj" in key:
            assert (ours[key].load() - model.state_dict()[key]).abs().max() < 0.05
    narrow = dequantised(lazy(tmp_path, stored), config, "bfloat16")
    key = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(narrow[key].load(), ours[key].load().bfloat16())
    assert narrow[key].dtype == "bfloat16"


def test_nothing_is_read_before_it_is_loaded(tmp_path: Path, model: LlamaForCausalLM):
    for name in ("gptq", "awq", "int8", "fp8", "floats"):
        config, method, _ = METHODS[name]
        tensors = {
            key: LazyTensor(tensor.info, lambda: pytest.fail("read"))
            for key, tensor in lazy(tmp_path, quantise(model.state_dict(), method)[0]).items()
        }
        assert dequantised(tensors, config, "float32")


def test_headers_are_read_without_torch(tmp_path: Path, model: LlamaForCausalLM):
    for name in ("gptq", "nf4", "packed"):
        config, method, _ = METHODS[name]
        lazy(tmp_path, quantise(model.state_dict(), method)[0])
        code = (
            "import sys; from pathlib import Path; from bottega.checkpoint.header import read_header;"
            "from bottega.checkpoint.quantised import dequantised; from bottega.checkpoint.tensors import map_tensors;"
            f"stored = map_tensors(read_header(Path({str(tmp_path / 'model.safetensors')!r})));"
            f"plain = dequantised(stored, {config!r}, 'float32');"
            "assert plain['model.layers.0.mlp.up_proj.weight'].shape == (128, 64) and 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def test_mixed_folders(tmp_path: Path, model: LlamaForCausalLM):
    """Other bits for some modules, others left out: what is stored decides."""
    state = {name: tensor for name, tensor in model.state_dict().items() if "layers.0" in name}
    eight, plain_eight = quantise({n: t for n, t in state.items() if "mlp" in n}, lambda w: as_gptq(w, 8, 32))
    four, plain_four = quantise({n: t for n, t in state.items() if "self_attn.q" in n}, as_gptq)
    rest = {n: t for n, t in state.items() if n not in {**plain_eight, **plain_four}}
    tensors = lazy(tmp_path, {**eight, **four, **rest})
    config = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 16,
        "dynamic": {"+:.*mlp.*": {"bits": 8}, "-:.*k_proj": {}},
    }
    ours = dequantised(tensors, config, "float32")
    expected = {**plain_eight, **plain_four, **rest}
    assert set(ours) == set(expected)
    assert all(torch.allclose(ours[name].load(), expected[name], atol=1e-6) for name in expected)
    with pytest.raises(UserError, match=r"gptq: model.layers.0.mlp.\w+.weight: it has 8 bits, the config says 4"):
        dequantised(tensors, {**config, "dynamic": None}, "float32")


def test_mixed_compressed_tensors(tmp_path: Path, model: LlamaForCausalLM):
    state = model.state_dict()
    first, plain_first = quantise({n: t for n, t in state.items() if "layers.0" in n}, lambda w: as_compressed(w, 8))
    second, plain_second = quantise({n: t for n, t in state.items() if "layers.1" in n}, as_channel_fp8)
    scales = {
        "model.layers.1.self_attn.k_scale": torch.ones(1),
        "model.layers.1.self_attn.q_proj.output_scale": torch.ones(1),
    }
    config = {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "config_groups": {
            "a": {"format": "pack-quantized", "weights": {"num_bits": 8, "group_size": 16}},
            "b": {"format": "float-quantized", "weights": {"num_bits": 8, "strategy": "channel"}},
        },
        "ignore": ["lm_head"],
    }
    ours = dequantised(lazy(tmp_path, {**first, **second, **scales}), config, "float32")
    assert describe(config) == "compressed-tensors, mixed-precision, 8 bits, groups of 16, 2 kinds of modules"
    expected = {**plain_first, **plain_second}
    assert set(ours) == set(expected)
    assert all(torch.allclose(ours[name].load(), expected[name], atol=1e-6) for name in expected)


def without(name: str) -> Callable[[Parts], None]:
    return lambda parts: parts.__delitem__(name)


def with_part(name: str, value: torch.Tensor) -> Callable[[Parts], None]:
    return lambda parts: parts.update({name: value})


STATE = "m.weight.quant_state.bitsandbytes__nf4"


@pytest.mark.parametrize(
    ("method", "change", "said"),
    [
        ("gptq", without("m.qzeros"), r"gptq: m\.weight: m\.qzeros is missing"),
        ("gptq", with_part("m.weight", torch.ones(2)), r"m\.weight is stored twice"),
        ("gptq", with_part("m.scales", torch.ones(1, 5)), r"gptq: m\.weight: scales has the shape"),
        ("awq", without("m.scales"), r"awq: m\.weight: m\.scales is missing"),
        ("nf4", without("m.weight.absmax"), r"bitsandbytes: m\.weight: m\.weight\.absmax is missing"),
        ("nf4", without("m.weight"), "only its state is stored"),
        ("nf4", with_part("m.weight", torch.ones(5, dtype=torch.uint8)), "its 5 bytes do not hold 4 bits"),
        ("nf4", with_part(STATE, torch.zeros(1 << 17, dtype=torch.uint8)), "too large"),
        ("nf4", with_part(STATE, torch.zeros(4, dtype=torch.uint8)), "not valid JSON"),
        ("int8", with_part("m.SCB", torch.ones(3)), "SCB has the shape"),
        ("fp8", without("m.weight_scale_inv"), r"fp8: m\.weight: one of m\.weight_scale_inv and"),
        ("fp8", with_part("m.weight_scale_inv", torch.ones(3, 3)), r"fp8: m\.weight: its scale of shape \[3, 3\]"),
        ("packed", without("m.weight_scale"), r"m\.weight_scale is missing"),
        ("packed", with_part("m.weight_shape", torch.tensor([1 << 40, 1 << 40])), "weight_packed has the shape"),
        ("floats", without("m.weight_scale"), r"compressed-tensors: m\.weight: m\.weight_scale is missing"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(tmp_path: Path, method: str, change: Callable[[Parts], None], said: str):
    torch.manual_seed(0)
    parts, _ = quantise({"m_proj.weight": torch.randn(32, 64)}, METHODS[method][1])
    parts = {name.replace("m_proj", "m"): part for name, part in parts.items()}
    change(parts)
    with pytest.raises(UserError, match=said):
        dequantised(lazy(tmp_path, parts), METHODS[method][0], "float32")


def test_values_that_do_not_fit_are_named_when_they_are_read(tmp_path: Path):
    parts, _ = as_gptq(torch.randn(32, 64))
    parts["g_idx"][3] = 99
    ours = dequantised(
        lazy(tmp_path, {f"m.{name}": part for name, part in parts.items()}), METHODS["gptq"][0], "float32"
    )
    with pytest.raises(UserError, match=r"gptq: m\.weight: the group index"):
        ours["m.weight"].load()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ([], "not a JSON object"),
        ({}, r"quantised \(None\)"),
        ({"quant_method": "hqq"}, r"quantised \(hqq\), and this method is not read; read are gptq, awq"),
        ({"quant_method": "gptqq"}, "this method is not read"),
        ({"quant_method": ["gptq"]}, "this method is not read"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "'marlin' is not read"),
        ({"quant_method": "gptq", "checkpoint_format": ["gptq"]}, "is not read"),
        ({"quant_method": "gptq", "bits": "4"}, "bits must be a whole number"),
        ({"quant_method": "gptq", "group_size": 1 << 70}, "group_size must be a whole number"),
        ({"quant_method": "awq", "version": "gemv"}, "version 'gemv'"),
        ({"quant_method": "awq", "bits": 8}, "with 8 bits"),
        ({"quant_method": "fp8", "weight_block_size": [0, 1]}, "not two positive whole numbers"),
        ({"quant_method": "fp8", "weight_block_size": 128}, "not two positive whole numbers"),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, "'nvfp4-pack-quantized' is"),
        ({"quant_method": "compressed-tensors", "config_groups": []}, None),
        ({"quant_method": "compressed-tensors", "config_groups": [1]}, "not an object of objects"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": 1}}, "not an object of objects"),
        ({"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24"),
        ({"quant_method": "compressed-tensors", "transform_config": {"a": 1}}, "stored rotated"),
    ],
)  # fmt: skip
def test_configs_that_are_not_read(config: Any, said: str | None):
    if said is None:
        assert dequantised({}, config, "float32") == {}
        return
    with pytest.raises(UserError, match=said):
        dequantised({}, config, "float32")


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.just(1 << 65), st.floats(), st.text(max_size=5),
    st.lists(st.integers(-1, 200), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
SHAPES = st.lists(st.sampled_from([0, 1, 2, 4, 8, 16, 32, 64, 63]), max_size=3)
DTYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.int8, torch.uint8,
    torch.float8_e4m3fn,
)  # fmt: skip


def check_damaged(folder: Path, data: st.DataObject) -> None:
    """A small folder of some method, with parts and settings replaced at random: read, or refused by a UserError."""
    config, method, _ = METHODS[data.draw(st.sampled_from(list(METHODS)))]
    torch.manual_seed(0)
    parts, _ = method(torch.randn(32, 64))
    parts = {f"m.{name}": part for name, part in parts.items()}
    config = json.loads(json.dumps(config))
    for _ in range(data.draw(st.integers(1, 3))):
        what = data.draw(st.sampled_from(["config", "group", "drop", "part", "bytes"]))
        name = data.draw(st.sampled_from(sorted(parts))) if parts else ""
        if what == "config":
            config[data.draw(st.sampled_from(sorted(config)))] = data.draw(JUNK)
        elif what == "group" and isinstance(config.get("config_groups"), dict) and "g" in config["config_groups"]:
            weights = config["config_groups"]["g"]["weights"]
            weights[data.draw(st.sampled_from(sorted(weights)))] = data.draw(JUNK)
        elif what == "drop" and name:
            parts.pop(name)
        elif what == "part" and name:
            parts[name] = torch.ones(data.draw(SHAPES)).to(data.draw(st.sampled_from(DTYPES)))
        elif name and parts[name].numel():
            flat = parts[name].clone().reshape(-1).view(torch.uint8)
            at = data.draw(st.integers(0, flat.numel() - 1))
            flat[at] = data.draw(st.integers(0, 255))
            parts[name] = flat.view(parts[name].dtype).reshape(parts[name].shape)
    tracemalloc.start()
    try:
        describe(config)
        ours = dequantised(lazy(folder, parts), config, "float32")
        assert sum(tensor.nbytes for tensor in ours.values()) <= 16 * sum(part.nbytes for part in parts.values())
        for tensor in ours.values():
            assert tensor.load().shape == tensor.shape
    except UserError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 << 20


@settings(max_examples=100, deadline=10_000)
@given(data=st.data())
def test_a_damaged_folder_is_read_or_refused_never_worse(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    check_damaged(tmp_path_factory.getbasetemp(), data)


@pytest.mark.slow
@settings(max_examples=2000, deadline=10_000)
@given(data=st.data())
def test_many_damaged_folders(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    check_damaged(tmp_path_factory.getbasetemp(), data)


@pytest.mark.parametrize("name", ["gptq", "awq", "nf4", "int8", "fp8"])
def test_a_quantised_folder_runs_as_what_it_dequantises_to(tmp_path: Path, model: LlamaForCausalLM, name: str):
    config, method, said = METHODS[name]
    stored, plain = quantise(model.state_dict(), method)
    model.save_pretrained(tmp_path)
    lazy(tmp_path, stored)
    data = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**data, "quantization_config": config}))
    exact = copy.deepcopy(model)
    exact.load_state_dict(plain, strict=False)
    ids = torch.randint(model.config.vocab_size, (1, 9))
    with torch.no_grad():
        ours, expected = load_decoder(tmp_path)(ids), exact(ids).logits
    assert (ours - expected).abs().max() <= 1e-3 * expected.abs().max()
    spec = ModelSpec.read(tmp_path)
    assert spec.quantised == said and spec.tensors["model.norm.weight"].dtype == "float32"
    # What is written of it is a plain model.
    assert "quantization_config" not in ModelFolder.open(tmp_path).config.to_data()
