"""The state from which an interrupted run goes on, bit for bit.

`state-00000120/` holds the weights that are trained (`model.safetensors`, Hugging Face names), the optimisers
(`optimizer.safetensors` and `optimizer.json`) and where the run stood (`progress.json`). Nothing is
pickled. The folder is written under another name, flushed and renamed, so a state that can be seen
is whole; the newest is used, older ones are removed.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from bottega.core.atomic import sync_folder
from bottega.core.errors import BottegaError
from bottega.model.decoder import Decoder
from bottega.train.guard import Guard

PREFIX = "state-"
# What reading a file raises that was cut or changed.
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError)
BEST_FILE = "best.safetensors"


@dataclass
class Progress:
    """Where a run stands: everything the loop knows beside weights and optimisers."""

    guard: Guard
    step: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int = 0
    without_gain: int = 0
    stopped_early: bool = False
    saved: int = 0
    """The step of the newest state."""
    evaluations: list[tuple[int, float]] = field(default_factory=list)


def save_state(folder: Path, model: Decoder, optimizers: list[torch.optim.Optimizer], progress: Progress) -> None:
    """Write the state of a finished step below `folder`, then remove older states."""
    final = folder / f"{PREFIX}{progress.step:08d}"
    building = folder / f"{final.name}.building"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    save_file(trained_weights(model), building / "model.safetensors")
    tensors, rest = _split(optimizers)
    save_file(tensors, building / "optimizer.safetensors")
    (building / "optimizer.json").write_text(json.dumps(rest), "utf-8")
    (building / "progress.json").write_text(json.dumps(asdict(progress)), "utf-8")
    sync_folder(building)
    if final.exists():
        shutil.rmtree(final)
    os.replace(building, final)
    for old in _states(folder)[:-1]:
        shutil.rmtree(old)


def restore_state(folder: Path, model: Decoder, optimizers: list[torch.optim.Optimizer]) -> Progress | None:
    """Load the newest state below `folder` into model and optimisers; None if there is none."""
    states = _states(folder)
    if not states:
        return None
    state = states[-1]
    try:
        model.load_state_dict(load_file(state / "model.safetensors"), strict=False)
        _join(
            optimizers, load_file(state / "optimizer.safetensors"), json.loads((state / "optimizer.json").read_text())
        )
        values = json.loads((state / "progress.json").read_text("utf-8"))
        values["guard"] = Guard(**values["guard"])
        values["evaluations"] = [tuple(pair) for pair in values["evaluations"]]
        return Progress(**values)
    except DAMAGE as error:
        raise _damaged(state, error) from None


def restore_best(folder: Path, model: Decoder) -> None:
    """Load the best weights that were kept in `folder` into the model."""
    try:
        model.load_state_dict(load_file(folder / BEST_FILE), strict=False)
    except DAMAGE as error:
        raise _damaged(folder / BEST_FILE, error) from None


def _damaged(path: Path, error: Exception) -> BottegaError:
    return BottegaError(f"{path} cannot be read: {error}", hint=f"Remove {path.parent} to start anew.")


def weights_of(model: Decoder) -> dict[str, torch.Tensor]:
    """Name → tensor as stored: a tied head is the embedding and has no entry of its own."""
    weights = model.state_dict()
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    return {name: tensor.detach().contiguous() for name, tensor in weights.items()}


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Name → tensor of what is trained: with an adapter only that; a shared tensor once."""
    return {
        name: parameter.detach().contiguous() for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def _states(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(PREFIX + "*") if not path.name.endswith(".building"))


def _split(optimizers: list[torch.optim.Optimizer]) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    tensors: dict[str, torch.Tensor] = {}
    rest: list[dict[str, Any]] = []
    for number, optimizer in enumerate(optimizers):
        data = optimizer.state_dict()
        for index, values in data["state"].items():
            tensors.update({f"{number}.{index}.{name}": tensor.contiguous() for name, tensor in values.items()})
        rest.append({"param_groups": data["param_groups"]})
    return tensors, rest


def _join(
    optimizers: list[torch.optim.Optimizer], tensors: dict[str, torch.Tensor], rest: list[dict[str, Any]]
) -> None:
    states: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in optimizers]
    for key, tensor in tensors.items():
        number, index, name = key.split(".", 2)
        states[int(number)].setdefault(int(index), {})[name] = tensor
    for optimizer, state, data in zip(optimizers, states, rest, strict=True):
        optimizer.load_state_dict({"state": state, **data})
