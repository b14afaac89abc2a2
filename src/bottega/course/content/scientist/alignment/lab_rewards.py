"""A reward that can be checked: GRPO.

The model answers each question eight times, a program checks the answers, and what was better than the group's mean is
made likelier. No pairs, no reward model, no value network: the right word is the reward.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course import world
from bottega.course.companion import companion, pair_rows, write_rows
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value
from bottega.course.toolchain import follow_training

BUDGET = 45


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=120, ge=10, le=500)
    """Steps of eight questions."""
    group: int = Field(default=8, ge=2, le=32)
    """Answers to each question."""
    rate: float = Field(default=0.0005, gt=0.0, le=0.1)
    """Learning rate."""
    length_reward: float = Field(default=0.0, ge=0.0, le=1.0)
    """Weight of a second reward, for long answers: watch it being cheated."""


def run(params: Params) -> Iterator[Event]:
    """Learn from the checker, and measure on new questions."""
    from bottega.model.load import load_decoder
    from bottega.tokenizer.tokenizer import Tokenizer

    folder = companion("fine-tuned")
    tokenizer = Tokenizer.load(folder)
    before = measured(load_decoder(folder), tokenizer)
    yield Say(f"Drawn at temperature 1, {before['drawn']:.0%} of the answers to new questions are right before.")
    yield Axes("reward", "Share of right answers in the groups", "step", "reward")
    yield Axes("entropy", "How much the answers vary", "step", "nats a word")
    rewards = [{"type": "exact", "ignore_case": True}]
    if params.length_reward:
        rewards.append({"type": "length", "target": 12, "tolerance": 12, "unit": "words", "weight": params.length_reward})
    rows = []
    with tempfile.TemporaryDirectory() as place:
        prompts = ({"prompt": row["prompt"], "answer": row["chosen"][0]["content"]} for row in pair_rows(4, 8 * params.steps))
        settings = {
            "stage": "grpo", "model": str(folder), "data": str(write_rows(Path(place) / "prompts.jsonl", prompts)),
            "out": str(Path(place) / "run"), "max_steps": params.steps, "batch_size": 8, "row_length": 256,
            "learning_rate": params.rate, "optimizer": "muon", "compare": False, "threads": 1, "dtype": "float32",
            "rewards": rewards, "policy": {"group": params.group, "max_new_tokens": 14, "beta": 0.0},
        }  # fmt: skip
        for row in follow_training(settings):
            if "reward" in row:
                rows.append(row)
                yield Point("reward", "right", row["step"], row["reward/exact"])
                yield Point("entropy", "entropy", row["step"], row["entropy"])
                if row["step"] % 10 == 0:
                    yield Step(row["step"], params.steps, f"{row['reward/exact']:.0%} right")
        after = measured(load_decoder(Path(place) / "run" / "model"), tokenizer)
    table = [(name, f"{each['greedy']:.0%}", f"{each['drawn']:.0%}", f"{each['entropy']:.2f}") for name, each in (("before", before), ("after", after))]
    columns = ["", "likeliest word right", "drawn word right", "entropy of the answer's word, nats"]
    yield Show("table", Table("300 new questions", columns, table))
    still = sum(row["zero_variance"] for row in rows) / len(rows)
    yield Value("greedy_before", before["greedy"], "of the questions", 0.15)
    yield Value("greedy_after", after["greedy"], "of the questions", 0.3)
    yield Value("drawn_before", before["drawn"], "of the answers", 0.15)
    yield Value("drawn_after", after["drawn"], "of the answers", 0.3)
    yield Value("entropy_before", before["entropy"], "nats", 0.2)
    yield Value("entropy_after", after["entropy"], "nats", 0.7)
    yield Value("silent", still, "of the groups", 0.5)
    yield Value("first_loss", rows[0]["loss"] + 0.0, "", 1e9)
    yield Effect("the first loss is 0, as advantages add up to nothing", abs(rows[0]["loss"]) < 1e-5)
    if params.steps >= 60 and not params.length_reward and params.group >= 4:
        yield Effect("answers are right more often", after["drawn"] > before["drawn"] + 0.01)
        yield Effect("and vary less", after["entropy"] < before["entropy"])


def measured(decoder, tokenizer, count: int = 300) -> dict[str, float]:
    """Of held-out questions: the likeliest word right, the probability of the right word, the entropy of the word."""
    import random

    import torch

    draw, greedy, drawn, entropy = random.Random(8), 0, 0.0, 0.0
    with torch.no_grad():
        for story in world.stories(50_000, count):
            question, answer = draw.choice(world.questions(story))
            ids = tokenizer.encode_markup(f"<|story|> {world.conversation(story, question)}")
            log_probs = decoder(torch.tensor([ids]))[0, -1].log_softmax(-1)
            greedy += int(log_probs.argmax()) == tokenizer.id_of(answer)
            drawn += float(log_probs[tokenizer.id_of(answer)].exp())
            entropy -= float((log_probs.exp() * log_probs).sum())
    return {"greedy": greedy / count, "drawn": drawn / count, "entropy": entropy / count}
