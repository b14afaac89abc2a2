"""bitsandbytes' formats against bitsandbytes itself."""

import json

import bitsandbytes.functional as peer
import pytest
import torch

from bottega.codec import bitsandbytes
from bottega.core.errors import UserError


def infos(parts: dict[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(part.shape), str(part.dtype).removeprefix("torch.")) for name, part in parts.items()}


def quantised(weight: torch.Tensor, quant_type: str, nested: bool, **options) -> tuple[dict, bytes, torch.Tensor]:
    """The parts as bitsandbytes saves them, the state's JSON, and what bitsandbytes reads back."""
    codes, state = peer.quantize_4bit(weight, quant_type=quant_type, compress_statistics=nested, **options)
    saved = state.as_dict(packed=True)
    content = saved.pop(f"quant_state.bitsandbytes__{quant_type}").numpy().tobytes()
    return {"weight": codes, **saved}, content, peer.dequantize_4bit(codes, state)


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("shape", "blocksize"), [((48, 64), 64), ((7, 20), 64), ((600, 128), 128)])
def test_four_bits(quant_type: str, nested: bool, shape: tuple[int, int], blocksize: int):
    torch.manual_seed(0)
    parts, content, theirs = quantised(torch.randn(shape), quant_type, nested, blocksize=blocksize)
    state = bitsandbytes.read_state(content)
    assert (state.quant_type, state.shape, state.blocksize) == (quant_type, shape, blocksize)
    bitsandbytes.check_4bit(parts["weight"].nbytes, infos(parts), state)
    ours = bitsandbytes.dequantise_4bit(parts, state)
    assert ours.shape == shape
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    stored_otherwise = {**parts, "weight": parts["weight"].view(torch.uint8)}
    if parts["weight"].numel() % 2 == 0:
        stored_otherwise["weight"] = parts["weight"].reshape(-1).view(torch.bfloat16).reshape(-1, 1)
    assert torch.equal(bitsandbytes.dequantise_4bit(stored_otherwise, state), ours)


def test_four_bits_by_the_formula():
    """An odd number of values, blocks of 4, nested blocks of 2."""
    torch.manual_seed(0)
    codes, levels, table = torch.randint(0, 16, (3, 5), dtype=torch.uint8), torch.randn(16), torch.randn(256)
    scales, outer = torch.randint(0, 256, (4,), dtype=torch.uint8), torch.rand(2)
    parts = {"quant_map": levels, "absmax": scales, "nested_absmax": outer, "nested_quant_map": table}
    parts["weight"] = bitsandbytes.pack_4bit(codes)
    state = bitsandbytes.QuantState("nf4", (3, 5), 4, 2, 0.25)
    bitsandbytes.check_4bit(8, infos(parts), state)
    ours = bitsandbytes.dequantise_4bit(parts, state).reshape(-1)
    for place, code in enumerate(codes.reshape(-1).tolist()):
        block = place // 4
        scale = table[int(scales[block])] * outer[block // 2] + 0.25
        assert ours[place] == levels[code] * scale


def test_packing_is_the_peers():
    torch.manual_seed(0)
    parts, _, _ = quantised(torch.randn(6, 10), "nf4", False)
    codes = torch.stack((parts["weight"] >> 4, parts["weight"] & 15), dim=-1).reshape(6, 10)
    assert torch.equal(bitsandbytes.pack_4bit(codes), parts["weight"])
    assert bitsandbytes.pack_4bit(codes.reshape(-1)[:5]).shape == (3, 1)


def test_eight_bits():
    torch.manual_seed(0)
    codes, scales, _ = peer.int8_vectorwise_quant(torch.randn(6, 32, dtype=torch.float16))
    parts = {"weight": codes, "SCB": scales, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    assert bitsandbytes.weight_shape_8bit(infos(parts)) == (6, 32)
    assert torch.equal(bitsandbytes.dequantise_8bit(parts), peer.int8_vectorwise_dequant(codes, scales))
    with pytest.raises(UserError, match="an order for one kind of GPU"):
        bitsandbytes.dequantise_8bit({**parts, "weight_format": torch.tensor(2, dtype=torch.uint8)})
    with pytest.raises(UserError, match="SCB has the shape"):
        bitsandbytes.weight_shape_8bit(infos({**parts, "SCB": scales[1:]}))


GOOD = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4, 32]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (json.dumps({**GOOD, "shape": [-1, 2]}).encode(), "no usable shape"),
        (json.dumps({**GOOD, "shape": [1 << 60, 2]}).encode(), "no usable shape"),
        (json.dumps({**GOOD, "shape": []}).encode(), "no usable shape"),
        (json.dumps({**GOOD, "shape": [True, 2]}).encode(), "no usable shape"),
        (json.dumps({**GOOD, "blocksize": 0}).encode(), "no usable blocksize"),
        (json.dumps({**GOOD, "blocksize": "64"}).encode(), "no usable blocksize"),
        (json.dumps({**GOOD, "nested_blocksize": 1 << 40}).encode(), "no usable nested_blocksize"),
        (json.dumps({**GOOD, "nested_offset": "1"}).encode(), "no usable nested_offset"),
        (json.dumps({**GOOD, "nested_offset": float("nan")}).encode(), "no usable nested_offset"),
    ],
)
def test_states_that_are_not_usable(content: bytes, said: str):
    with pytest.raises(UserError, match=said):
        bitsandbytes.read_state(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quant_map": torch.zeros(15)}, "quant_map has the shape"),
        ({"absmax": torch.zeros(3)}, "absmax has the shape"),
        ({"absmax": torch.zeros(2, dtype=torch.uint8)}, "lacks one of nested_absmax"),
        ({"absmax": torch.zeros(2, dtype=torch.float16)}, "absmax has the dtype float16"),
    ],
)
def test_parts_that_do_not_fit(change: dict[str, torch.Tensor], said: str):
    parts = {"quant_map": torch.zeros(16), "absmax": torch.zeros(2), **change}
    with pytest.raises(UserError, match=said):
        bitsandbytes.check_4bit(64, infos(parts), bitsandbytes.read_state(json.dumps(GOOD).encode()))
    with pytest.raises(UserError, match="its 63 bytes do not hold 4 bits"):
        bitsandbytes.check_4bit(63, infos(parts), bitsandbytes.read_state(json.dumps(GOOD).encode()))
