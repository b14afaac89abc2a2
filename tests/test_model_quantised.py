"""Quantised bases: codes against bitsandbytes and brute force, products and gradients against the dense weight."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from statistics import NormalDist
from typing import Any

import bitsandbytes.functional as peer
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.checkpoint import checkpoint

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.writer import write_model_files, write_tensors
from bottega.codec.blockwise import dequantise_blockwise, dynamic_levels, nearest, quantise_blockwise, search_table
from bottega.codec.nf4 import dequantise_nf4, nf4_levels, quantise_nf4
from bottega.core.errors import UserError
from bottega.model import bitsandbytes_kernels, load_quantised, quantised
from bottega.model.decoder import Decoder
from bottega.model.linear import Linear
from bottega.model.load import load_decoder, stored_tensors
from bottega.model.quantised import (
    Kind,
    NF4Linear,
    QuantisedLinear,
    dequantise_int8,
    quantise_base,
    quantise_int8,
    rounded,
)

KINDS: list[Kind] = ["nf4", "int8"]
SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2,
}  # fmt: skip
EXPERTS = {
    "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "decoder_sparse_step": 1,
    "shared_expert_intermediate_size": 64, "norm_topk_prob": False,
}  # fmt: skip


def small(model_type: str = "llama", **changes: Any) -> Decoder:
    config = ModelConfig.from_data({"model_type": model_type, **SIZES, **changes}, where="here")
    decoder = Decoder(config).initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return decoder.eval()


def stored(decoder: Decoder, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    weights = {name: tensor.to(dtype) for name, tensor in stored_tensors(decoder.config, decoder.state_dict()).items()}
    write_model_files(folder, decoder.config)
    write_tensors(folder, weights)
    return folder


def test_nf4_levels_by_the_papers_construction():
    """Quantiles of the normal distribution, eight below zero and nine from it, at evenly spaced probabilities."""
    outermost = (1 - 1 / 32 + 1 - 1 / 30) / 2  # 0.9677083, the mean of two ways to cut off the tail
    above = [NormalDist().inv_cdf(p) for p in torch.linspace(outermost, 0.5, 9, dtype=torch.float64)[:-1].tolist()]
    below = [-NormalDist().inv_cdf(p) for p in torch.linspace(outermost, 0.5, 8, dtype=torch.float64)[:-1].tolist()]
    levels = torch.tensor(sorted([*above, 0.0, *below]), dtype=torch.float64)
    assert torch.allclose(levels / levels.max(), nf4_levels().double(), atol=1e-6)


@pytest.mark.parametrize("shape", [(48, 64), (64, 16), (7, 20), (3, 96), (5, 7), (1, 130), (40, 1000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nf4_codes_are_bitsandbytes(shape: tuple[int, int], dtype: torch.dtype):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=dtype)
    weight.view(-1)[:64] = 0  # a block of zeros
    codes, state = peer.quantize_4bit(weight, quant_type="nf4")
    assert state.code is not None
    ours = quantise_nf4(weight, double_quant=False)
    assert torch.equal(ours.codes, codes.reshape(-1))
    assert torch.allclose(ours.scales, state.absmax, rtol=0, atol=1e-37)
    # The formula, not `peer.dequantize_4bit`: 0.50.2 reads rows that are no multiple of a block wrongly on the CPU.
    unpacked = torch.stack((codes.reshape(-1) >> 4, codes.reshape(-1) & 15), dim=1).reshape(-1)[: weight.numel()]
    values = state.code[unpacked.int()] * state.absmax.repeat_interleave(64)[: weight.numel()]
    assert torch.equal(dequantise_nf4(ours, shape, dtype), values.reshape(shape).to(dtype))


def test_nf4_codes_are_the_nearest_levels():
    weight = torch.randn(60, 64, generator=torch.Generator().manual_seed(3))
    ours = quantise_nf4(weight, double_quant=False)
    scaled = weight.double() / weight.abs().amax(dim=1, keepdim=True)
    errors = (scaled.reshape(-1, 1) - nf4_levels().double()).abs()
    codes = torch.stack((ours.codes >> 4, ours.codes & 15), dim=1).reshape(-1, 1).long()
    assert (errors.gather(1, codes)[:, 0] - errors.min(dim=1).values).max() < 1e-7


@pytest.mark.parametrize("signed", [True, False])
def test_dynamic_code_book(signed: bool):
    levels = dynamic_levels(signed)
    assert torch.equal(levels, peer.create_dynamic_map(signed))
    draw = torch.Generator().manual_seed(0)
    magnitudes = 10 ** (torch.rand(20_000, generator=draw) * 9 - 9)
    numbers = torch.cat([magnitudes, levels, (levels[1:] + levels[:-1]) / 2, torch.tensor([0.0, 1.0])])
    numbers = torch.cat([numbers, -numbers]) if signed else numbers
    codes = nearest(numbers, search_table(levels)).long()
    errors = (numbers.double().unsqueeze(1) - levels.double()).abs()
    assert torch.allclose(errors.gather(1, codes.unsqueeze(1))[:, 0], errors.min(dim=1).values, rtol=2e-5, atol=0)


@pytest.mark.parametrize("count", [1, 255, 256, 5000])
def test_blocks_of_8_bits(count: int):
    values = torch.randn(count, generator=torch.Generator().manual_seed(0))
    codes, scales = quantise_blockwise(values, signed=True)
    theirs, state = peer.quantize_blockwise(values, code=dynamic_levels(True), blocksize=256)
    assert torch.equal(scales, state.absmax)
    # Its CPU kernel looks levels up in steps of 2⁻¹⁵: not always the nearest, and coarse near zero.
    small = dynamic_levels(True)[codes.int()].abs() < 2**-12
    assert (small | ((codes.int() - theirs.int()).abs() <= 1)).all()
    ours = dequantise_blockwise(codes, scales, levels=dynamic_levels(True))
    assert torch.equal(ours, peer.dequantize_blockwise(codes, state))
    assert (ours - values).norm() <= (peer.dequantize_blockwise(theirs, state) - values).norm()


def test_double_quantisation():
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(0)) * 0.02
    ours = quantise_nf4(weight)
    codes, state = peer.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    assert state.state2 is not None
    assert torch.equal(ours.codes, codes.reshape(-1))
    assert ours.outer is not None and torch.equal(ours.outer, state.state2.absmax)
    assert ours.offset == state.offset
    assert (ours.scales.int() - state.absmax.int()).abs().max() <= 1
    values = dequantise_nf4(ours, (512, 512))
    exact = ours.block_scales()
    assert (exact - weight.view(-1, 64).abs().amax(dim=1)).abs().max() < 0.02 * exact.max()
    assert torch.equal(values.view(-1, 64).abs().amax(dim=1), exact)


def test_int8_rows():
    weight = torch.randn(40, 96, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    codes, scales = quantise_int8(weight)
    theirs, statistics, _ = peer.int8_vectorwise_quant(weight.half())
    ours, same = quantise_int8(weight.half())
    assert torch.equal(same, statistics)
    assert (ours.int() - theirs.int()).abs().max() <= 1  # it multiplies in float16, we in float32
    assert (ours != theirs).float().mean() < 0.05
    exact = weight.double() / scales.double().clamp_min(1e-30).unsqueeze(1) * 127
    assert torch.equal(codes, exact.round().to(torch.int8))
    assert torch.equal(dequantise_int8(codes, scales)[3], torch.zeros(96))
    assert ((dequantise_int8(codes, scales) - weight).abs() <= scales.unsqueeze(1) / 254 * 1.0001).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "piece"), [((48, 64), 0), ((130, 33), 0), ((48, 64), 200), ((130, 33), 200), ((9, 96), 1)]
)
def test_products_and_gradients(
    kind: Kind, dtype: torch.dtype, shape: tuple[int, int], piece: int, monkeypatch: pytest.MonkeyPatch
):
    if piece:
        monkeypatch.setattr(quantised, "PIECE_VALUES", piece)
    torch.manual_seed(0)
    linear = Linear(shape[1], shape[0]).to(dtype)
    torch.nn.init.normal_(linear.weight)
    torch.nn.init.normal_(linear.bias)
    layer = QuantisedLinear.from_linear(linear, kind)
    dense = layer.dense_weight()
    pieces = list(layer.pieces(torch.float32))
    assert torch.equal(torch.cat([weight for _, weight in pieces]), layer.dense_weight(torch.float32))
    assert (len(pieces) > 1) == (piece > 0) and [rows.start for rows, _ in pieces[1:]] == [
        rows.stop for rows, _ in pieces[:-1]
    ]
    assert dense.dtype == dtype and torch.equal(dense, rounded(linear.weight, kind))
    assert torch.equal(layer.weight, dense)
    ours = torch.randn(2, 5, shape[1], dtype=dtype, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    upstream = torch.randn(2, 5, shape[0], dtype=dtype)
    y, expected = layer(ours), F.linear(theirs, dense) + linear.bias
    assert y.shape == expected.shape and torch.allclose(y, expected, rtol=1e-5, atol=1e-5)
    y.backward(upstream)
    expected.backward(upstream)
    assert ours.grad is not None and theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_kept_between_the_passes(kind: Kind):
    """Neither the dense weight nor the input: a frozen layer's gradient needs neither."""
    linear = Linear(256, 128, bias=False)
    torch.nn.init.normal_(linear.weight)
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    x = torch.randn(7, 256, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        QuantisedLinear.from_linear(linear, kind)(x)
        assert kept == []
        linear(x)
        assert kept != []


def test_autocast_and_checkpointing():
    linear = Linear(64, 32)
    torch.nn.init.normal_(linear.weight)
    torch.nn.init.normal_(linear.bias)
    layer = QuantisedLinear.from_linear(linear, "nf4")
    x = torch.randn(3, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16
        assert torch.equal(y, F.linear(x, layer.dense_weight()) + linear.bias.bfloat16())
        y.float().sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32
    expected = torch.autograd.grad(layer(x).square().sum(), x)[0]
    again = checkpoint(layer, x, use_reentrant=False)
    assert isinstance(again, torch.Tensor)
    assert torch.equal(torch.autograd.grad(again.square().sum(), x)[0], expected)


def test_bytes_a_value():
    """The paper's figures: 4 + 8/64 + 32/(64·256) bits, and 4.5 without double quantisation."""
    weight = torch.randn(512, 1024)
    four, plain = QuantisedLinear.from_weight(weight, "nf4"), QuantisedLinear.from_weight(weight, "nf4", False)
    eight = QuantisedLinear.from_weight(weight, "int8", bias=torch.nn.Parameter(torch.zeros(512)))
    count = weight.numel()
    assert four.stored_bytes() == count / 2 + count / 64 + 4 * count / (64 * 256) + 4
    assert abs(four.stored_bytes() * 8 / count - 4.127) < 1e-3
    assert plain.stored_bytes() == count / 2 + 4 * count / 64
    assert eight.stored_bytes() == count + 4 * 512


@pytest.mark.parametrize("kind", KINDS)
def test_scales_keep_their_precision(kind: Kind):
    layer = QuantisedLinear.from_weight(torch.randn(16, 64), kind, bias=torch.nn.Parameter(torch.ones(16)))
    before = layer.dense_weight()
    layer.to(torch.bfloat16)
    assert layer.bias is not None and layer.bias.dtype == torch.bfloat16
    assert torch.equal(layer.dense_weight(), before)


def test_the_call_of_bitsandbytes_kernels():
    """On its CPU kernels: there is no GPU here. Rows of whole blocks, which those read rightly."""
    stored_codes = quantise_nf4(torch.randn(32, 128))
    assert bitsandbytes_kernels.available() and bitsandbytes_kernels.knows(stored_codes)
    for dtype in (torch.float32, torch.bfloat16):
        theirs = bitsandbytes_kernels.dequantise(stored_codes, (32, 128), dtype)
        assert torch.equal(theirs, dequantise_nf4(stored_codes, (32, 128), dtype))
    other = quantise_nf4(torch.randn(32, 128), block=48)
    assert not bitsandbytes_kernels.knows(other)


@pytest.mark.parametrize("kind", KINDS)
def test_base_of_a_model(kind: Kind):
    dense, base = small("qwen2"), small("qwen2")
    names = quantise_base(base, kind)
    assert len(names) == 3 * 7 and "lm_head" not in names
    with torch.no_grad():
        for name in names:
            weight = dense.get_submodule(name).weight
            weight.copy_(rounded(weight, kind))  # pyright: ignore
    ids = torch.randint(0, 97, (2, 20), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(base(ids), dense(ids), rtol=1e-4, atol=1e-5)
    copy = small("qwen2")
    quantise_base(copy, kind)
    for layer in copy.modules():
        if isinstance(layer, QuantisedLinear):
            layer.get_buffer("codes").zero_()
    copy.load_state_dict(base.state_dict())
    assert torch.equal(copy(ids), base(ids))


def test_routers_stay_dense():
    decoder = small("qwen2_moe", **EXPERTS)
    names = quantise_base(decoder, "nf4")
    assert any(".experts.0.gate_proj" in name for name in names)
    assert not any(name.endswith((".gate", ".shared_expert_gate")) for name in names)
    assert decoder(torch.tensor([[1, 2, 3]])).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3"])
def test_loading_equals_quantising(kind: Kind, family: str, tmp_path: Path):
    changes: dict[str, Any] = {"llama": {"tie_word_embeddings": True}, "phi3": {"pad_token_id": 0}}.get(family, {})
    folder = stored(small(family, **changes), tmp_path / "model")
    loaded = load_quantised.load_quantised(folder, kind, double_quant=True)
    made = load_decoder(folder)
    quantise_base(made, kind)
    assert loaded.state_dict().keys() == made.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in made.state_dict().items())
    ids = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(loaded(ids), made(ids))
    assert not any(parameter.requires_grad for name, parameter in loaded.named_parameters() if name.endswith(".bias"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_weights_that_are_not_finite(kind: Kind, double: bool, value: float, tmp_path: Path):
    decoder = small()
    with torch.no_grad():
        decoder.get_parameter("model.layers.1.mlp.up_proj.weight")[5, 7] = value
    folder = stored(decoder, tmp_path / "model")
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight: .* values that are not finite"):
        load_quantised.load_quantised(folder, kind, double_quant=double)


def test_loading_holds_one_dense_matrix_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = stored(small(), tmp_path / "model", torch.bfloat16)
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def watch(weight: torch.Tensor, **options: Any) -> Any:
        nonlocal most
        alive.append(weakref.ref(weight))
        most = max(most, sum(reference() is not None for reference in alive))
        return quantise_nf4(weight, **options)

    monkeypatch.setattr(quantised, "quantise_nf4", watch)
    decoder = load_quantised.load_quantised(folder, "nf4", dtype=torch.bfloat16)
    assert len(alive) == 21 and most == 1
    layer = decoder.get_submodule("model.layers.0.mlp.up_proj")
    assert isinstance(layer, NF4Linear) and layer.dense_weight().dtype == torch.bfloat16


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [True, False])
def test_codes_of_a_folder_are_taken_as_they_are(quant_type: str, nested: bool, tmp_path: Path):
    folder = as_bitsandbytes_folder(stored(small("qwen2"), tmp_path / "model"), quant_type, nested)
    loaded = load_quantised.load_quantised(folder, "nf4")
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj"):
        layer = loaded.get_submodule(name)
        assert isinstance(layer, NF4Linear)
        assert torch.equal(layer.codes, tensors[f"{name}.weight"].reshape(-1))
        assert torch.equal(layer.scales, tensors[f"{name}.weight.absmax"])
        assert layer.known_by_kernels == (quant_type == "nf4")
    plain, ids = load_decoder(folder), torch.tensor([[1, 2, 3, 4]])
    assert torch.allclose(loaded(ids), plain(ids), rtol=1e-4, atol=1e-5)
    assert load_quantised.load_quantised(folder, "int8")(ids).isfinite().all()


def as_bitsandbytes_folder(folder: Path, quant_type: str, nested: bool) -> Path:
    """The folder with its linear layers as transformers stores them in 4 bits."""
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        codes, state = peer.quantize_4bit(tensors[name], quant_type=quant_type, compress_statistics=nested)
        tensors[name] = codes
        tensors |= {f"{name}.{part}": tensor for part, tensor in state.as_dict(packed=True).items()}
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("model_type", ["gpt2", "phi3"])
def test_every_matrix_of_a_block_is_quantised(model_type: str):
    own = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64} if model_type == "gpt2" else {"pad_token_id": 0}
    decoder = small(model_type, **own)
    quantise_base(decoder, "int8")
    left = [name for name, parameter in decoder.named_parameters() if parameter.ndim == 2 and ".layers." in name]
    assert left == []
