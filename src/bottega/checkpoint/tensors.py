"""Tensors that stay in their file until they are used.

A `LazyTensor` knows its shape and dtype; `load()` gives a torch tensor whose memory is the
file's, mapped copy-on-write: nothing is read before it is touched, pages are shared between
processes, and writing into the tensor never changes the file.
"""

from __future__ import annotations

import mmap
import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.checkpoint.header import FORMAT_NAMES, ITEM_BYTES, Stored, TensorInfo
from bottega.core.errors import UserError

if TYPE_CHECKING:
    import torch


class LazyTensor:
    """A tensor of a checkpoint, not read yet."""

    __slots__ = ("_load", "info")

    def __init__(self, info: TensorInfo, load: Callable[[], torch.Tensor]) -> None:
        self.info = info
        self._load = load

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.info.shape

    @property
    def dtype(self) -> str:
        """Its dtype by torch's name, such as "bfloat16"."""
        return self.info.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return self.info.nbytes

    def load(self) -> torch.Tensor:
        """The tensor on the CPU, in its own dtype, memory-mapped. Writing into it does not change the file."""
        return self._load()


def map_tensors(stored: Mapping[str, Stored]) -> dict[str, LazyTensor]:
    """Lazy tensors over safetensors files whose headers have been read; each file is mapped once, when first used."""
    maps: dict[Path, mmap.mmap] = {}

    def loader(place: Stored) -> Callable[[], torch.Tensor]:
        def load() -> torch.Tensor:
            if place.file not in maps:
                maps[place.file] = _map(place.file)
            return _tensor(place, maps[place.file])

        return load

    return {name: LazyTensor(place.info, loader(place)) for name, place in stored.items()}


def _map(path: Path) -> mmap.mmap:
    # Private and writable, so that torch may have it; NORESERVE, so that a file larger than the
    # memory can be mapped on machines that count writable pages in advance.
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def _tensor(place: Stored, content: mmap.mmap) -> torch.Tensor:
    import torch

    dtype = getattr(torch, place.info.dtype)
    count, item = place.info.nbytes // ITEM_BYTES[place.info.dtype], ITEM_BYTES[place.info.dtype]
    if not count:
        return torch.empty(place.info.shape, dtype=dtype)
    if place.start % item:
        # Only files of other writers are not aligned; those few tensors are copied.
        part = bytearray(content[place.start : place.start + place.info.nbytes])
        return torch.frombuffer(part, dtype=dtype).reshape(place.info.shape)
    flat = torch.frombuffer(content, dtype=dtype, count=count, offset=place.start)
    return flat.reshape(place.info.shape)


def load_legacy(paths: Iterable[Path]) -> dict[str, LazyTensor]:
    """Tensors of `pytorch_model*.bin` files, which are pickles: only tensors are let out of them."""
    import torch

    tensors: dict[str, LazyTensor] = {}
    for path in paths:
        try:
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{path} cannot be read as a file of weights: {reason}",
                hint="Only the zip format of torch.save (since torch 1.6) with nothing but tensors is read.",
            ) from None
        if not isinstance(content, dict):
            raise UserError(f"{path} holds a {type(content).__name__}, not tensors by name")
        for name, tensor in content.items():
            if not isinstance(tensor, torch.Tensor) or not isinstance(name, str):
                raise UserError(f"{path}: {name!r} is not a tensor")
            dtype = str(tensor.dtype).removeprefix("torch.")
            if dtype not in FORMAT_NAMES:
                raise UserError(f"{path}: {name!r} has the dtype {dtype}, which checkpoints cannot hold")
            tensors[name] = LazyTensor(TensorInfo(tuple(tensor.shape), dtype), lambda tensor=tensor: tensor)
    return tensors
