"""GGUF files, versions 2 and 3: metadata and where each tensor lies; read without torch.

    "GGUF"  version u32  tensors u64  entries u64
    entries:   key string, type u32, value                     string: length u64, UTF-8
    tensors:   name string, dimensions u32, sizes u64 (the innermost first), type u32, offset u64
    padding to `general.alignment` (32 if not said)
    the tensors' bytes; offsets count from here and are multiples of the alignment

All numbers are little-endian (big-endian files are refused by name). A model may be split into
`NAME-00001-of-0000N.gguf`; each part is a file of this form, the first has all metadata. Source:
`docs/gguf.md` of ggml. Everything is checked before it is believed: a file comes from anywhere.
What is kept of a header, and the time it takes, is bounded by the bytes that it has.
"""

from __future__ import annotations

import mmap
import re
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.codec.ggml import PLAIN, TYPES, BlockType, dequantise
from bottega.core.errors import UserError
from bottega.core.mapped import map_file, tensor_at

if TYPE_CHECKING:
    import torch

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"
# Types of values. Of numbers: its code in `struct` and `array`, and its bytes.
UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
NUMBERS: dict[int, tuple[str, int]] = {
    UINT8: ("B", 1), INT8: ("b", 1), UINT16: ("H", 2), INT16: ("h", 2), UINT32: ("I", 4), INT32: ("i", 4),
    FLOAT32: ("f", 4), BOOL: ("B", 1), UINT64: ("Q", 8), INT64: ("q", 8), FLOAT64: ("d", 8),
}  # fmt: skip
MAX_KEY_BYTES, MAX_NAME_BYTES = 65535, 255
MAX_ENTRIES, MAX_TENSORS = 1 << 16, 1 << 20  # more than any model has
MAX_DIMENSIONS = 4
MAX_NESTING = 4
_LEAST_ENTRY, _LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 4 + 8
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies: `nbytes` bytes of `file` from `start` on. `shape` is torch's: the innermost last."""

    name: str
    shape: tuple[int, ...]
    kind: BlockType
    file: Path
    start: int
    nbytes: int


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file, or all parts of a split one.

    `metadata`: numbers, truth values and texts as Python's; arrays of numbers as `array.array`
    (truth values as bytes), of texts and of arrays as lists.
    """

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


class GgufError(UserError):
    """A GGUF file is damaged, or not what its name says."""

    def __init__(self, path: Path, problem: str, hint: str = "") -> None:
        super().__init__(
            f"{path}: {problem}", hint=hint or "The file is damaged or was not copied completely: get it again."
        )


def read_gguf(path: Path) -> GgufFile:
    """The header of a GGUF file, with those of its further parts if it is split; raises UserError."""
    first = _read_part(path)
    count = first.metadata.get("split.count", 0)
    if type(count) is not int or count <= 1:
        return first
    match = _PART.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        raise GgufError(path, f"it is part of a model of {count} files", f"Keep the name ….-00001-of-{count:05d}.gguf.")
    if first.metadata.get("split.no", 0) != 0 or int(match["number"]) != 1:
        name = f"{match['stem']}-00001-of-{count:05d}.gguf"
        raise GgufError(path, "it is not the first part of its model", f"Name {name}.")
    tensors = dict(first.tensors)
    for number in range(1, count):
        file = path.with_name(f"{match['stem']}-{number + 1:05d}-of-{count:05d}.gguf")
        if not file.exists():
            raise GgufError(path, f"its part {file.name} is missing", "The download or copy is not complete.")
        part = _read_part(file)
        if (part.metadata.get("split.no"), part.metadata.get("split.count")) != (number, count):
            raise GgufError(file, f"it is not part {number + 1} of {count}, as its name says")
        twice = tensors.keys() & part.tensors.keys()
        if twice:
            raise GgufError(file, f"{min(twice)!r} stands in another part as well")
        tensors.update(part.tensors)
    total = first.metadata.get("split.tensors.count", len(tensors))
    if total != len(tensors):
        raise GgufError(path, f"its parts have {len(tensors)} tensors, {total} are announced")
    return GgufFile(path, first.version, first.metadata, tensors)


def raw_bytes(tensor: GgufTensor, content: mmap.mmap | None = None) -> torch.Tensor:
    """The bytes of a tensor as they are (uint8, flat), memory-mapped."""
    import torch

    return tensor_at(content or map_file(tensor.file), tensor.start, (tensor.nbytes,), torch.uint8)


def load(tensor: GgufTensor, dtype: torch.dtype | None = None, content: mmap.mmap | None = None) -> torch.Tensor:
    """A tensor's values: F32, F16 and BF16 as they are, memory-mapped; others dequantised to `dtype` (float32)."""
    import torch

    if tensor.kind.name in PLAIN:
        content = content or map_file(tensor.file)
        return tensor_at(content, tensor.start, tensor.shape, getattr(torch, PLAIN[tensor.kind.name]))
    return dequantise(tensor.kind, raw_bytes(tensor, content), tensor.shape, dtype)


