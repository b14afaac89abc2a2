"""What rank a fine-tuning needs.

Fine-tuning all weights moves each matrix by some ΔW. Its singular values tell how much of that move a product of two
thin matrices could have made: LoRA of rank r can at best keep the r largest.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Block, Chart, Series, Table
from bottega.course.views.models import Models

MATRICES = {
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj", "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip


class Params(Config):
    """What can be changed."""

    matrix: Literal["query", "key", "value", "output", "gate", "up", "down"] = "query"
    """Which matrix of the layer."""
    layer: int = Field(default=1, ge=1, le=2)
    """The layer."""
    rank: int = Field(default=8, ge=1, le=64)
    """The rank to ask about."""


def show(params: Params, models: Models) -> Iterator[Block]:
    """The spectrum of the move from the pre-trained to the fine-tuned model."""
    import torch

    name = f"model.layers.{params.layer - 1}.{MATRICES[params.matrix]}.weight"
    before, after = (models.decoder(stage).state_dict()[name] for stage in ("pretrained", "fine-tuned"))
    move = after - before
    spectra = {"the move ΔW": torch.linalg.svdvals(move), "the weight W": torch.linalg.svdvals(before)}
    lines = [
        Series(title, [(at + 1, float(each)) for at, each in enumerate(values / values[0])])
        for title, values in spectra.items()
    ]
    yield Chart("Singular values, as shares of the largest", "number", "share", lines)
    energy = {title: (values**2).cumsum(0) / (values**2).sum() for title, values in spectra.items()}
    lines = [Series(title, [(at + 1, float(each)) for at, each in enumerate(kept)]) for title, kept in energy.items()]
    yield Chart("How much of the square of the length the first r keep", "rank r", "share", lines)
    rank = min(params.rank, len(spectra["the move ΔW"]))
    kept = float(energy["the move ΔW"][rank - 1])
    rows, columns = move.shape
    yield Table(f"Rank {rank}", ["", "value"], [
        ("kept of the move, at best", f"{100 * kept:.1f} %"),
        ("left out, as a share of its length", f"{100 * max(1 - kept, 0) ** 0.5:.1f} %"),
        ("parameters of LoRA", rank * (rows + columns)),
        ("parameters of the matrix", rows * columns),
        ("length of the move, as a share of the weight's", f"{100 * float(move.norm() / before.norm()):.1f} %"),
    ])  # fmt: skip
