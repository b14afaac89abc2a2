"""Six sizes, one law.

Models from 1,000 to 170,000 parameters read the same stories for the same time. On logarithmic axes what each has
left above a floor falls on a line: a power law, and it says what a larger model would reach.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Series, Table
from bottega.course import world
from bottega.course.companion import new_model, story_rows, training, write_rows
from bottega.course.lab import Effect, Event, Say, Show, Step, Value
from bottega.course.toolchain import follow_training

BUDGET = 45
SIZES = ((8, 1), (16, 2), (24, 3), (32, 4), (48, 4), (80, 5))  # width, heads


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=200, ge=50, le=2000)
    """Optimiser steps of each model."""


def run(params: Params) -> Iterator[Event]:
    """Train each size, and fit."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_rows(folder / "stories.jsonl", story_rows(0, params.steps * 20))
        for index, (width, heads) in enumerate(SIZES):
            inner = 8 * round(width / 3)
            start = folder / f"new-{width}"
            new_model(start, hidden_size=width, intermediate_size=inner, num_attention_heads=heads,
                      num_key_value_heads=heads, head_dim=width // heads)  # fmt: skip
            settings = {**training("small"), "max_steps": params.steps, "model": str(start), "data": str(data)}
            losses = [row["loss"] for row in follow_training({**settings, "out": str(folder / f"run-{width}")})]
            size = 2 * (4 * width**2 + 3 * width * inner)
            found.append((size, float(np.mean(losses[-25:]))))
            yield Step(index + 1, len(SIZES), f"{size:,} parameters: {found[-1][1]:.3f}")
    sizes, losses = np.array(found).T
    floor, factor, exponent = fit(sizes, losses)
    yield Say(f"L(N) = {floor:.3f} + {factor:.1f} · N^-{exponent:.2f}")
    line = [(float(n), float(floor + factor * n**-exponent)) for n in np.geomspace(sizes[0], sizes[-1] * 3, 40)]
    series = [Series("measured", found), Series("the law", line, baseline=True)]
    yield Show("law", Chart("Loss by size", "parameters without tables", "nats per word", series, log_x=True))
    yield Show("sizes", Table("Loss by size", ["parameters", "loss"], [(f"{n:,}", f"{x:.3f}") for n, x in found]))
    yield Value("smallest", float(losses[0]), "nats per word", 0.1)
    yield Value("largest", float(losses[-1]), "nats per word", 0.1)
    yield Value("exponent", exponent, "", 0.5)
    yield Value("fitted_floor", floor, "nats per word", 0.2)
    yield Value("entropy", world.entropy_per_token(), "nats per word", 0)
    yield Effect("every larger model is better", bool((np.diff(losses) < 0.01).all()) and losses[-1] < losses[0] - 0.1)
    worst = float(np.abs(floor + factor * sizes**-exponent - losses).max())
    yield Effect("a power law fits all six to 0.05 nats", worst < 0.05)


def fit(sizes: np.ndarray, losses: np.ndarray) -> tuple[float, float, float]:
    """(E, a, α) of L = E + a N^-α with the least squared error: E by search, the others by a line in the logarithms."""
    best = (np.inf, 0.0, 0.0, 0.0)
    for floor in np.linspace(0.2, losses.min() - 1e-3, 400):
        slope, start = np.polyfit(np.log(sizes), np.log(losses - floor), 1)
        error = float(((floor + np.exp(start) * sizes**slope - losses) ** 2).sum())
        best = min(best, (error, float(floor), float(np.exp(start)), float(-slope)))
    return best[1:]
