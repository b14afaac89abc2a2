"""Answers, and what they cost.

The pre-trained model tells stories and cannot answer a question about one. It is fine-tuned on questions with their
answers, with the loss on the answers alone: it learns to answer and to stop, and forgets how to tell stories. Then once
more, with stories mixed in.
"""

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Spans, Style, Table
from bottega.course import world
from bottega.course.companion import HELDOUT_SEED, companion, question_rows
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value
from bottega.course.toolchain import follow_training

BUDGET = 45
ROWS = 3000


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=200, ge=20, le=1000)
    """Steps of each of the two runs."""
    rate: float = Field(default=0.002, gt=0.0, le=0.1)
    """Learning rate."""
    replay: float = Field(default=0.1, gt=0.0, le=0.95)
    """Share of stories among the rows of the second run."""


def run(params: Params) -> Iterator[Event]:
    """Measure, fine-tune twice, measure again."""
    from bottega.model.load import load_decoder
    from bottega.tokenizer.tokenizer import Tokenizer

    folder = companion("pretrained")
    tokenizer = Tokenizer.load(folder)
    story = next(iter(world.stories(HELDOUT_SEED, 1)))
    question, answer = world.questions(story)[0]
    yield Show("mask", Spans("What is trained on", mask_of(story, question, answer),
                             {"trained": "has a loss", "muted": "is read, and has none"}))  # fmt: skip
    yield Axes("loss", "Loss on the answers while it learns", "step", "nats a trained word")
    before = load_decoder(folder)
    right, bare = {"before": accuracy(before, tokenizer)}, {"before": story_nats(before, tokenizer)}
    says = {"before": said(folder, story, question)}
    ways = {"answers only": 0.0, "answers and stories": params.replay}
    with tempfile.TemporaryDirectory() as place:
        for at, (way, share) in enumerate(ways.items()):
            rows = training_rows(tokenizer, share)
            data, out = Path(place) / f"{at}.jsonl", Path(place) / f"run{at}"
            data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
            settings = {
                "stage": "sft", "model": str(folder), "data": str(data), "out": str(out), "max_steps": params.steps,
                "batch_size": 16, "row_length": 256, "learning_rate": params.rate, "optimizer": "muon", "compare": False,
                "threads": 1, "dtype": "float32",
            }  # fmt: skip
            for row in follow_training(settings):
                if "loss" in row and row["step"] % 10 == 0:
                    yield Point("loss", way, row["step"], row["loss"])
                    yield Step(at * params.steps + row["step"], 2 * params.steps, f"{way}: {row['loss']:.2f}")
            tuned = load_decoder(out / "model")
            right[way], bare[way] = accuracy(tuned, tokenizer), story_nats(tuned, tokenizer)
            says[way] = said(out / "model", story, question)
    true = world.entropy_per_story()
    rows = [(way, f"{right[way]:.0%}", f"{bare[way] - true:.1f}", says[way]) for way in right]
    columns = ["trained on", "questions answered", "nats a story above the entropy", f"asked: {question}"]
    yield Show("table", Table("What was learned, and what was forgotten", columns, rows, note=f"The answer is: {answer}."))
    bars = [Bar(way, bare[way] - true) for way in bare]
    yield Show("forgotten", Bars("Distance from the stories", "nats a story above the entropy", bars))
    yield Say(f"A model that gives every word the same chance stands {world.tokens_per_story() * 4.44 - true:.0f} nats above.")
    yield Value("right_before", right["before"], "of the questions", 1.0)
    yield Value("right_answers", right["answers only"], "of the questions", 0.2)
    yield Value("right_replay", right["answers and stories"], "of the questions", 0.2)
    yield Value("far_before", bare["before"] - true, "nats a story", 0.5)
    yield Value("far_answers", bare["answers only"] - true, "nats a story", 0.5)
    yield Value("far_replay", bare["answers and stories"] - true, "nats a story", 0.7)
    if params.steps >= 100 and params.rate <= 0.01:
        yield Effect("before, it does not answer", right["before"] < 0.3)
        yield Effect("it learns to answer", right["answers only"] > right["before"] + 0.2)
        yield Effect("and forgets the stories", bare["answers only"] - true > 5 * (bare["before"] - true))
        yield Effect("with stories mixed in it keeps most of them",
                     bare["answers and stories"] - true < 0.3 * (bare["answers only"] - true))  # fmt: skip


def mask_of(story, question: str, answer: str) -> list[tuple[str, Style]]:
    """A conversation in words, and which of them have a loss."""
    asked = f"<|story|> <|user|> {' '.join(story.words[:12])} … {question} <|assistant|> "
    return [(asked, "muted"), (f"{answer} . <|end|>", "trained")]


def training_rows(tokenizer, share: float) -> list[dict]:
    """Conversations, with a share of stories among them that are trained as in pre-training."""
    rows = list(question_rows(1, ROWS))
    draw = random.Random(0)
    for story in world.stories(5, round(ROWS * share / (1 - share))):
        ids = tokenizer.encode_markup(f"<|story|> {story.text} <|end|>")
        rows.append({"input_ids": ids, "labels": ids})
    draw.shuffle(rows)
    return rows


def accuracy(decoder, tokenizer, count: int = 200) -> float:
    """The share of held-out questions whose answer is the likeliest next word."""
    import torch

    draw, right = random.Random(3), 0
    with torch.no_grad():
        for story in world.stories(HELDOUT_SEED + 1, count):
            question, answer = draw.choice(world.questions(story))
            ids = tokenizer.encode_markup(f"<|story|> {world.conversation(story, question)}")
            right += int(decoder(torch.tensor([ids]))[0, -1].argmax()) == tokenizer.id_of(answer)
    return right / count


def story_nats(decoder, tokenizer, count: int = 150) -> float:
    """−ln p of a held-out story, mean, as pre-training writes it."""
    import torch

    total = 0.0
    with torch.no_grad():
        for story in world.stories(HELDOUT_SEED, count):
            ids = torch.tensor(tokenizer.encode_markup(f"<|story|> {story.text}"))
            log_probs = decoder(ids[None])[0, :-1].log_softmax(-1)
            total -= float(log_probs.gather(1, ids[1:, None]).sum())
    return total / count


def said(folder: Path, story, question: str) -> str:
    """What a model answers, greedily, up to where it stops or twelve words."""
    from bottega.generate.generator import Generator
    from bottega.generate.settings import Sampling

    generator = Generator.load(folder, threads=1, dtype="float32", max_batch=1)
    ids = generator.tokenizer.encode_markup(f"<|story|> {world.conversation(story, question)}")
    pieces = list(generator.follow(generator.submit(ids, Sampling(max_new_tokens=12, temperature=0.0))))
    end = " ∎" if pieces[-1].finish_reason == "stop" else " …"
    return "".join(piece.text for piece in pieces).strip() + end
