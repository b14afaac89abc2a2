"""kernels.c against plain PyTorch, and its promise: no row depends on the others, by no bit."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from bottega.core.errors import UserError
from bottega.model.feed_forward import ACTIVATIONS
from bottega.model.inference import IN_KERNEL, KernelLinear
from bottega.model.kernels import library, reference
from bottega.model.kernels.library import CacheFormat, WeightFormat
from bottega.model.kernels.packing import pack, unpack
from bottega.model.norm import RMSNorm
from bottega.model.rope import rotate

WEIGHTS: tuple[WeightFormat, ...] = ("float32", "bfloat16", "int8", "int4")
CACHES: tuple[CacheFormat, ...] = ("float32", "bfloat16", "int8")


def test_the_kernels_are_compiled_here() -> None:
    assert library.available(), "the installation found no C compiler: nothing below would be tested"


@pytest.mark.parametrize("format_", WEIGHTS)
@pytest.mark.parametrize(("outputs", "inner"), [(1, 32), (16, 64), (50, 96), (300, 160)])
def test_products_equal_torchs_and_no_row_depends_on_the_others(
    format_: WeightFormat, outputs: int, inner: int
) -> None:
    source = torch.Generator().manual_seed(outputs)
    weight, x = torch.randn(outputs, inner, generator=source), torch.randn(41, inner, generator=source)
    bias = torch.randn(outputs, generator=source)
    packed = pack(weight, format_)
    expected = x.double() @ unpack(packed).double().T + bias.double()

    def product(rows: Tensor) -> Tensor:
        return library.linear(format_, rows, packed.weight, packed.scales, bias, outputs)

    together = product(x)
    assert (together - expected).abs().max() <= 1e-5 * expected.abs().max()
    for count, start in itertools.product((1, 2, 3, 4, 5, 7, 8, 9, 17), (0, 11)):
        assert torch.equal(product(x[start : start + count]), together[start : start + count])


@pytest.mark.parametrize(
    ("format_", "most"), [("float32", 0.0), ("bfloat16", 2**-8), ("int8", 0.6 / 127), ("int4", 0.55 / 7)]
)
def test_packing_loses_what_its_format_must_lose(format_: WeightFormat, most: float) -> None:
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    weight[3] = 0
    largest = weight.view(40, 2, 32).abs().amax(-1, keepdim=True).expand(40, 2, 32).reshape(40, 64)
    assert ((unpack(pack(weight, format_)) - weight).abs() <= most * largest).all()


def test_rows_that_do_not_fill_groups_are_refused() -> None:
    with pytest.raises(UserError, match="40 weights"):
        KernelLinear(torch.randn(8, 40), None, "int4")


def stored(format_: CacheFormat, key: Tensor, value: Tensor, slots: Tensor, blocks: int) -> list[Tensor | None]:
    """Keys and values in blocks that hold rubbish elsewhere."""
    heads, dim = key.shape[1:]
    width = -(-dim // 16) * 16
    dtype = getattr(torch, format_)
    rubbish = [torch.full((blocks, heads, dim, 16), 99.0), torch.full((blocks, heads, 16, width), 99.0)]
    parts: list[Tensor | None] = [part.to(dtype) for part in rubbish]
    scale = torch.full((blocks, heads, 16), torch.nan)
    parts += [scale.clone(), scale.clone()] if format_ == "int8" else [None, None]
    library.store(format_, key, value, *parts, slots)  # pyright: ignore[reportArgumentType]
    return parts


@pytest.mark.parametrize("format_", CACHES)
def test_storing_equals_the_reference(format_: CacheFormat) -> None:
    source = torch.Generator().manual_seed(2)
    key, value = torch.randn(20, 2, 24, generator=source), torch.randn(20, 2, 24, generator=source)
    key[4] = 0
    slots = torch.randperm(64, generator=source)[:20]
    ours = stored(format_, key, value, slots, 4)
    theirs = [None if part is None else part.clone() for part in ours]
    for part in theirs[:2]:
        assert part is not None
        part.fill_(99)
    reference.store(format_, key, value, *theirs, slots)  # pyright: ignore[reportArgumentType]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine is None or torch.equal(torch.nan_to_num(mine), torch.nan_to_num(other))  # pyright: ignore[reportArgumentType]


HOW = [
    {},
    {"window": 5},
    {"window": 40, "cap": 3.0},
    {"slopes": torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.03, 0.01])},
]


@pytest.mark.parametrize("format_", CACHES)
@pytest.mark.parametrize("how", HOW, ids=["plain", "window", "window and cap", "slopes"])
@pytest.mark.parametrize(("kv_heads", "dim"), [(6, 16), (2, 40), (1, 64), (3, 144), (2, 300)])
def test_attention_equals_the_reference_however_it_is_cut(
    format_: CacheFormat, how: dict, kv_heads: int, dim: int
) -> None:
    source = torch.Generator().manual_seed(3)
    lengths, blocks = (70, 19, 1, 33), 16
    order = torch.randperm(blocks, generator=source).tolist()
    tables = torch.zeros(4, 5, dtype=torch.int32)
    for row, length in enumerate(lengths):
        count = -(-length // 16)
        tables[row, :count] = torch.tensor([order.pop() for _ in range(count)])
    positions = [(row, place) for row, length in enumerate(lengths) for place in range(length)]
    slots = torch.tensor([int(tables[row, place // 16]) * 16 + place % 16 for row, place in positions])
    total = len(positions)
    key, value = (torch.randn(total, kv_heads, dim, generator=source) for _ in range(2))
    query = torch.randn(total, 6, dim, generator=source)
    parts = stored(format_, key, value, slots, blocks)
    starts = [sum(lengths[:row]) for row in range(4)]
    spans = torch.tensor([(start, length, 0) for start, length in zip(starts, lengths, strict=True)]).int()

    def attend(q: Tensor, spans: Tensor, tables: Tensor) -> Tensor:
        return library.attention(format_, q, *parts, tables, spans, scale=0.3, **how)  # pyright: ignore[reportArgumentType]

    together = attend(query, spans, tables)
    expected = reference.attention(query.double(), *parts, tables, spans, scale=0.3, **how)  # pyright: ignore[reportArgumentType]
    assert (together - expected).abs().max() <= 2e-5 * expected.abs().max()
    for row, first, count in ((0, 0, 1), (0, 69, 1), (0, 13, 22), (0, 64, 3), (1, 18, 1), (2, 0, 1), (3, 5, 28)):
        at = starts[row] + first
        alone = attend(query[at : at + count], torch.tensor([(0, count, first)]).int(), tables[row : row + 1].clone())
        assert torch.equal(alone, together[at : at + count])


def test_small_things_equal_torchs() -> None:
    x = torch.randn(3, 5, 72) * 10
    norm = RMSNorm(72, 1e-5)
    norm.weight.data.normal_()
    assert torch.allclose(library.rms_norm(x, norm.weight.data, 1e-5), norm(x), rtol=1e-5, atol=1e-6)
    gate, up = x.chunk(2, dim=-1)
    assert torch.allclose(
        library.activate("silu", x, gated=True), torch.nn.functional.silu(gate) * up, rtol=1e-5, atol=1e-5
    )
    wild = torch.tensor([[-200.0, -88.0, 0.0, 88.0, 200.0] * 8 + [1.0] * 40])
    assert torch.allclose(library.activate("silu", wild, gated=True), torch.nn.functional.silu(wild[:, :40]), rtol=1e-5)


@pytest.mark.parametrize("name", IN_KERNEL)
@pytest.mark.parametrize("size", [1, 16, 72, 1000])
def test_activations_equal_torchs_and_no_row_depends_on_the_others(name: str, size: int) -> None:
    x = torch.randn(37, 2 * size, generator=torch.Generator().manual_seed(size)) * 4
    gate, up = x.chunk(2, dim=-1)
    exact = ACTIVATIONS[name](gate.double())
    kind = IN_KERNEL[name]
    for together, expected in (
        (library.activate(kind, gate), exact),
        (library.activate(kind, x, gated=True), exact * up.double()),
    ):
        assert (together - expected).abs().max() <= 1e-6 * expected.abs().max()
    for count, start in itertools.product((1, 2, 5, 13), (0, 3, 11)):
        rows = slice(start, start + count)
        assert torch.equal(library.activate(kind, gate[rows]), library.activate(kind, gate)[rows])
        assert torch.equal(library.activate(kind, x[rows], gated=True), library.activate(kind, x, gated=True)[rows])


def test_sigmoid_equals_torchs_to_both_ends() -> None:
    x = torch.tensor([-torch.inf, -200.0, -30.0, -1.0, 0.0, 1.0, 30.0, 200.0, torch.inf])
    assert torch.allclose(library.activate("sigmoid", x), torch.sigmoid(x), rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("dim", [24, 8])
def test_splitting_and_turning_equals_rope(dim: int) -> None:
    joined = torch.randn(1, 5, 8 * 24)
    cos, sin = torch.randn(5, dim), torch.randn(5, dim)
    query, key, value = library.split_rotate(joined, cos, sin, 4, 2, 24)
    heads = joined.view(1, 5, 8, 24)
    assert torch.allclose(query, rotate(heads[:, :, :4], cos, sin), atol=1e-5)
    assert torch.allclose(key, rotate(heads[:, :, 4:6], cos, sin), atol=1e-5)
    assert torch.equal(value, heads[:, :, 6:])
    assert torch.equal(library.rotate(heads[:, :, :4], cos, sin), query)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    x, weight = torch.randn(9, 512), torch.randn(700, 512)
    packed = pack(weight, "float32")
    before = torch.get_num_threads()
    one = library.linear("float32", x, packed.weight, None, None, 700)
    torch.set_num_threads(threads)
    try:
        assert torch.equal(library.linear("float32", x, packed.weight, None, None, 700), one)
    finally:
        torch.set_num_threads(before)
