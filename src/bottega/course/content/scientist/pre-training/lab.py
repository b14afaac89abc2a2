"""Down to the floor.

The same small model as before, trained five times as long. What is left above the entropy of the stories is what it
does not know, in nats a story. Watch it fall: first grammar, then, with a jump, the names.
"""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from bottega.core.schema import Config
from bottega.course import world
from bottega.course.companion import HELDOUT_SEED, companion, story_rows, training, write_rows
from bottega.course.lab import Axes, Effect, Event, Point, Say, Step, Value
from bottega.course.toolchain import follow_training

BUDGET = 45
HELDOUT = 300


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=1200, ge=100, le=5000)
    """Optimiser steps of about a thousand tokens."""
    learning_rate: float = Field(default=6e-3, gt=0, le=1)
    """Peak learning rate."""


def run(params: Params) -> Iterator[Event]:
    """Train, and measure on stories that it has not seen."""
    heldout = list(world.stories(HELDOUT_SEED, HELDOUT))
    true = -sum(story.log_probability for story in heldout) / HELDOUT
    tokens = sum(len(story.words) for story in heldout) / HELDOUT
    yield Say(f"{HELDOUT} held-out stories have {true:.2f} nats each under the grammar, over {tokens:.1f} words.")
    yield Axes("distance", "Distance to the truth", "step", "nats per story", log_y=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {
            **training("pretrained"), "model": str(companion("new")), "max_steps": params.steps,
            "learning_rate": params.learning_rate, "out": str(folder / "run"), "evaluate_every": 50,
            "data": str(write_rows(folder / "stories.jsonl", story_rows(0, max(4000, params.steps * 20)))),
            "heldout": str(write_rows(folder / "heldout.jsonl", ({"text": story.text} for story in heldout))),
        }  # fmt: skip
        distances: dict[int, float] = {}
        for row in follow_training(settings):
            if "heldout_loss" in row:
                distances[row["step"]] = row["heldout_loss"] * tokens - true
                yield Point("distance", "nats above the entropy", row["step"], distances[row["step"]])
                yield Step(row["step"], params.steps, f"{distances[row['step']]:.2f} nats above the entropy")
    steps = sorted(distances)
    first, middle, last = distances[steps[0]], distances[steps[len(steps) // 3]], distances[steps[-1]]
    yield Value("entropy", true, "nats per story", 0)
    yield Value("first", first, "nats above it", 0.3)
    yield Value("middle", middle, "nats above it", 0.4)
    yield Value("last", last, "nats above it", 0.5)
    yield Value("perplexity", math.exp((true + last) / tokens), "per word", 0.05)
    yield Value("floor_perplexity", math.exp(true / tokens), "per word", 0)
    yield Effect("it never passes the floor", min(distances.values()) > 0)
    yield Effect("it ends with less than a third of the distance that was left after 50 steps", last < first / 3)
    yield Effect("and is still learning in the last two thirds", last < 0.8 * middle)
