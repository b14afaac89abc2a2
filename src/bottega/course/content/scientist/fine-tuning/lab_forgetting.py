"""What a new skill costs.

The travelling model learns to answer questions. Its loss is on the answers alone, and nothing says that it should
still know how to tell a story: it forgets. Then the remedies: a lower rate, a low rank, and stories mixed in.
"""

import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Spans, Style, Table
from bottega.course import world
from bottega.course.companion import CONTEXT, HELDOUT_SEED, companion, question_rows, write_rows
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value
from bottega.course.toolchain import follow_training

BUDGET = 45
HELDOUT = 120
MUON = {"optimizer": "muon", "learning_rate": 3e-3}


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=200, ge=20, le=1000)
    """Optimiser steps of each way."""
    replay: float = Field(default=0.1, ge=0, le=0.9)
    """Share of the rows that are stories where stories are mixed in. Try 0.02, and 0.5."""


def run(params: Params) -> Iterator[Event]:
    """Fine-tune in four ways; measure answers and stories."""
    from bottega.tokenizer.tokenizer import Tokenizer

    start = companion("pretrained")
    tokenizer = Tokenizer.load(start)
    stories = [story.text for story in world.stories(HELDOUT_SEED, HELDOUT)]
    draw = random.Random(5)
    asked = [(story, *draw.choice(world.questions(story))) for story in world.stories(HELDOUT_SEED + 1, 2 * HELDOUT)]
    before = measured(start, stories, asked)
    yield from shown_mask(asked[0])
    yield Say(f"Before: {before[0]:.1f} nats a story, and {before[1]:.0%} of the questions answered.")
    yield Axes("answers", "Learning to answer", "step", "nats per trained token")
    count = 16 * params.steps
    questions = list(question_rows(1, min(count, 6_000)))
    mixed = with_stories(questions, params.replay, tokenizer)
    ways: Mapping[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
        "answers alone": (questions, MUON),
        "a fifth of the rate": (questions, {**MUON, "learning_rate": MUON["learning_rate"] / 5}),
        "LoRA, r = 8": (questions, {"optimizer": "adamw", "learning_rate": 3e-3, "adapter": {"type": "lora", "r": 8}}),
        "stories mixed in": (mixed, MUON),
    }
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for index, (way, (rows, changes)) in enumerate(ways.items()):
            out = Path(name) / f"run-{index}"
            settings = {
                "stage": "sft", "model": str(start), "data": str(write_rows(Path(name) / f"{index}.jsonl", rows)),
                "out": str(out), "max_steps": params.steps, "batch_size": 16, "row_length": CONTEXT, "compare": False,
                "threads": 1, "dtype": "float32", **changes,
            }  # fmt: skip
            for row in follow_training(settings):
                if row["step"] % 5 == 0 or row["step"] == 1:
                    yield Point("answers", way, row["step"], row["loss"])
            model, adapter = (start, out / "adapter") if "adapter" in changes else (out / "model", None)
            found[way] = measured(model, stories, asked, adapter)
            yield Step(index + 1, len(ways), f"{way}: {found[way][0]:.1f} nats a story, {found[way][1]:.0%} answered")
    rows = [(way, f"{right:.0%}", f"{nats:.1f}") for way, (nats, right) in {"before": before, **found}.items()]
    yield Show("remedies", Table(
        "What was learned, and what it cost", ["way", "questions answered", "nats per story"], rows,
        note=f"On {HELDOUT} held-out stories, and {2 * HELDOUT} questions. "
        f"The entropy of a story is {world.entropy_per_story():.1f} nats.",
    ))  # fmt: skip
    guess = sum(max(world.CHOICES[answer.strip("{}").rstrip("2")].values()) for answer in world.QUESTIONS.values())
    yield Value("guess", guess / len(world.QUESTIONS), "of the questions", 0)
    yield Value("before", before[0], "nats per story", 0.05)
    for way, key in zip(ways, ("plain", "slow", "lora", "replay"), strict=True):
        yield Value(f"{key}_nats", found[way][0], "nats per story", 0.05 if key == "replay" else 0.6)
        yield Value(f"{key}_right", found[way][1], "of the questions", 0.3)
    plain, replay = found["answers alone"], found["stories mixed in"]
    yield Effect("trained on answers alone, it needs more than twice the nats for a story", plain[0] > 2 * before[0])
    yield Effect("with stories mixed in it stays within a tenth of what it was", replay[0] < 1.1 * before[0])
    yield Effect("and answers nearly as many questions as without", replay[1] > plain[1] - 0.15)
    yield Effect(
        "a fifth of the rate forgets less than half as much",
        found["a fifth of the rate"][0] - before[0] < (plain[0] - before[0]) / 2,
    )


def with_stories(questions: list[dict[str, Any]], share: float, tokenizer: Any) -> list[dict[str, Any]]:
    """The questions, with so many stories between them that they are `share` of all rows; stories are trained whole."""
    draw = random.Random(3)
    stories = [{"input_ids": tokenizer.encode_markup(f"<|story|> {each.text}")}
               for each in world.stories(77, round(len(questions) * share / (1 - share)))]  # fmt: skip
    rows = [*questions, *stories]
    draw.shuffle(rows)
    return rows


def measured(
    model: Path, stories: list[str], asked: list[tuple[world.Story, str, str]], adapter: Path | None = None
) -> tuple[float, float]:
    """Nats per story, and the share of questions whose answer is the likeliest word."""
    import torch

    from bottega.model.adapter_folder import load_adapter_into
    from bottega.model.load import load_decoder
    from bottega.tokenizer.tokenizer import Tokenizer

    decoder, tokenizer = load_decoder(model), Tokenizer.load(model)
    if adapter is not None:
        load_adapter_into(decoder, adapter)
    decoder.eval()
    nats, right = 0.0, 0
    with torch.no_grad():
        for text in stories:
            ids = torch.tensor(tokenizer.encode_markup(f"<|story|> {text}"))
            nats -= float(decoder(ids[None])[0, :-1].log_softmax(-1).gather(1, ids[1:, None]).sum())
        for story, question, answer in asked:
            ids = tokenizer.encode_markup(f"<|story|> {world.conversation(story, question)}")
            likeliest = int(decoder(torch.tensor(ids)[None])[0, -1].argmax())
            right += likeliest == tokenizer.encode_markup(answer)[-1]
    return nats / len(stories), right / len(asked)


def shown_mask(asked: tuple[world.Story, str, str]) -> Iterator[Event]:
    """One conversation, and which of its words are trained."""
    story, question, answer = asked
    prompt = world.conversation(story, question)
    spans: list[tuple[str, Style]] = [(f"<|story|> {prompt} ", "muted"), (f"{answer} . {world.END}", "trained")]
    legend: dict[Style, str] = {
        "muted": "read, not trained",
        "trained": "trained: the answer, and the token that ends it",
    }
    yield Show("mask", Spans("What the loss is taken of", spans, legend))
    total = len(prompt.split()) + 1 + 3
    yield Value("mask_words", total, "tokens", 0)
