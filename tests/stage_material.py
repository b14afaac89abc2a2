"""A small world in which every stage of training has something to learn, and a base model that can speak in it.

Somebody asks for a word and wants to hear it. The base answers in the right form, but says the word that was asked for
only now and then. Some ways to ask for some words are held out: a stage has learned to listen if it is right there too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottega import verbs
from bottega.train.metrics import read_metrics

WORDS = ("river", "stone", "lantern", "garden", "window", "letter", "bridge", "market", "harbour", "clock")
ASKING = (
    "Say the word {}.", "Which word is it? {}", "Repeat {}, please.", "Give me {}.", "I want to hear {}.",
    "The word, please: {}",
)  # fmt: skip
RIGHT = 0.25  # share of the base's own training in which the word is the one that was asked for

Asked = tuple[str, str]
"""A question and the word that it asks for."""


def questions(*, heldout: bool) -> list[Asked]:
    """One combination in five of word and way to ask is held out."""
    return [
        (asking.format(word), word)
        for at, word in enumerate(WORDS)
        for way, asking in enumerate(ASKING)
        if ((at + way) % 5 == 0) == heldout
    ]


def answer(word: str) -> str:
    """What is said."""
    return f"The word is {word}."


def another(word: str, draw: random.Random) -> str:
    """Any other word."""
    return draw.choice([each for each in WORDS if each != word])


def chats(asked: Iterable[Asked]) -> list[dict[str, Any]]:
    """Conversations in which the answer is right."""
    return [_chat(question, answer(word)) for question, word in asked]


def careless_chats(asked: Sequence[Asked], count: int, draw: random.Random) -> list[dict[str, Any]]:
    """Conversations in which it seldom is."""
    rows = []
    for question, word in draw.choices(asked, k=count):
        rows.append(_chat(question, answer(word if draw.random() < RIGHT else another(word, draw))))
    return rows


def pairs(asked: Iterable[Asked], draw: random.Random, each: int = 1) -> list[dict[str, Any]]:
    """The right answer is preferred to a wrong one."""
    return [
        {"prompt": question, "chosen": answer(word), "rejected": answer(another(word, draw))}
        for question, word in asked
        for _ in range(each)
    ]


def judged(asked: Iterable[Asked], draw: random.Random) -> list[dict[str, Any]]:
    """Each question with a right answer, which was found good, and a wrong one."""
    return [
        {"prompt": question, "completion": answer(said), "label": said == word}
        for question, word in asked
        for said in (word, another(word, draw))
    ]


def ranked(asked: Iterable[Asked], draw: random.Random, each: int = 8) -> list[dict[str, Any]]:
    """Of two words the later one in WORDS is preferred, whatever is asked for; every word is chosen equally often."""
    return [
        {"prompt": question, "chosen": answer(WORDS[better]), "rejected": answer(WORDS[draw.randrange(better)])}
        for question, _ in asked
        for better in draw.sample(range(1, len(WORDS)), each)
    ]


def chosen(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The better answer of each pair alone."""
    return [_chat(row["prompt"], row["chosen"]) for row in rows]


def prompts(asked: Iterable[Asked], each: int = 1) -> list[dict[str, Any]]:
    """Questions, with the word as what a reward compares with."""
    return [{"prompt": question, "answer": word} for question, word in asked for _ in range(each)]


def _chat(question: str, said: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": said}]}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@dataclass(frozen=True)
class World:
    """`base` can speak; the rest are files of rows: NAME.jsonl, and heldout-NAME.jsonl of other questions."""

    folder: Path
    base: Path

    def data(self, name: str, *, heldout: bool = False) -> Path:
        """A file of rows: chats, pairs, judged, ranked, chosen (of the ranked) or prompts."""
        return self.folder / f"{'heldout-' if heldout else ''}{name}.jsonl"


def make_world(
    folder: Path, *, layers: int, hidden_size: int, steps: int, chats_seen: int, learning_rate: float, threads: int
) -> World:
    """Write the rows, pre-train a model on text in which people listen, and teach it to answer carelessly.

    Args:
        folder: an empty one.
        layers: of the model.
        hidden_size: of the model.
        steps: of pre-training, on 1024 tokens each.
        chats_seen: conversations of fine-tuning.
        learning_rate: of fine-tuning.
        threads: to compute with.
    """
    world = World(folder, folder / "base")
    seen = questions(heldout=False)
    for heldout, asked in ((False, seen), (True, questions(heldout=True))):
        write(world.data("chats", heldout=heldout), chats(asked))
        write(world.data("pairs", heldout=heldout), pairs(asked, random.Random(1), 2))
        write(world.data("judged", heldout=heldout), judged(asked, random.Random(2)))
        by_rank = ranked(asked, random.Random(3))
        write(world.data("ranked", heldout=heldout), by_rank)
        write(world.data("chosen", heldout=heldout), chosen(by_rank))
        write(world.data("prompts", heldout=heldout), prompts(asked, 4 if heldout else 1))
    write(folder / "careless.jsonl", careless_chats(seen, chats_seen, random.Random(4)))
    texts = [f"{question} {answer(word)}" for question, word in random.Random(5).choices(seen, k=800)]
    (folder / "text").mkdir()
    for number in range(20):
        (folder / "text" / f"{number}.txt").write_text("\n".join(texts[number::20]), "utf-8")
    verbs.tokenizer_train(data=folder / "text", vocab_size=384, out=folder / "tokenizer")
    verbs.data_prepare(data=folder / "text", tokenizer=folder / "tokenizer", kind="text", out=folder / "tokens")
    common: dict[str, Any] = {"threads": threads, "dtype": "float32"}
    verbs.train(
        data=folder / "tokens", tokenizer=folder / "tokenizer", layers=layers, hidden_size=hidden_size,
        row_length=128, tokens_per_step=1024, max_steps=steps, out=folder / "plain", **common,
    )  # fmt: skip
    verbs.train(
        stage="sft", model=folder / "plain", data=folder / "careless.jsonl", batch_size=32, epochs=1,
        learning_rate=learning_rate, out=world.base, **common,
    )  # fmt: skip
    return world


def figures(folder: Path, name: str) -> list[float]:
    """A figure of every row of metrics.jsonl that has it."""
    return [row[name] for row in read_metrics(folder / "metrics.jsonl") if name in row]
