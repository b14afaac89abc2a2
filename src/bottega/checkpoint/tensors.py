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

from bottega.checkpoint.header import FORMAT_NAMES, Stored, TensorInfo
from bottega.core.errors import UserError
from bottega.core.mapped import map_file, tensor_at

if TYPE_CHECKING:
    import torch


class LazyTensor:
    """A tensor of a checkpoint, not read yet."""

    __slots__ = ("_load", "_place", "info")

    def __init__(self, info: TensorInfo, load: Callable[[], torch.Tensor], place: Stored | None = None) -> None:
        self.info = info
        self._load = load
        self._place = place

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

    def content(self) -> bytes:
        """Its bytes, read at once (without torch, from safetensors); for small tensors that tell about another."""
        if self._place is not None:
            with self._place.file.open("rb") as file:
                file.seek(self._place.start)
                return file.read(self.nbytes)
        import torch

        return self.load().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def map_tensors(stored: Mapping[str, Stored]) -> dict[str, LazyTensor]:
    """Lazy tensors over safetensors files whose headers have been read; each file is mapped once, when first used."""
    maps: dict[Path, mmap.mmap] = {}

    def loader(place: Stored) -> Callable[[], torch.Tensor]:
        def load() -> torch.Tensor:
            import torch

            if place.file not in maps:
                maps[place.file] = map_file(place.file)
            return tensor_at(maps[place.file], place.start, place.info.shape, getattr(torch, place.info.dtype))

        return load

    return {name: LazyTensor(place.info, loader(place), place) for name, place in stored.items()}


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
            if tensor.layout != torch.strided or tensor.device.type != "cpu":
                raise UserError(f"{path}: {name!r} has no plain values")
            dtype = str(tensor.dtype).removeprefix("torch.")
            if dtype not in FORMAT_NAMES:
                raise UserError(f"{path}: {name!r} has the dtype {dtype}, which checkpoints cannot hold")
            tensors[name] = LazyTensor(TensorInfo(tuple(tensor.shape), dtype), lambda tensor=tensor: tensor)
    return tensors
