"""Watch a language model learn.

A Llama of 105,000 parameters reads stories whose true probabilities are known. Its loss begins at the logarithm of the
vocabulary, as nothing is known yet, and falls towards a floor that no model can pass: the entropy of the stories.
"""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course import world
from bottega.course.companion import STORY, companion, story_rows, training, write_rows
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value
from bottega.course.toolchain import follow_training

BUDGET = 20


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=300, ge=20, le=2000)
    """Optimiser steps."""
    learning_rate: float = Field(default=6e-3, gt=0, le=1)
    """Peak learning rate. Try 1e-4, and 0.5."""


def run(params: Params) -> Iterator[Event]:
    """Train, and follow the loss."""
    words = len(world.vocabulary()) + len(world.SPECIAL)
    floor = world.entropy_per_token()
    yield Say(f"{words} words. Nothing known, all have the same chance: ln {words} = {math.log(words):.3f}")
    yield Axes(
        "loss", "Loss while it learns", "step", "nats per token",
        floors={"nothing known: ln V": math.log(words), "entropy of the stories": floor},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        data = write_rows(Path(folder) / "stories.jsonl", story_rows(0, max(2_000, params.steps * 20)))
        changes = {"max_steps": params.steps, "learning_rate": params.learning_rate}
        settings = {**training("small"), **changes, "model": str(companion("new")), "data": str(data)}
        losses: list[float] = []
        for row in follow_training({**settings, "out": str(Path(folder) / "run")}):
            losses.append(row["loss"])
            if row["step"] % 5 == 0 or row["step"] == 1:
                yield Point("loss", "loss", row["step"], row["loss"])
                yield Step(row["step"], params.steps, f"loss {row['loss']:.3f}")
        yield from _talk(Path(folder) / "run" / "model")
    last = sum(losses[-20:]) / len(losses[-20:])
    yield Value("parameters", _parameters(), "parameters", 0)
    yield Value("vocabulary", words, "words", 0)
    yield Value("start", losses[0], "nats per token", 0.03)
    yield Value("log_vocabulary", math.log(words), "nats per token", 0)
    yield Value("end", last, "nats per token")
    yield Value("floor", floor, "nats per token", 0)
    yield Effect("before the first step the loss is ln V, to 3 %", abs(losses[0] / math.log(words) - 1) < 0.03)
    yield Effect("at the end it is less than a third above the entropy", last < 1.33 * floor)
    yield Effect("and never below it", min(losses) > 0.8 * floor)


def _talk(model: Path) -> Iterator[Event]:
    """Let the model, new and trained, write stories, and say how many are possible ones."""
    from bottega.generate.generator import Generator
    from bottega.generate.settings import Sampling

    rows, fluent, sound = [], [], []
    for name, folder in (("new", companion("new")), ("trained", model)):
        generator = Generator.load(folder, threads=1, dtype="float32")
        prompt = generator.tokenizer.encode_markup("<|story|>")
        sampling = [Sampling(**STORY, seed=i) for i in range(20)]
        texts = [generator.complete(prompt, each).text.strip() for each in sampling]
        fluent.append(sum(map(world.is_fluent, texts)))
        sound.append(sum(world.parse(text) is not None for text in texts))
        rows.append((name, texts[0]))
    yield Show("stories", Table("A story of each", ["model", "story"], rows))
    yield Value("fluent", fluent[1], "of 20 stories", 0.3)
    yield Value("sound", sound[1], "of 20 stories", 3)
    yield Effect("the new model writes nothing fluent, the trained one mostly does", fluent[0] == 0 and fluent[1] > 10)
    yield Effect("but its names and things rarely agree yet", sound[1] < fluent[1] / 2)


def _parameters() -> int:
    from bottega.checkpoint.config import ModelConfig

    return ModelConfig.read(companion("new")).parameter_count()
