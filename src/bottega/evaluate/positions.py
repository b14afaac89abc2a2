"""Perplexity by position: how well a model predicts its first token, its hundredth, its ten-thousandth.

A model that uses its context gets better with every token it has seen; one that is used beyond the context it was
made for falls apart behind it. Positions are grouped in buckets that double, so that each has something to average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from bottega.checkpoint.config import ModelConfig
from bottega.core.view import Chart, Series, Table
from bottega.evaluate.likelihood import logit_chunks, nats_of
from bottega.model.decoder import Decoder

FIRST_BUCKET = 16


@dataclass(frozen=True)
class Bucket:
    """Positions first to last (without last), their number over all pieces, and their mean nats."""

    first: int
    last: int
    tokens: int
    nats: float

    @property
    def perplexity(self) -> float:
        """exp of the mean, infinite where it is beyond a float."""
        return math.exp(self.nats) if self.nats < 700 else math.inf


def buckets(length: int) -> list[tuple[int, int]]:
    """0 to 16, 16 to 32, 32 to 64 … up to `length`; a short last one belongs to the one before."""
    edges = [0]
    while edges[-1] < length:
        edges.append(max(FIRST_BUCKET, 2 * edges[-1]))
    edges[-1] = length
    if len(edges) > 2 and edges[-1] - edges[-2] < FIRST_BUCKET:
        del edges[-2]
    return list(pairwise(edges))


@torch.inference_mode()
def perplexity_by_position(
    decoder: Decoder, pieces: Sequence[Sequence[int]], advance: Callable[[int], None] = lambda _: None
) -> list[Bucket]:
    """Mean nats in each bucket over `pieces` of equal length. Position p predicts from p tokens, p ≥ 1."""
    device, length = decoder.device, len(pieces[0])
    total = torch.zeros(length - 1, dtype=torch.float64)
    for piece in pieces:
        ids = torch.tensor([piece], device=device)
        rows = decoder.hidden(ids[:, :-1])[0]
        targets = ids[0, 1:].cpu()
        for part, logits in logit_chunks(decoder, rows):
            total[part] += nats_of(logits, targets[part]).cpu().double()
        advance(length)
    found = []
    for first, last in buckets(length - 1):
        count = (last - first) * len(pieces)
        found.append(Bucket(first + 1, last + 1, count, float(total[first:last].sum()) / count))
    return found


def unscaled(config: ModelConfig, length: int) -> ModelConfig:
    """The config of the model as it is, let run to `length` tokens: the angles simply go on."""
    return replace(config, max_position_embeddings=max(length, config.max_position_embeddings))


def as_rows(measured: dict[str, list[Bucket]]) -> list[dict[str, Any]]:
    """One row per bucket: its positions, and the perplexity of each model by name."""
    first = next(iter(measured.values()))
    return [
        {"first": bucket.first, "last": bucket.last - 1, "tokens": bucket.tokens}
        | {name: each[number].perplexity for name, each in measured.items()}
        for number, bucket in enumerate(first)
    ]


def position_blocks(rows: Sequence[dict[str, Any]], names: Sequence[str], context: int) -> list[Chart | Table]:
    """The chart of perplexity by position, and its table."""
    series = [Series(name, [(row["last"], row[name]) for row in rows if math.isfinite(row[name])]) for name in names]
    note = f"The model was made for {context:,} tokens."
    table = [(f"{row['first']:,} to {row['last']:,}", *(row[name] for name in names)) for row in rows]
    return [
        Chart("Perplexity by position", "tokens seen", "perplexity", series, log_x=True, log_y=True, note=note),
        Table("Perplexity by position", ("positions", *names), table, note),
    ]
