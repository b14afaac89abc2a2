"""Writing GGUF files (version 3): the header from what is declared, then one tensor at a time.

The layout stands in `gguf.py`. The file appears under its name when all tensors are written.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from bottega.codec import gguf
from bottega.codec.ggml import BY_NAME, PLAIN
from bottega.codec.gguf import ALIGNMENT_KEY, ARRAY, BOOL, DEFAULT_ALIGNMENT, NUMBERS, STRING
from bottega.core.errors import BottegaError

if TYPE_CHECKING:
    import torch

# NumPy's and array's codes of numbers → the file's type. `?` is NumPy's bool, `l` and `L` its 64-bit integers.
_CODES = {code: kind for kind, (code, _) in NUMBERS.items() if kind != BOOL} | {
    "?": BOOL, "l": gguf.INT64, "L": gguf.UINT64,
}  # fmt: skip


class GgufWriter:
    """Writes the declared tensors, in any order; use it in a `with` statement.

    `declared`: name → (type, such as "F32" or "Q4_0", and shape, the innermost last). `metadata`:
    a whole number becomes UINT32 where it fits, a float FLOAT32; a NumPy scalar or an
    `array.array` says its own type.
    """

    def __init__(
        self, path: Path, metadata: Mapping[str, Any], declared: Mapping[str, tuple[str, tuple[int, ...]]]
    ) -> None:
        self.path = path
        self.declared = dict(declared)
        self.waiting = set(self.declared)
        alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
        self._header, self._starts, self._size = _header(metadata, self.declared, alignment)
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Create the temporary file with its header and its full size."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary.open("wb")
        self._file.write(self._header)
        self._file.truncate(self._size)
        return self

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Write one declared tensor: of its shape and dtype if its type is a plain one, else its blocks' bytes."""
        import torch

        if name not in self.waiting or self._file is None:
            raise BottegaError(f"tensor {name!r} was written already, not declared, or the writer is not open")
        kind, shape = self.declared[name]
        if kind in PLAIN and (tuple(tensor.shape), str(tensor.dtype)) != (shape, f"torch.{PLAIN[kind]}"):
            raise BottegaError(f"tensor {name!r} is {tensor.dtype} {list(tensor.shape)}, not {kind} {list(shape)}")
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        if content.numel() != BY_NAME[kind].tensor_bytes(shape):
            raise BottegaError(f"{content.numel()} bytes are not tensor {name!r}, {kind} {list(shape)}")
        self._file.seek(self._starts[name])
        self._file.write(content.numpy().data)
        self.waiting.discard(name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Rename the file into place; after an error, or without all tensors, remove it."""
        assert self._file is not None
        with self._file as file:
            complete = kind is None and not self.waiting
            if complete:
                file.flush()
                os.fsync(file.fileno())
        self._file = None
        if complete:
            os.replace(self._temporary, self.path)
            return
        self._temporary.unlink()
        if kind is None:
            raise BottegaError(f"{len(self.waiting)} declared tensors were not written ({min(self.waiting)} …)")


def _header(
    metadata: Mapping[str, Any], declared: Mapping[str, tuple[str, tuple[int, ...]]], alignment: int
) -> tuple[bytes, dict[str, int], int]:
    """The header's bytes, padded; where each tensor starts in the file; the file's size."""
    parts = [gguf.MAGIC, struct.pack("<IQQ", gguf.VERSIONS[-1], len(declared), len(metadata))]
    for key, value in metadata.items():
        kind, content = _value(value)
        parts += [_string(key), struct.pack("<I", kind), content]
    offsets: dict[str, int] = {}
    offset = 0
    for name, (kind_name, shape) in declared.items():
        block = BY_NAME[kind_name]
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        parts += [_string(name), sizes, struct.pack("<IQ", block.number, offset)]
        offsets[name] = offset
        offset += -(-block.tensor_bytes(shape) // alignment) * alignment
    header = b"".join(parts)
    header += bytes(-len(header) % alignment)
    return header, {name: len(header) + start for name, start in offsets.items()}, len(header) + offset


def _string(text: str) -> bytes:
    content = text.encode("utf-8")
    return struct.pack("<Q", len(content)) + content


def _value(value: Any) -> tuple[int, bytes]:
    """Type and bytes of a value of the metadata."""
    if isinstance(value, str):
        return STRING, _string(value)
    if isinstance(value, array):
        return ARRAY, struct.pack("<IQ", _CODES[value.typecode], len(value)) + value.tobytes()
    if isinstance(value, list):
        items = [_value(item) for item in value]
        kinds = {kind for kind, _ in items} or {gguf.INT32}
        if len(kinds) != 1:
            raise BottegaError("an array of a GGUF file has values of one type")
        return ARRAY, struct.pack("<IQ", kinds.pop(), len(items)) + b"".join(content for _, content in items)
    number = value if isinstance(value, np.generic) else _scalar(value)
    return _CODES[number.dtype.char], number.tobytes()


def _scalar(value: Any) -> np.generic:
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, float):
        return np.float32(value)
    for kind in (np.uint32, np.int32, np.uint64, np.int64):
        if np.iinfo(kind).min <= value <= np.iinfo(kind).max:
            return kind(value)
    raise BottegaError(f"{value!r} cannot be written into a GGUF file")
