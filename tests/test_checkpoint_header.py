"""safetensors headers and indexes from strangers: everything false is refused, in words, without reading outside."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.checkpoint.header import read_header, read_headers, read_index
from bottega.core.errors import UserError


def entry(begin: int, end: int, dtype: str = "F32", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_a_good_file(file: Path):
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry(8, 16),
        "a": entry(0, 8),
        "empty": entry(16, 16, shape=[0, 3]),
    }
    write(file, header, bytes(16))
    found = read_header(file)
    assert list(found) == ["a", "b", "empty"]
    assert found["b"].start == file.stat().st_size - 8
    assert found["empty"].info.shape == (0, 3)


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "overlap"),
        ({"a": entry(0, 8), "b": entry(0, 8)}, 8, "overlap"),
        ({"a": entry(0, 8), "b": entry(12, 20)}, 20, "hole"),
        ({"a": entry(4, 8)}, 8, "hole"),
        ({"a": entry(0, 8)}, 7, "need"),
        ({"a": entry(0, 8)}, 9, "need"),
        ({}, 4, "need"),
        ({"a": entry(-8, 0, shape=[2])}, 8, "data_offsets"),
        ({"a": entry(8, 0, shape=[2])}, 8, "data_offsets"),
        ({"a": entry(0, 8, shape=[-2])}, 8, "shape"),
        ({"a": entry(0, 8, shape=[-1, -2])}, 8, "shape"),
        ({"a": entry(0, 8, shape=[True, 2])}, 8, "shape"),
        ({"a": entry(0, 8, shape=["2"])}, 8, "shape"),
        ({"a": entry(0, 8, shape=[2.0])}, 8, "shape"),
        ({"a": entry(0, 8, shape=[1 << 62, 1 << 62, 0])}, 8, "does not fill"),
        ({"a": entry(0, 8, shape=[1 << 62, 4])}, 8, "does not fill"),
        ({"a": entry(0, 8, shape=[1 << 64])}, 8, "shape"),
        ({"a": entry(0, 8, shape=[1] * 1000)}, 8, "shape"),
        ({"a": entry(0, 8, dtype="F33")}, 8, "dtype 'F33'"),
        ({"a": entry(0, 8, dtype=["F32"])}, 8, "dtype"),  # type: ignore[arg-type]
        ({"a": entry(0, 8, dtype="F64", shape=[2])}, 8, "does not fill"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "data_offsets"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, 8, "data_offsets"),
        ({"a": 3}, 8, "not an object"),
        ([], 0, "not a JSON object"),
        (b"{", 0, "JSON"),
        (b"[" * 100_000, 0, "JSON"),
        (b'{"a": "\xff"}', 0, "JSON"),
        (json.dumps({"a": entry(0, 8)})[:-1].encode() + b', "a": 1}', 8, "twice"),
    ],
)
def test_false_headers(file: Path, header: Any, data: int, said: str):
    write(file, header, bytes(data))
    with pytest.raises(UserError) as error:
        read_header(file)
    assert said in error.value.message
    assert str(file) in error.value.message


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 100) + b"{}", struct.pack("<Q", 1 << 63)])
def test_truncated(file: Path, content: bytes):
    file.write_bytes(content)
    with pytest.raises(UserError):
        read_header(file)


def test_a_length_beyond_the_file_is_not_allocated(file: Path):
    write(file, {}, length=99_000_000)
    with pytest.raises(UserError, match="claims 99000000 bytes"):
        read_header(file)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_never_worse(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    file = tmp_path_factory.mktemp("fuzz") / "f.safetensors"
    write(file, {"a": entry(0, 8), "b": entry(8, 24, shape=[2, 2])}, bytes(24))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = read_header(file)
    except UserError:
        return
    assert all(place.start > 0 and place.start + place.info.nbytes <= file.stat().st_size for place in found.values())


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\\b", "a\0", 3]
)
def test_an_index_does_not_leave_its_folder(tmp_path: Path, name: Any):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match="not a file name beside the index"):
        read_index(path)


@pytest.mark.parametrize("data", [[], {}, {"weight_map": {}}, {"weight_map": []}])
def test_an_index_without_a_map(tmp_path: Path, data: Any):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match="no weight_map"):
        read_index(path)


def test_index_and_shards_must_agree(tmp_path: Path):
    index = tmp_path / "model.safetensors.index.json"
    write(tmp_path / "1.safetensors", {"a": entry(0, 8)}, bytes(8))
    write(tmp_path / "2.safetensors", {"b": entry(0, 8), "c": entry(8, 16)}, bytes(16))
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}}))
    assert set(read_headers(tmp_path)) == {"a", "b", "c"}
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    with pytest.raises(UserError, match="do not agree on c"):
        read_headers(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "3.safetensors"}}))
    with pytest.raises(UserError, match=r"lacks 3\.safetensors"):
        read_headers(tmp_path)
