"""ggml's types against gguf-py: equal to the last bit, for every pattern of bytes whose scales are finite."""

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.codec import ggml
from bottega.core.errors import UserError

# Where the float16 (Q8_K: none here) scales of a block lie.
SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
}  # fmt: skip


def random_blocks(name: str, count: int, seed: int) -> np.ndarray:
    """Blocks of random bytes whose scales are finite: (count, bytes)."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 256, (count, ggml.BY_NAME[name].nbytes), dtype=np.uint8)
    for at in SCALES.get(name, ()):
        scales = draw.standard_normal(count).astype(np.float16) * np.float16(0.1)
        blocks[:, at : at + 2] = scales.reshape(-1, 1).view(np.uint8)
    return blocks


def oracle(name: str, blocks: np.ndarray) -> np.ndarray:
    return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])


@pytest.mark.parametrize("name", sorted(SCALES))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 40))
def test_equal_to_gguf_py_to_the_bit(name: str, seed: int, count: int):
    kind, blocks = ggml.BY_NAME[name], random_blocks(name, count, seed)
    ours = ggml.dequantise(kind, torch.from_numpy(blocks).reshape(-1), (count, kind.values))
    assert ours.dtype == torch.float32
    assert ours.numpy().tobytes() == oracle(name, blocks).tobytes()


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_what_gguf_py_quantised(name: str):
    weight = np.random.default_rng(1).standard_normal((6, 64)).astype(np.float32)
    raw = gguf.quants.quantize(weight, gguf.GGMLQuantizationType[name])
    raw = torch.from_numpy(np.ascontiguousarray(raw)).reshape(-1).view(torch.uint8)
    ours = ggml.dequantise(ggml.BY_NAME[name], raw, (6, 64))
    assert ours.numpy().tobytes() == oracle(name, raw.numpy().reshape(6, -1)).tobytes()
    assert np.abs(ours.numpy() - weight).max() < 0.3


def test_sizes_are_gguf_pys():
    theirs = {kind.name: (kind.value, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    for number, kind in ggml.TYPES.items():
        assert kind.number == number
        assert theirs[kind.name] == (number, kind.values, kind.nbytes)
    assert set(ggml.READABLE) == set(SCALES) | set(ggml.PLAIN) | {"F32"}


def test_several_chunks_and_another_dtype(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ggml, "_CHUNK_VALUES", 1024)
    blocks = random_blocks("Q4_K", 30, seed=3)
    raw = torch.from_numpy(blocks).reshape(-1)
    ours = ggml.dequantise(ggml.BY_NAME["Q4_K"], raw, (3, 5, 512), torch.bfloat16)
    assert torch.equal(ours, torch.from_numpy(oracle("Q4_K", blocks)).reshape(3, 5, 512).bfloat16())


def test_refused():
    raw = torch.zeros(18, dtype=torch.uint8)
    with pytest.raises(UserError, match="18 bytes are not a Q4_0 tensor"):
        ggml.dequantise(ggml.BY_NAME["Q4_0"], raw, (64,))
    with pytest.raises(UserError, match="rows of 16 values cannot be cut into Q4_0 blocks"):
        ggml.dequantise(ggml.BY_NAME["Q4_0"], raw, (2, 16))
    with pytest.raises(UserError, match="IQ2_XXS are not read"):
        ggml.dequantise(ggml.BY_NAME["IQ2_XXS"], torch.zeros(66, dtype=torch.uint8), (256,))
