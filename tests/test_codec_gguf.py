"""The GGUF container: what gguf-py writes is read, what is written gguf-py reads, and what is false is refused."""

import struct
import time
import tracemalloc
from array import array
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.codec.gguf import load, raw_bytes, read_gguf
from bottega.codec.gguf_write import GgufWriter
from bottega.core.errors import BottegaError, UserError

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "a.whole": 5,
    "a.negative": -3,
    "a.large": 1 << 40,
    "a.half": 0.5,
    "a.yes": True,
    "a.uint16": np.uint16(7),
    "a.uint8": np.uint8(255),
    "a.int64": np.int64(-1),
    "a.double": np.float64(1 / 3),
    "a.floats": array("f", [1.0, 2.5]),
    "a.bytes": array("B", [1, 2]),
    "a.texts": ["a", "bé", ""],
    "a.numbers": [1, 2, 3],
    "a.truths": [True, False],
    "a.nested": [[1, 2], [3]],
}


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(3, 64),
        "b.weight": torch.randn(5).half(),
        "c.weight": torch.randn(2, 3, 7).bfloat16(),
    }


def write(path: Path, metadata: dict[str, Any] | None = None) -> dict[str, torch.Tensor]:
    """A file with three tensors and one of Q8_0 blocks."""
    made = tensors()
    blocks = torch.from_numpy(gguf.quants.quantize(made["a.weight"].numpy(), gguf.GGMLQuantizationType.Q8_0))
    declared = {name: (NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in made.items()}
    declared["q.weight"] = ("Q8_0", (3, 64))
    with GgufWriter(path, METADATA if metadata is None else metadata, declared) as writer:
        for name in reversed(made):
            writer.add(name, made[name])
        writer.add("q.weight", blocks)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("alignment", [None, 8, 1024])
def test_what_is_written_gguf_py_reads(file: Path, alignment: int | None):
    more = {} if alignment is None else {"general.alignment": alignment}
    made = write(file, {**METADATA, **more})
    theirs = gguf.GGUFReader(file)
    for name, value in METADATA.items():
        found = theirs.fields[name].contents()
        if name != "a.nested":  # which it flattens
            assert found == (value.tolist() if isinstance(value, array) else value), name
    assert theirs.fields["a.uint16"].types == [gguf.GGUFValueType.UINT16]
    assert theirs.fields["a.double"].types == [gguf.GGUFValueType.FLOAT64]
    found = {tensor.name: tensor for tensor in theirs.tensors}
    assert torch.equal(torch.from_numpy(found["a.weight"].data.copy()), made["a.weight"])
    assert found["c.weight"].shape.tolist() == [7, 3, 2]
    # And we read it ourselves.
    ours = read_gguf(file)
    assert list(ours.tensors) == [*made, "q.weight"]
    assert all(torch.equal(load(ours.tensors[name]), made[name]) for name in made)
    assert (load(ours.tensors["q.weight"]) - made["a.weight"]).abs().max() < 0.05
    assert load(ours.tensors["q.weight"], torch.bfloat16).dtype == torch.bfloat16
    assert ours.metadata["a.texts"] == METADATA["a.texts"]
    assert ours.metadata["a.nested"] == [array("I", [1, 2]), array("I", [3])]
    assert ours.metadata["a.yes"] is True
    assert ours.metadata["a.double"] == 1 / 3


def peer_file(path: Path, **options: Any) -> dict[str, np.ndarray]:
    writer = gguf.GGUFWriter(path, "llama", **options)
    writer.add_block_count(2)
    writer.add_array("x.tokens", ["a", "b", "ü"])
    writer.add_array("x.scores", [0.5, -1.0])
    writer.add_bool("x.flag", True)
    draw = np.random.default_rng(0)
    made = {f"t{n}": draw.standard_normal((n + 1, 32)).astype(np.float32) for n in range(5)}
    for name, values in made.items():
        writer.add_tensor(name, values)
    kind = gguf.GGMLQuantizationType.Q4_0
    writer.add_tensor("q", gguf.quants.quantize(made["t3"], kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made


def test_what_gguf_py_writes_is_read(file: Path):
    made = peer_file(file)
    ours = read_gguf(file)
    assert ours.version == 3
    assert ours.metadata["llama.block_count"] == 2
    assert ours.metadata["x.tokens"] == ["a", "b", "ü"]
    assert ours.metadata["x.scores"] == array("f", [0.5, -1.0])
    assert all(torch.equal(load(ours.tensors[name]), torch.from_numpy(made[name])) for name in made)
    assert ours.tensors["q"].shape == (4, 32)
    assert raw_bytes(ours.tensors["q"]).shape == (4 * 18,)


def test_split_files(tmp_path: Path):
    made = peer_file(tmp_path / "m.gguf", split_max_tensors=2)
    first, second, third = sorted(tmp_path.glob("m-*.gguf"))
    ours = read_gguf(first)
    assert {tensor.file for tensor in ours.tensors.values()} == {first, second, third}
    assert all(torch.equal(load(ours.tensors[name]), torch.from_numpy(made[name])) for name in made)
    with pytest.raises(UserError, match="not the first part"):
        read_gguf(second)
    kept = second.read_bytes()
    second.write_bytes(third.read_bytes())
    with pytest.raises(UserError, match="it is not part 2 of 3"):
        read_gguf(first)
    second.unlink()
    with pytest.raises(UserError, match=r"m-00002-of-00003\.gguf is missing"):
        read_gguf(first)
    second.write_bytes(kept)
    first.rename(tmp_path / "other.gguf")
    with pytest.raises(UserError, match="part of a model of 3 files"):
        read_gguf(tmp_path / "other.gguf")


def test_reading_is_lazy_and_private(file: Path):
    made = write(file)
    before = file.read_bytes()
    tensor = load(read_gguf(file).tensors["a.weight"])
    tensor.zero_()
    assert file.read_bytes() == before
    file.unlink()
    assert torch.equal(tensor, torch.zeros_like(made["a.weight"]))


def test_the_writer_leaves_nothing_unfinished(file: Path):
    with (
        pytest.raises(BottegaError, match="2 declared tensors"),
        GgufWriter(file, {}, {"a": ("F32", (2,)), "b": ("F32", (2,)), "c": ("F32", (1,))}) as writer,
    ):
        writer.add("a", torch.zeros(2))
    with pytest.raises(ValueError, match="ours"), GgufWriter(file, {}, {"a": ("F32", (2,))}):
        raise ValueError("ours")
    for wrong in (torch.zeros(3), torch.zeros(2).half()):
        with pytest.raises(BottegaError, match="not F32"), GgufWriter(file, {}, {"a": ("F32", (2,))}) as writer:
            writer.add("a", wrong)
    assert not list(file.parent.iterdir())


def text(value: str) -> bytes:
    content = value.encode()
    return struct.pack("<Q", len(content)) + content


def entry(key: str, kind: int, content: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + content


def info(name: str, sizes: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def made_by_hand(
    entries: tuple[bytes, ...] = (), infos: tuple[bytes, ...] = (), data: int = 0, version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:  # fmt: skip
    tensor_count, entry_count = counts or (len(infos), len(entries))
    header = b"GGUF" + struct.pack("<IQQ", version, tensor_count, entry_count) + b"".join((*entries, *infos))
    return header + bytes(-len(header) % 32) + bytes(data)


U64 = struct.pack("<Q", 2**64 - 1)
FALSE = [
    (b"", "too short"),
    (b"GGUF", "too short"),
    (b"GGML" + bytes(40), "not a GGUF file"),
    (made_by_hand(version=1), "version 1 is not read"),
    (made_by_hand(version=4), "version 4 is not read"),
    (made_by_hand(version=3 << 24), "big-endian"),
    (made_by_hand(counts=(1, 0)), "the announced header would need"),
    (made_by_hand(counts=(0, 1 << 63)), "announces 9223372036854775808 entries"),
    (made_by_hand(counts=(1 << 62, 0)), "announces"),
    (made_by_hand((U64 + bytes(20),)), "a key is 18446744073709551615 bytes long"),
    (made_by_hand((text("\u00e9")[:-1] + b"\xff" + struct.pack("<IB", 0, 0),)), "not UTF-8"),
    (made_by_hand((entry("a", 8, U64),)), "'a' would need 18446744073709551615 bytes"),
    (made_by_hand((entry("a", 8, struct.pack("<Q", 1) + b"\xff"),)), "'a' is not UTF-8"),
    (made_by_hand((entry("a", 13, bytes(8)),)), "unknown type 13"),
    (made_by_hand((entry("a", 9, struct.pack("<I", 13) + struct.pack("<Q", 1)),)), "unknown type 13"),
    (made_by_hand((entry("a", 9, struct.pack("<I", 0) + U64),)), "would need"),
    (made_by_hand((entry("a", 9, struct.pack("<I", 8) + U64),)), "would need"),
    (made_by_hand((entry("a", 9, struct.pack("<I", 9) + U64),)), "would need"),
    (made_by_hand((entry("a", 9, struct.pack("<IQ", 9, 1) * 50),)), "nested deeper"),
    (made_by_hand((entry("a", 0, b"\0"), entry("a", 0, b"\0"))), "'a' stands twice"),
    (made_by_hand((entry("general.alignment", 4, struct.pack("<I", 0)),)), "not a power of two"),
    (made_by_hand((entry("general.alignment", 4, struct.pack("<I", 24)),)), "not a power of two"),
    (made_by_hand((entry("general.alignment", 8, text("32")),)), "not a power of two"),
    (
        made_by_hand((entry("general.alignment", 4, struct.pack("<I", 1 << 31)),), (info("t", (8,)),), 32),
        "ends at byte",
    ),
    (made_by_hand(infos=(info("t", (8,)), info("t", (8,), offset=32)), data=64), "'t' stands twice"),
    (made_by_hand(infos=(info("t", (8,)), info("u", (8,))), data=64), "'u' and 't' overlap"),
    (made_by_hand(infos=(info("t", (9,)), info("u", (8,), offset=32)), data=64), "'u' and 't' overlap"),
    (made_by_hand(infos=(info("t", (8,), offset=8),), data=64), "not at a multiple of 32"),
    (made_by_hand(infos=(info("t", (8,), offset=32),), data=32), "ends at byte"),
    (made_by_hand(infos=(info("t", (8,), offset=1 << 63),), data=32), "ends at byte"),
    (made_by_hand(infos=(info("t", (8,)),), data=31), "ends at byte"),
    (made_by_hand(infos=(info("t", (1 << 62, 1 << 62)),), data=32), "ends at byte"),
    (made_by_hand(infos=(info("t", (1 << 63,)),), data=32), "impossible shape"),
    (made_by_hand(infos=(info("t", (0, 4)),), data=32), "impossible shape"),
    (made_by_hand(infos=(info("t", (1,) * 5),), data=32), "5 dimensions"),
    (made_by_hand(infos=(text("t") + struct.pack("<I", 1 << 31) + bytes(20),), data=32), "2147483648 dimensions"),
    (made_by_hand(infos=(info("t" * 300, (8,)),), data=32), "a tensor's name is 300 bytes long"),
    (made_by_hand(infos=(info("t", (8,), kind=99),), data=32), "unknown type 99"),
    (made_by_hand(infos=(info("t", (8,), kind=4),), data=32), "unknown type 4"),
    (made_by_hand(infos=(info("t", (33,), kind=2),), data=64), "cannot be cut into Q4_0 blocks"),
]


@pytest.mark.parametrize(("content", "said"), FALSE)
def test_false_files(file: Path, content: bytes, said: str):
    file.write_bytes(content)
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(UserError) as error:
            read_gguf(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert said in error.value.message
    assert str(file) in error.value.message
    assert time.monotonic() - began < 5


def test_files_that_are_not_files(tmp_path: Path):
    for path in (tmp_path, tmp_path / "absent.gguf"):
        with pytest.raises(UserError, match=path.name):
            read_gguf(path)


def test_a_good_file_by_hand(file: Path):
    infos = (info("b", (8,), offset=32), info("a", (8,)), info("one", (), offset=64))
    file.write_bytes(made_by_hand((entry("x", 7, b"\1"),), infos, 68, version=2))
    found = read_gguf(file)
    assert (found.version, list(found.tensors), found.metadata) == (2, ["b", "a", "one"], {"x": True})
    assert load(found.tensors["one"]).shape == ()


def test_memory_and_time_grow_with_the_file_only(file: Path):
    count = 40_000
    nested = struct.pack("<IQ", 0, 0) * count
    file.write_bytes(made_by_hand((entry("a", 9, struct.pack("<IQ", 9, count) + nested),)))
    tracemalloc.start()
    try:
        read_gguf(file)
        assert tracemalloc.get_traced_memory()[1] < 20 * file.stat().st_size
    finally:
        tracemalloc.stop()


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """A good file with some bytes or numbers replaced, parts cut out, doubled or cut off."""
    found = bytearray(content)
    numbers = (0, 1, 2, 255, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1, len(content))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(found) - 1)))
        kind = data.draw(st.sampled_from(["byte", "number", "cut", "double", "end"]))
        if kind == "byte":
            found[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
        elif kind == "number":
            number = data.draw(st.sampled_from(numbers))
            width = data.draw(st.sampled_from([4, 8]))
            found[at : at + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        elif kind == "cut":
            del found[at : at + data.draw(st.integers(1, 16))]
        elif kind == "double":
            found[at:at] = found[at : at + data.draw(st.integers(1, 16))]
        else:
            del found[at:]
    return bytes(found)


def check_damaged(folder: Path, data: st.DataObject) -> None:
    good = folder / "good.gguf"
    if not good.exists():
        write(good)
    file = folder / "damaged.gguf"
    file.write_bytes(damaged(good.read_bytes(), data))
    size = file.stat().st_size
    try:
        found = read_gguf(file)
    except UserError:
        return
    for tensor in found.tensors.values():
        assert 0 < tensor.start <= tensor.start + tensor.nbytes <= size
        try:
            assert load(tensor).shape == tensor.shape
        except UserError as error:
            assert "are not read" in error.message  # its type became one that only is measured


@settings(max_examples=100, deadline=10_000)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_never_worse(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    check_damaged(tmp_path_factory.getbasetemp(), data)


@pytest.mark.slow
@settings(max_examples=2000, deadline=10_000)
@given(data=st.data())
def test_many_damaged_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    check_damaged(tmp_path_factory.getbasetemp(), data)
