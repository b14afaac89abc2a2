"""GPTQ, AWQ and fp8 weights, and packed bits, against loops written from the formulas."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.codec import awq, fp8, gptq
from bottega.codec.bits import pack_bits, unpack_bits
from bottega.codec.parts import Sharing
from bottega.core.errors import UserError


def infos(parts: dict[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(part.shape), str(part.dtype).removeprefix("torch.")) for name, part in parts.items()}


def number_from(words: list[int], bits: int, position: int) -> int:
    """Field `position` of a little-endian stream of bits, from 32-bit words: one large whole number."""
    stream = sum((word & 0xFFFFFFFF) << (32 * place) for place, word in enumerate(words))
    return stream >> (bits * position) & ((1 << bits) - 1)


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(1, 8), count=st.integers(1, 70), seed=st.integers(0, 2**32))
def test_packed_bits_are_a_stream(bits: int, count: int, seed: int):
    torch.manual_seed(seed)
    values = torch.randint(0, 1 << bits, (2, count), dtype=torch.uint8)
    words = pack_bits(values, bits)
    assert words.dtype == torch.int32
    assert words.shape == (2, -(-count * bits // 32))
    for row in range(2):
        assert [number_from(words[row].tolist(), bits, k) for k in range(count)] == values[row].tolist()
    assert torch.equal(unpack_bits(words, bits, count), values)


def slow_gptq(parts: dict[str, torch.Tensor], bits: int, group_size: int, version: int) -> torch.Tensor:
    inputs, outputs = len(parts["qweight"]) * 32 // bits, parts["qweight"].shape[1]
    weight = torch.empty(outputs, inputs)
    for o, i in itertools.product(range(outputs), range(inputs)):
        group = int(parts["g_idx"][i]) if "g_idx" in parts else i // group_size
        code = number_from(parts["qweight"][:, o].tolist(), bits, i)
        zero = number_from(parts["qzeros"][group].tolist(), bits, o)
        if version == 1:
            zero = (zero + 1) % 2**bits
        weight[o, i] = parts["scales"][group, o].float() * (code - zero)
    return weight


@pytest.mark.parametrize("bits", gptq.BITS)
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@pytest.mark.parametrize(("group_size", "act_order"), [(32, False), (32, True), (-1, False), (64, False)])
def test_gptq(bits: int, version: str, group_size: int, act_order: bool):
    torch.manual_seed(bits)
    outputs, inputs = 32, 96  # 96 is one group and a half of 64
    size = inputs if group_size == -1 else group_size
    groups = -(-inputs // size)
    codes = torch.randint(0, 1 << bits, (outputs, inputs), dtype=torch.uint8)
    zeros = torch.randint(0, 1 << bits, (outputs, groups), dtype=torch.uint8)
    scales = torch.rand(outputs, groups).half()
    order = torch.randint(0, groups, (inputs,)) if act_order else None
    offset = gptq.ZERO_OFFSETS[version]
    parts = gptq.pack(codes, scales, zeros, bits, offset, order)
    assert gptq.layout(infos(parts), group_size) == ((outputs, inputs), bits, groups)
    weight = gptq.dequantise(parts, group_size, offset)
    index = order if order is not None else torch.arange(inputs) // size
    expected = (codes.float() - zeros.float()[:, index]) * scales.float()[:, index]
    assert torch.equal(weight, expected)
    assert torch.equal(weight, slow_gptq(parts, bits, size, 1 if version == "gptq" else 2))


def test_gptq_zero_points_as_the_literature_shows_them():
    """Symmetric 4 bits: 0x77777777 in the first version, 0x88888888 in the second (AutoGPTQ, GPTQModel)."""
    zeros = torch.full((8, 1), 8, dtype=torch.uint8)
    codes, scales = torch.zeros(8, 8, dtype=torch.uint8), torch.ones(8, 1)
    stored = [gptq.pack(codes, scales, zeros, 4, offset)["qzeros"].item() & 0xFFFFFFFF for offset in (1, 0)]
    assert stored == [0x77777777, 0x88888888]


def test_awq():
    torch.manual_seed(0)
    outputs, inputs, groups = 24, 48, 3
    codes = torch.randint(0, 16, (outputs, inputs), dtype=torch.uint8)
    zeros = torch.randint(0, 16, (outputs, groups), dtype=torch.uint8)
    scales = torch.rand(outputs, groups).half()
    parts = awq.pack(codes, scales, zeros)
    assert awq.weight_shape(infos(parts), 16) == (outputs, inputs)
    weight = awq.dequantise(parts, 16)
    for o, i in itertools.product(range(outputs), range(inputs)):
        place = [0, 4, 1, 5, 2, 6, 3, 7][o % 8]  # AutoAWQ's reverse order: where output o of its eight lies
        code = number_from([parts["qweight"][i, o // 8].item()], 4, place)
        zero = number_from([parts["qzeros"][i // 16, o // 8].item()], 4, place)
        assert weight[o, i] == scales[o, i // 16].float() * (code - zero)
        assert (code, zero) == (codes[o, i], zeros[o, i // 16])


@pytest.mark.parametrize(
    ("scale_shape", "block"),
    [((), None), ((1,), None), ((5,), None), ((5, 1), None), ((2, 3), (4, 3)), ((1, 1), (128, 128))],
)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8(scale_shape: tuple[int, ...], block: tuple[int, int] | None, dtype: torch.dtype):
    torch.manual_seed(0)
    weight, scale = torch.randn(5, 8).to(dtype), torch.rand(scale_shape)
    sharing = Sharing(block=block)
    parts = {"weight": weight, "scale": scale}
    assert fp8.weight_shape(infos(parts), sharing) == (5, 8)
    ours = fp8.dequantise(parts, sharing)
    for o, i in itertools.product(range(5), range(8)):
        if scale.numel() == 1:
            factor = scale.reshape(())
        elif scale_shape[-1] == 3:
            factor = scale[o // 4, i // 3]
        else:
            factor = scale.reshape(-1)[o]
        assert ours[o, i] == weight[o, i].float() * factor


def test_fp8_equals_transformers():
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    torch.manual_seed(0)
    weight, scale = torch.randn(32, 48).to(torch.float8_e4m3fn), torch.rand(2, 3)
    theirs = Fp8Dequantize(None)._dequantize_one(weight, scale)
    assert torch.equal(fp8.dequantise({"weight": weight, "scale": scale}, Sharing(block=(16, 16))), theirs)


GOOD = gptq.pack(torch.zeros(32, 64, dtype=torch.uint8), torch.ones(32, 2), torch.zeros(32, 2, dtype=torch.uint8), 4, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qweight": torch.zeros(8, 32)}, "qweight has the dtype float32 instead of int32"),
        ({"qweight": torch.zeros(8, dtype=torch.int32)}, "two dimensions"),
        ({"qweight": torch.zeros(0, 32, dtype=torch.int32)}, "a part is empty"),
        ({"qzeros": torch.zeros(2, 5, dtype=torch.int32)}, "does not hold zero points of 2, 3, 4 or 8 bits"),
        ({"qzeros": torch.zeros(3, 4, dtype=torch.int32)}, r"scales has the shape \[2, 32\] instead of \[3, 32\]"),
        ({"scales": torch.ones(2, 31)}, "scales has the shape"),
        ({"scales": torch.ones(2, 32, dtype=torch.int64)}, "scales has the dtype int64"),
        ({"g_idx": torch.zeros(63, dtype=torch.int32)}, r"g_idx has the shape \[63\] instead of \[64\]"),
    ],
)
def test_gptq_parts_that_do_not_fit(change: dict[str, torch.Tensor], said: str):
    with pytest.raises(UserError, match=said):
        gptq.layout(infos({**GOOD, **change}), 32)


@pytest.mark.parametrize("index", [-1, 2])
def test_gptq_groups_that_are_not_there(index: int):
    parts = {**GOOD, "g_idx": torch.full((64,), index, dtype=torch.int32)}
    with pytest.raises(UserError, match="not among the 2 stored"):
        gptq.dequantise(parts, 32, 1)


def test_other_parts_that_do_not_fit():
    good = infos(
        awq.pack(torch.zeros(8, 32, dtype=torch.uint8), torch.ones(8, 2), torch.zeros(8, 2, dtype=torch.uint8))
    )
    with pytest.raises(UserError, match="qzeros has the shape"):
        awq.weight_shape({**good, "qzeros": ((3, 1), "int32")}, 16)
    with pytest.raises(UserError, match="cannot be divided into 3 groups"):
        awq.weight_shape({**good, "qzeros": ((3, 1), "int32"), "scales": ((3, 8), "float16")}, 16)
    with pytest.raises(UserError, match="does not fit a weight"):
        fp8.weight_shape({"weight": ((5, 8), "float8_e4m3fn"), "scale": ((3,), "float32")}, Sharing())
    with pytest.raises(UserError, match="dtype bfloat16 instead of float8"):
        fp8.weight_shape({"weight": ((5, 8), "bfloat16"), "scale": ((), "float32")}, Sharing())
