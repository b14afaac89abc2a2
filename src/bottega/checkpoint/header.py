"""Headers of safetensors files, and the index of a sharded checkpoint; read without torch.

Format (huggingface/safetensors): 8 bytes with the header's length N (unsigned, little-endian),
N bytes of JSON `{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {...}}`,
then the tensors' bytes, row-major, without holes. Everything in a header is checked before it is
believed: a file comes from anywhere.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bottega.checkpoint.config import read_json
from bottega.core.errors import UserError
from bottega.core.model_files import ADAPTER_CONFIG as ADAPTER_CONFIG

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
LEGACY_WEIGHTS = "pytorch_model.bin"
LEGACY_INDEX = "pytorch_model.bin.index.json"
ADAPTER_WEIGHTS, LEGACY_ADAPTER_WEIGHTS = "adapter_model.safetensors", "adapter_model.bin"

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
METADATA = "__metadata__"
# The format's name → torch's name, bytes per value.
DTYPES: dict[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "I64": ("int64", 8),
    "F32": ("float32", 4),
    "I32": ("int32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
}
ITEM_BYTES = dict(DTYPES.values())
FORMAT_NAMES = {name: format_name for format_name, (name, _) in DTYPES.items()}


class TensorInfo(NamedTuple):
    """Shape and dtype (torch's name, such as "bfloat16") of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: `info.nbytes` bytes of `file` from `start` on."""

    info: TensorInfo
    file: Path
    start: int


class HeaderError(UserError):
    """A file of weights is damaged, or not what its name says."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}", hint="The file is damaged or was not copied completely: get it again.")


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one safetensors file by name, in the order of their bytes; raises HeaderError."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise HeaderError(path, "it is no file with content")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            if len(prefix) < 8:
                raise HeaderError(path, "too short for a safetensors file")
            (length,) = struct.unpack("<Q", prefix)
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise HeaderError(path, f"its header claims {length} bytes, the file has {size}")
            content = file.read(length)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return _checked(path, _parse(path, content), 8 + length, size)


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands twice")
        return found

    try:
        header = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise HeaderError(path, f"its header is not valid JSON ({error})") from None
    if not isinstance(header, dict):
        raise HeaderError(path, "its header is not a JSON object")
    return header


def _checked(path: Path, header: dict[str, Any], data_start: int, size: int) -> dict[str, Stored]:
    header.pop(METADATA, None)
    entries = [(*_entry(path, name, value), name) for name, value in header.items()]
    tensors: dict[str, Stored] = {}
    expected = 0
    for begin, end, info, name in sorted(entries):
        if begin != expected:
            raise HeaderError(path, f"the bytes of {name!r} overlap another tensor's, or leave a hole before them")
        tensors[name] = Stored(info, path, data_start + begin)
        expected = end
    if data_start + expected != size:
        raise HeaderError(path, f"its tensors need {data_start + expected} bytes, the file has {size}")
    return tensors


def _entry(path: Path, name: str, value: Any) -> tuple[int, int, TensorInfo]:
    if not isinstance(value, dict):
        raise HeaderError(path, f"the header's entry {name!r} is not an object")
    dtype, shape, offsets = value.get("dtype"), _sizes(value.get("shape")), _sizes(value.get("data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise HeaderError(path, f"{name!r} has dtype {dtype!r}, known are {', '.join(DTYPES)}")
    if shape is None:
        raise HeaderError(path, f"{name!r} has no valid shape")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise HeaderError(path, f"{name!r} has no valid data_offsets")
    info = TensorInfo(shape, DTYPES[dtype][0])
    span = offsets[1] - offsets[0]
    if info.nbytes != span:
        raise HeaderError(path, f"{name!r} of shape {list(shape)} and dtype {dtype} does not fill its {span} bytes")
    return offsets[0], offsets[1], info


def _sizes(value: Any) -> tuple[int, ...] | None:
    """A list of at most 32 whole numbers that fit 63 bits, or None."""
    if not isinstance(value, list) or len(value) > 32:
        return None
    return tuple(value) if all(type(size) is int and 0 <= size < 1 << 63 for size in value) else None


def read_index(path: Path) -> dict[str, list[str]]:
    """File name → names of its tensors, from an `*.index.json`.

    Shards lie beside their index: a name with a folder in it is refused, so that an index cannot
    reach other files. (A shard may be a symbolic link; the hub's cache is made of them.)
    """
    data = read_json(path)
    weight_map = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path} has no weight_map", hint="It is not the index of a sharded checkpoint.")
    files: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file or file in (".", "..") or set(file) & set("/\\\0"):
            raise UserError(f"{path}: {name!r} lies in {file!r}, which is not a file name beside the index")
        files.setdefault(file, []).append(name)
    return files


def shard_files(folder: Path, index: Path) -> list[Path]:
    """The files that an index names; raises UserError if one is missing."""
    files = [folder / name for name in read_index(index)]
    absent = [path.name for path in files if not path.exists()]
    if absent:
        raise UserError(
            f"{folder} lacks {_few(absent)}, which {index.name} names", hint="The download or copy is not complete."
        )
    return files


def read_headers(folder: Path) -> dict[str, Stored]:
    """Every tensor of the folder's safetensors files, single or sharded; raises UserError."""
    if (folder / WEIGHTS).exists():
        return read_header(folder / WEIGHTS)
    index = folder / WEIGHTS_INDEX
    named = read_index(index)
    tensors: dict[str, Stored] = {}
    for file in shard_files(folder, index):
        shard = read_header(file)
        disagreed = sorted(set(shard) ^ set(named[file.name]))
        if disagreed:
            raise UserError(f"{file} and {index.name} do not agree on {_few(disagreed)}")
        tensors.update(shard)
    return tensors


def check_tensors(
    infos: Mapping[str, TensorInfo], shapes: Mapping[str, tuple[int, ...]], where: Path, hint: str = ""
) -> None:
    """Raise one UserError that names missing, unexpected and misshapen tensors."""
    missing = [name for name in shapes if name not in infos]
    unexpected = [name for name in infos if name not in shapes]
    misshapen = [
        f"{name} {list(infos[name].shape)} instead of {list(shape)}"
        for name, shape in shapes.items()
        if name in infos and infos[name].shape != shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)]
    said = "; ".join(f"{len(names)} {what} ({_few(names)})" for what, names in problems if names)
    if said:
        raise UserError(f"the tensors in {where} are not those of its config: {said}", hint=hint)


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
