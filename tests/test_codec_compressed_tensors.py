"""compressed-tensors' formats against compressed-tensors itself."""

import struct

import pytest
import torch
from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

from bottega.codec import compressed_tensors
from bottega.codec.parts import Sharing
from bottega.core.errors import UserError

SHAPE = (12, 64)


def infos(parts: dict[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(part.shape), str(part.dtype).removeprefix("torch.")) for name, part in parts.items()}


def layout(parts: dict[str, torch.Tensor], sharing: Sharing, known=()) -> tuple[tuple[int, int], int]:
    content = parts["weight_shape"].numpy().tobytes
    return compressed_tensors.packed_layout(infos(parts), content, known, sharing)


def scheme(bits: int, symmetric: bool, group_size: int, **more) -> QuantizationScheme:
    strategy = {"strategy": "channel"} if group_size == -1 else {"strategy": "group", "group_size": group_size}
    return QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(num_bits=bits, symmetric=symmetric, **{**strategy, **more})
    )


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [16, -1])
def test_packed(bits: int, symmetric: bool, group_size: int):
    torch.manual_seed(bits)
    groups = 1 if group_size == -1 else SHAPE[1] // group_size
    half = 1 << bits - 1
    state = {"weight": torch.randn(SHAPE), "weight_scale": torch.rand(SHAPE[0], groups) * 0.1 + 0.01}
    if not symmetric:
        state["weight_zero_point"] = torch.randint(-half, half, (SHAPE[0], groups), dtype=torch.int8)
    rule = scheme(bits, symmetric, group_size)
    parts = PackedQuantizationCompressor.compress(dict(state), rule)
    theirs = PackedQuantizationCompressor.decompress(dict(parts), rule)["weight"]
    sharing = Sharing(group_size)
    assert layout(parts, sharing, {bits}) == (SHAPE, bits)
    assert layout(parts, sharing) == (SHAPE, bits)
    ours = compressed_tensors.dequantise_packed(parts, SHAPE, bits, sharing)
    assert torch.equal(ours, theirs)
    # Our own packing of the same codes gives the same words.
    zeros = state.get("weight_zero_point")
    spread = torch.zeros(SHAPE) if zeros is None else zeros.repeat_interleave(SHAPE[1] // groups, 1).float()
    codes = (theirs / state["weight_scale"].repeat_interleave(SHAPE[1] // groups, 1) + spread).round().to(torch.int8)
    packed = compressed_tensors.pack(codes, state["weight_scale"], zeros, bits)
    assert all(torch.equal(packed[name], parts[name]) for name in packed)


def test_packed_in_another_order():
    torch.manual_seed(0)
    codes = torch.randint(-8, 8, SHAPE, dtype=torch.int8)
    scales, order = torch.rand(SHAPE[0], 4), torch.randint(0, 4, (SHAPE[1],)).int()
    parts = {**compressed_tensors.pack(codes, scales, None, 4), "weight_g_idx": order}
    ours = compressed_tensors.dequantise_packed(parts, SHAPE, 4, Sharing(16))
    assert torch.equal(ours, codes.float() * scales[:, order.long()])
    unused = {**parts, "weight_g_idx": torch.full_like(order, -1)}
    expected = codes.float() * scales.repeat_interleave(16, 1)
    assert torch.equal(compressed_tensors.dequantise_packed(unused, SHAPE, 4, Sharing(16)), expected)


@pytest.mark.parametrize(
    ("args", "scale_shape", "sharing"),
    [
        ({"num_bits": 8, "strategy": "channel"}, (12, 1), Sharing()),
        ({"num_bits": 8, "strategy": "channel", "symmetric": False}, (12, 1), Sharing()),
        ({"num_bits": 8, "strategy": "tensor"}, (1,), Sharing()),
        ({"num_bits": 8, "strategy": "group", "group_size": 16}, (12, 4), Sharing(16)),
        ({"num_bits": 8, "strategy": "group", "group_size": 16, "symmetric": False}, (12, 4), Sharing(16)),
        ({"num_bits": 8, "type": "float", "strategy": "channel"}, (12, 1), Sharing()),
        ({"num_bits": 8, "type": "float", "strategy": "tensor"}, (1,), Sharing()),
        (
            {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [2, 32]},
            (6, 2),
            Sharing(block=(2, 32)),
        ),
    ],
)
def test_plain(args: dict, scale_shape: tuple[int, ...], sharing: Sharing):
    symmetric = args.get("symmetric", True)
    torch.manual_seed(0)
    state = {"weight": torch.randn(SHAPE), "weight_scale": torch.rand(scale_shape) * 0.01 + 0.01}
    if not symmetric:
        state["weight_zero_point"] = torch.randint(-128, 128, scale_shape, dtype=torch.int8)
    rule = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args))
    parts = NaiveQuantizationCompressor.compress(dict(state), rule)
    theirs = NaiveQuantizationCompressor.decompress(dict(parts), rule)["weight"]
    assert compressed_tensors.plain_shape(infos(parts), sharing) == SHAPE
    assert torch.equal(compressed_tensors.dequantise_plain(parts, sharing), theirs)


def test_awq_read_by_their_converter_is_the_same_weight():
    from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter

    from bottega.codec import awq

    torch.manual_seed(0)
    codes = torch.randint(0, 16, (16, 64), dtype=torch.uint8)
    zeros = torch.randint(0, 16, (16, 4), dtype=torch.uint8)
    parts = awq.pack(codes, torch.rand(16, 4), zeros)
    theirs = AutoAWQConverter(group_size=16).process({f"m.{name}": part for name, part in parts.items()})
    theirs = {name.removeprefix("m."): part for name, part in theirs.items()}
    ours = compressed_tensors.dequantise_packed(theirs, (16, 64), 4, Sharing(16))
    assert torch.equal(awq.dequantise(parts, 16), ours)


GOOD = compressed_tensors.pack(torch.zeros(SHAPE, dtype=torch.int8), torch.ones(12, 4), None, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weight_shape": torch.tensor([12, -64])}, "weight_shape says"),
        ({"weight_shape": torch.tensor([13, 64])}, r"weight_packed has the shape \[12, 8\] instead of \[13, 8\]"),
        ({"weight_shape": torch.tensor([12, 1 << 60])}, "do not fill 8 words"),
        ({"weight_shape": torch.tensor([12, 56])}, "do not fill 8 words"),
        ({"weight_shape": torch.tensor([12, 64, 1])}, "weight_shape has the shape"),
        ({"weight_shape": torch.tensor([12, 64]).int()}, "weight_shape has the dtype"),
        ({"weight_packed": torch.zeros(12, 5, dtype=torch.int32)}, "do not fill 5 words"),
        ({"weight_scale": torch.ones(12, 5)}, "cannot be divided into 5 groups"),
        ({"weight_scale": torch.ones(11, 4)}, "does not fit a weight"),
        ({"weight_scale": torch.ones(12, 4).int()}, "weight_scale has the dtype"),
        ({"weight_zero_point": torch.zeros(2, 5, dtype=torch.int32)}, "weight_zero_point has the shape"),
        ({"weight_g_idx": torch.zeros(63, dtype=torch.int32)}, "weight_g_idx has the shape"),
    ],
)
def test_parts_that_do_not_fit(change: dict[str, torch.Tensor], said: str):
    with pytest.raises(UserError, match=said):
        layout({**GOOD, **change}, Sharing(16), {4})


def test_bits_in_doubt_are_the_configs():
    parts = {**infos(GOOD), "weight_packed": ((12, 1), "int32"), "weight_scale": ((12, 1), "float32")}
    content = lambda: struct.pack("<2q", 12, 4)  # noqa: E731
    assert compressed_tensors.packed_layout(parts, content, {4}, Sharing())[1] == 4
    with pytest.raises(UserError, match="do not fill"):
        compressed_tensors.packed_layout(parts, content, set(), Sharing())
