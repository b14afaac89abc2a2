"""Trained weights and optimiser states on disk, in as many files as there were processes, for any number of them.

`00001-of-00004.safetensors` holds what the second of four processes had: `model.NAME` and `optimizer.NAME.STATE`, each
whole or so many rows of it; the header says which (`pieces`: name → first row and whole shape). A process that
goes on reads the rows that it is to have from whichever files have them, so a run may go on with another number of
processes, and with another strategy. torch.distributed.checkpoint does the same, but its metadata is a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bottega.train.parallel.ranks import Held, Ranks

WEIGHT, STATE = "model.", "optimizer."


class _Place(NamedTuple):
    file: Any
    start: int
    rows: int
    shape: tuple[int, ...]


def write_pieces(folder: Path, ranks: Ranks, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    """Write what this process has into its file in `folder`, which is there and which all processes can see."""
    states = _states(optimizers)
    tensors: dict[str, Tensor] = {}
    pieces: dict[str, tuple[int, tuple[int, ...]]] = {}
    for held in ranks.held(model):
        if held.writes:
            tensors[WEIGHT + held.name] = held.tensor.detach().contiguous()
            pieces[WEIGHT + held.name] = held.start, held.shape
            for name, value in states.get(id(held.tensor), {}).items():
                key = f"{STATE}{held.name}.{name}"
                tensors[key] = value.contiguous()
                is_cut = value.shape == held.tensor.shape
                pieces[key] = (held.start, held.shape) if is_cut else (0, tuple(value.shape))
    save_file(tensors, folder / _file_name(ranks.rank, ranks.world), {"pieces": json.dumps(pieces)})


def read_pieces(folder: Path, ranks: Ranks, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    """Load what this process is to have; raises ValueError, LookupError or OSError if the files do not have it."""
    optimizer_of = {
        id(parameter): optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    with Pieces(folder) as pieces, torch.no_grad():
        for held in ranks.held(model):
            held.tensor.copy_(pieces.read(WEIGHT + held.name, held))
            names = pieces.states(held.name) if held.moves else []
            if names:
                state = {name: pieces.read(f"{STATE}{held.name}.{name}", held) for name in names}
                moved = {name: value.to(held.tensor.device) for name, value in state.items()}
                optimizer_of[id(held.tensor)].state[held.tensor] = moved


class Pieces:
    """The files of one state, open for reading; only the rows that are asked for are read."""

    def __init__(self, folder: Path) -> None:
        first = next(iter(sorted(folder.glob("00000-of-*.safetensors"))), None)
        if first is None:
            raise FileNotFoundError(f"{folder} holds no weights")
        world = int(first.stem.partition("-of-")[2])
        self._files: list[Any] = []
        self._places: dict[str, list[_Place]] = {}
        for rank in range(world):
            file: Any = safe_open(folder / _file_name(rank, world), framework="pt")
            self._files.append(file.__enter__())
            for key, (start, shape) in json.loads(file.metadata()["pieces"]).items():
                rows = file.get_slice(key).get_shape()[0] if shape else 1
                self._places.setdefault(key, []).append(_Place(file, start, rows, tuple(shape)))

    def __enter__(self) -> Self:
        """The files."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close them."""
        for file in self._files:
            file.__exit__(kind, error, at)

    def states(self, name: str) -> list[str]:
        """Names of what the optimiser remembers of parameter `name`."""
        return sorted(key.rpartition(".")[2] for key in self._places if key.rpartition(".")[0] == STATE + name)

    def read(self, key: str, held: Held) -> Tensor:
        """The rows of `key` that go with what is held of its parameter; all of it if it has another shape."""
        places = self._places[key]
        whole = places[0].shape
        if not whole:
            return places[0].file.get_tensor(key)
        start, stop = (held.start, held.start + len(held.tensor)) if whole == held.shape else (0, whole[0])
        parts, reached = [], start
        for place in sorted(places, key=lambda place: place.start):
            end = min(stop, place.start + place.rows)
            if place.start <= reached < end:
                parts.append(place.file.get_slice(key)[reached - place.start : end - place.start])
                reached = end
        if reached < stop:
            raise ValueError(f"rows {reached} to {stop} of {key} are missing")
        return torch.cat(parts) if parts else torch.empty((0, *whole[1:]))


def _states(optimizers: list[torch.optim.Optimizer]) -> dict[int, Mapping[str, Tensor]]:
    return {id(parameter): state for optimizer in optimizers for parameter, state in optimizer.state.items()}


def _file_name(rank: int, world: int) -> str:
    return f"{rank:05d}-of-{world:05d}.safetensors"
