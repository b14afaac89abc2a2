"""The state from which an interrupted run goes on, bit for bit.

`state-00000120/` holds the weights that are trained and what their optimisers remember, a file for each process
(`parallel/pieces.py`), and where the run stood (`progress.json`). Nothing is pickled. The folder is written under
another name, flushed and renamed, so a state that can be seen is whole; the newest is used, older ones are removed.
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

from bottega.core.atomic import sync_folder
from bottega.core.errors import BottegaError, UserError
from bottega.model.decoder import Decoder
from bottega.train.guard import Guard
from bottega.train.parallel.pieces import read_pieces, write_pieces
from bottega.train.parallel.ranks import Ranks

PREFIX = "state-"
# What reading a file raises that was cut or changed.
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError)
BEST_FOLDER = "best"


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


def save_state(
    folder: Path, model: Decoder, optimizers: list[torch.optim.Optimizer], progress: Progress, ranks: Ranks
) -> None:
    """Write the state of a finished step below `folder`, then remove older states; every process calls it."""
    _write(folder / f"{PREFIX}{progress.step:08d}", model, optimizers, asdict(progress), ranks)
    if ranks.is_first:
        for old in _states(folder)[:-1]:
            shutil.rmtree(old)


def save_best(folder: Path, model: Decoder, ranks: Ranks) -> None:
    """Keep the weights as the best so far."""
    _write(folder / BEST_FOLDER, model, [], {}, ranks)


def _write(
    final: Path, model: Decoder, optimizers: list[torch.optim.Optimizer], progress: dict[str, Any], ranks: Ranks
) -> None:
    building = final.with_name(f"{final.name}.building")
    if ranks.is_first:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
    ranks.barrier()
    if not building.is_dir():
        raise UserError(f"process {ranks.rank} does not see {building}", hint="All processes write below one OUT.")
    write_pieces(building, ranks, model, optimizers)
    ranks.barrier()
    if ranks.is_first:
        (building / "progress.json").write_text(json.dumps(progress), "utf-8")
        sync_folder(building)
        if final.exists():
            shutil.rmtree(final)
        os.replace(building, final)
    ranks.barrier()


def restore_state(
    folder: Path, model: Decoder, optimizers: list[torch.optim.Optimizer], ranks: Ranks
) -> Progress | None:
    """Load the newest state below `folder` into model and optimisers; None if there is none."""
    states = _states(folder)
    if not states:
        return None
    state = states[-1]
    try:
        read_pieces(state, ranks, model, optimizers)
        values = json.loads((state / "progress.json").read_text("utf-8"))
        values["guard"] = Guard(**values["guard"])
        values["evaluations"] = [tuple(pair) for pair in values["evaluations"]]
        return Progress(**values)
    except DAMAGE as error:
        raise _damaged(state, error) from None


def restore_best(folder: Path, model: Decoder, ranks: Ranks) -> None:
    """Load the best weights that were kept in `folder` into the model."""
    try:
        read_pieces(folder / BEST_FOLDER, ranks, model, [])
    except DAMAGE as error:
        raise _damaged(folder / BEST_FOLDER, error) from None


def _damaged(path: Path, error: Exception) -> BottegaError:
    return BottegaError(f"{path} cannot be read: {error}", hint=f"Remove {path.parent} to start anew.")


def weights_of(model: Decoder) -> dict[str, torch.Tensor]:
    """Name → tensor as stored: a tied head is the embedding and has no entry of its own."""
    weights = model.state_dict()
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    return {name: tensor.detach().contiguous() for name, tensor in weights.items()}


def _states(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(PREFIX + "*") if not path.name.endswith(".building"))
