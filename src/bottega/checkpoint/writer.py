"""Writing model folders in the Hugging Face layout.

A safetensors header comes before the tensors, so a writer must know names, shapes and dtypes
first; it then needs no more memory than one tensor. Files are written under a temporary name
and renamed, the index after the shards it names.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from bottega.checkpoint.config import CONFIG_FILE, ModelConfig, tensor_shapes
from bottega.checkpoint.header import (
    FORMAT_NAMES,
    ITEM_BYTES,
    METADATA,
    WEIGHTS,
    WEIGHTS_INDEX,
    TensorInfo,
)
from bottega.core.atomic import write_json
from bottega.core.errors import BottegaError

if TYPE_CHECKING:
    import torch

MAX_SHARD_BYTES = 5 * 2**30
GENERATION_FILE = "generation_config.json"
_WEIGHT_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


@dataclass
class _Shard:
    """One file being written: where each tensor's bytes go."""

    path: Path
    starts: dict[str, int]
    size: int
    file: IO[bytes] | None = None

    @property
    def temporary(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")


def expected_tensors(config: ModelConfig, dtype: str | None = None) -> dict[str, TensorInfo]:
    """Every tensor of a checkpoint of `config`, in one dtype (default: the config's): what a writer declares."""
    return {name: TensorInfo(shape, dtype or config.dtype) for name, shape in tensor_shapes(config).items()}


class TensorWriter:
    """Writes the declared tensors, in any order, one at a time; use it in a `with` statement.

    Files appear when the block ends without an error and all tensors were added: one
    `model.safetensors`, or shards of at most `max_shard_bytes` of tensors and their index.
    """

    def __init__(
        self, folder: Path, declared: Mapping[str, TensorInfo], *, max_shard_bytes: int = MAX_SHARD_BYTES
    ) -> None:
        unknown = sorted({info.dtype for info in declared.values()} - set(FORMAT_NAMES))
        if unknown:
            raise BottegaError(f"safetensors files cannot hold the dtypes {', '.join(unknown)}")
        if METADATA in declared:
            raise BottegaError(f"a tensor cannot be called {METADATA}")
        self.folder = folder
        self.declared = dict(declared)
        self.waiting = set(self.declared)
        groups = _split(self.declared, max_shard_bytes)
        self._headers = [_header(group, self.declared) for group in groups]
        self._shards = [
            _Shard(folder / _file_name(number, len(groups)), starts, size)
            for number, (_, starts, size) in enumerate(self._headers, start=1)
        ]
        self._shard_of = {name: shard for shard in self._shards for name in shard.starts}

    def __enter__(self) -> Self:
        """Create the temporary files, each with its header and its full size."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for shard, (header, _, size) in zip(self._shards, self._headers, strict=True):
                shard.file = shard.temporary.open("wb")
                shard.file.write(header)
                shard.file.truncate(size)
        except BaseException:
            self._discard()
            raise
        return self

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Write one declared tensor; its shape and dtype must be the declared ones."""
        import torch

        if name not in self.waiting:
            raise BottegaError(f"tensor {name!r} was {'written already' if name in self.declared else 'not declared'}")
        info = TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        if info != self.declared[name]:
            raise BottegaError(f"tensor {name!r} is {info}, but {self.declared[name]} was declared")
        shard = self._shard_of[name]
        if shard.file is None:
            raise BottegaError("the writer is not open")
        values = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
        shard.file.seek(shard.starts[name])
        shard.file.write(values.data)
        self.waiting.discard(name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Rename the files into place; after an error, remove them."""
        if kind is not None:
            self._discard()
            return
        self.close()

    def close(self) -> None:
        """Make the files appear; raises BottegaError if a declared tensor was not added."""
        if self.waiting:
            self._discard()
            few = sorted(self.waiting)[:3]
            raise BottegaError(f"{len(self.waiting)} declared tensors were not written ({', '.join(few)} …)")
        for shard in self._shards:
            if shard.file is None:
                return
            shard.file.flush()
            os.fsync(shard.file.fileno())
            shard.file.close()
            shard.file = None
        for shard in self._shards:
            os.replace(shard.temporary, shard.path)
        if len(self._shards) > 1:
            write_json(self.folder / WEIGHTS_INDEX, self._index())
        self._remove_stale()

    def _index(self) -> dict[str, Any]:
        total = sum(info.nbytes for info in self.declared.values())
        places = {name: self._shard_of[name].path.name for name in sorted(self.declared)}
        return {"metadata": {"total_size": total}, "weight_map": places}

    def _remove_stale(self) -> None:
        """What an earlier checkpoint in the same folder left under other names would be read with, or before, ours."""
        ours = {shard.path.name for shard in self._shards} | ({WEIGHTS_INDEX} if len(self._shards) > 1 else set())
        for path in list(self.folder.iterdir()):
            if path.name not in ours and _WEIGHT_FILE.fullmatch(path.name):
                path.unlink()

    def _discard(self) -> None:
        for shard in self._shards:
            if shard.file is not None:
                shard.file.close()
                shard.file = None
            shard.temporary.unlink(missing_ok=True)


def write_tensors(folder: Path, tensors: Mapping[str, torch.Tensor], *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write tensors that are in memory already (a state dict)."""
    declared = {
        name: TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in tensors.items()
    }
    with TensorWriter(folder, declared, max_shard_bytes=max_shard_bytes) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor)


def write_model_files(
    folder: Path,
    config: ModelConfig,
    *,
    generation: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write `config.json` and `generation_config.json` of a model folder.

    `generation` adds to, or replaces, what follows from `config` (every stop token belongs in
    its `eos_token_id`); `extra` does so in config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG_FILE, {**config.to_data(), **(extra or {})})
    data = config.to_data()
    settings = {key: data[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if data[key] is not None}
    settings.update(generation or {})
    write_json(folder / GENERATION_FILE, settings)


def _split(declared: Mapping[str, TensorInfo], max_shard_bytes: int) -> list[list[str]]:
    """Names by shard: in the declared order, a new shard where the next tensor would not fit."""
    groups: list[list[str]] = [[]]
    used = 0
    for name, info in declared.items():
        if groups[-1] and used + info.nbytes > max_shard_bytes:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += info.nbytes
    return groups


def _header(names: Sequence[str], declared: Mapping[str, TensorInfo]) -> tuple[bytes, dict[str, int], int]:
    """The header's bytes, where each tensor starts in the file, and the file's size."""
    # Wide dtypes first: then every tensor is aligned without holes.
    ordered = sorted(names, key=lambda name: -ITEM_BYTES[declared[name].dtype])
    entries: dict[str, Any] = {METADATA: {"format": "pt"}}
    offset = 0
    offsets = {}
    for name in ordered:
        info = declared[name]
        entries[name] = {
            "dtype": FORMAT_NAMES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [offset, offset + info.nbytes],
        }
        offsets[name] = offset
        offset += info.nbytes
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    return header, {name: len(header) + start for name, start in offsets.items()}, len(header) + offset


def _file_name(number: int, count: int) -> str:
    return WEIGHTS if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