def _read_part(path: Path) -> GgufFile:
    try:
        size = path.stat().st_size
        if not path.is_file() or size < 24:
            raise GgufError(path, "it is not a GGUF file: too short" if path.is_file() else "it is not a file")
        with map_file(path) as content:
            return _parse(_Cursor(path, content, size))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _parse(cursor: _Cursor) -> GgufFile:
    if cursor.bytes(4, "its magic number") != MAGIC:
        raise cursor.error("it is not a GGUF file", "A GGUF file begins with the letters GGUF.")
    version = cursor.number("I", 4, "its version")
    if version not in VERSIONS:
        if version & 0xFFFF == 0:
            raise cursor.error("it is written for big-endian machines", "Take the little-endian file of the model.")
        raise cursor.error(f"GGUF version {version} is not read; read are 2 and 3", "Convert the model anew.")
    tensor_count, entry_count = (cursor.number("Q", 8, "its counts") for _ in range(2))
    if entry_count > MAX_ENTRIES or tensor_count > MAX_TENSORS:
        raise cursor.error(f"it announces {entry_count} entries and {tensor_count} tensors")
    cursor.require_room(entry_count * _LEAST_ENTRY + tensor_count * _LEAST_TENSOR, "the announced header")
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key = cursor.string("a key", MAX_KEY_BYTES)
        if key in metadata:
            raise cursor.error(f"the key {key!r} stands twice")
        metadata[key] = cursor.value(cursor.number("I", 4, f"the type of {key!r}"), repr(key))
    alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise cursor.error(f"{ALIGNMENT_KEY} is {alignment!r}, not a power of two")
    found = [_tensor_entry(cursor) for _ in range(tensor_count)]
    data_start = -(-cursor.at // alignment) * alignment
    return GgufFile(cursor.path, version, metadata, _placed(cursor, found, data_start, alignment))


_Entry = tuple[int, str, tuple[int, ...], BlockType, int]


def _tensor_entry(cursor: _Cursor) -> _Entry:
    """(offset, name, shape, type, bytes) of the next tensor."""
    name = cursor.string("a tensor's name", MAX_NAME_BYTES)
    dimensions = cursor.number("I", 4, f"the shape of {name!r}")
    if dimensions > MAX_DIMENSIONS:
        raise cursor.error(f"{name!r} has {dimensions} dimensions, more than {MAX_DIMENSIONS}")
    shape = tuple(reversed([cursor.number("Q", 8, f"the shape of {name!r}") for _ in range(dimensions)]))
    number = cursor.number("I", 4, f"the type of {name!r}")
    offset = cursor.number("Q", 8, f"the place of {name!r}")
    if not all(0 < length < 1 << 63 for length in shape):
        raise cursor.error(f"{name!r} has the impossible shape {list(shape)}")
    if number not in TYPES:
        raise cursor.error(f"{name!r} has the unknown type {number}", "It may be of a newer GGUF than is known here.")
    try:
        return offset, name, shape, TYPES[number], TYPES[number].tensor_bytes(shape)
    except UserError as error:
        raise cursor.error(f"{name!r}: {error.message}") from None


def _placed(cursor: _Cursor, entries: list[_Entry], data_start: int, alignment: int) -> dict[str, GgufTensor]:
    """The tensors by name in the file's order; refuses what overlaps, lies outside, or stands twice."""
    end, before = 0, ""
    for offset, name, _, _, nbytes in sorted(entries):
        if offset % alignment:
            raise cursor.error(f"{name!r} begins at {offset}, not at a multiple of {alignment}")
        if offset < end:
            raise cursor.error(f"the bytes of {name!r} and {before!r} overlap")
        end, before = offset + nbytes, name
        if data_start + end > cursor.size:
            raise cursor.error(f"{name!r} ends at byte {data_start + end}, the file has {cursor.size}")
    tensors: dict[str, GgufTensor] = {}
    for offset, name, shape, kind, nbytes in entries:
        if name in tensors:
            raise cursor.error(f"the tensor {name!r} stands twice")
        tensors[name] = GgufTensor(name, shape, kind, cursor.path, data_start + offset, nbytes)
    return tensors


class _Cursor:
    """A place in a header: reads what comes next, if the file has it."""

    def __init__(self, path: Path, content: mmap.mmap, size: int) -> None:
        self.path, self.content, self.size = path, content, min(size, len(content))
        self.at = 0

    def error(self, problem: str, hint: str = "") -> GgufError:
        return GgufError(self.path, problem, hint)

    def require_room(self, count: int, what: str) -> None:
        """Raise GgufError unless `count` more bytes are there."""
        if count > self.size - self.at:
            raise self.error(f"{what} would need {count} bytes from byte {self.at} on, the file has {self.size}")

    def bytes(self, count: int, what: str) -> bytes:
        self.require_room(count, what)
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self, code: str, width: int, what: str) -> Any:
        return struct.unpack("<" + code, self.bytes(width, what))[0]

    def string(self, what: str, limit: int | None = None) -> str:
        length = self.number("Q", 8, what)
        if limit is not None and length > limit:
            raise self.error(f"{what} is {length} bytes long")
        try:
            return self.bytes(length, what).decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8 text") from None

    def value(self, kind: int, key: str, nesting: int = 0) -> Any:
        """The value of type `kind` that comes next."""
        if kind in NUMBERS:
            number = self.number(*NUMBERS[kind], key)
            return number != 0 if kind == BOOL else number
        if kind == STRING:
            return self.string(key)
        if kind != ARRAY:
            raise self.error(f"{key} has the unknown type {kind}")
        if nesting == MAX_NESTING:
            raise self.error(f"{key}: arrays are nested deeper than {MAX_NESTING}")
        element, count = self.number("I", 4, key), self.number("Q", 8, key)
        if element in NUMBERS:
            code, width = NUMBERS[element]
            return array(code, self.bytes(count * width, key))
        self.require_room(count * (8 if element == STRING else 12), key)
        return [self.value(element, key, nesting + 1) for _ in range(count)]
