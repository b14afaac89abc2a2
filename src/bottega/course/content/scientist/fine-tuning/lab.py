"""All weights, a few, and a base of four bits.

The travelling model learns to tell its stories in another style. First all its weights move; then only matrices of low
rank beside them, on a base as it was and on one of four bits. The grammar of the new style is known too, so the
distance to the truth says what each way has learned, on the new style and, of what it knew, on the old one.
"""

import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course import world
from bottega.course.companion import CONTEXT, HELDOUT_SEED, companion, write_rows
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value
from bottega.course.toolchain import follow_training, run_verb

BUDGET = 45
HELDOUT = 150
STYLE = (
    "one day a {trait} {animal} named {name} and {name2} , a {trait2} {animal2} , looked in the {place} . "
    "the day was {weather} . {name2} found the {colour} {thing} . {name} was happy and said thank you . "
    "{name2} liked to {verb} near the {place2} . {name} gave the {colour} {thing} to {name2} . the end ."
)
DIFFER = {"name2": "name", "place2": "place"}


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=100, ge=20, le=1000)
    """Optimiser steps of each way, of 16 rows of text each."""
    rate_full: float = Field(default=2e-3, gt=0, le=1)
    """Peak learning rate where all weights move."""
    rate_lora: float = Field(default=2e-2, gt=0, le=1)
    """Peak learning rate of the adapters. Try 2e-3, and 0.5."""


def run(params: Params) -> Iterator[Event]:
    """Fine-tune in five ways, measure each on both styles, and merge one."""
    start = companion("pretrained")
    new, old = list(styled(2, HELDOUT)), [story.text for story in world.stories(HELDOUT_SEED, HELDOUT)]
    true = entropy()
    before = nats(start, new), nats(start, old)
    yield Say(
        f"A new story has {true:.2f} nats. The model needs {before[0]:.1f}, and {before[1]:.1f} for an old one."
    )
    ways: Mapping[str, Any] = {
        "all weights": None,
        **{f"LoRA, r = {r}": {"type": "lora", "r": r} for r in (1, 4, 16)},
        "LoRA, r = 16, base in NF4": {"type": "qlora", "r": 16},
    }  # fmt: skip
    found: dict[str, tuple[float, float, int]] = {}
    yield Axes("loss", "Learning the new style", "step", "nats per token")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_rows(folder / "style.jsonl", ({"text": text} for text in styled(1, 2_000)))
        for index, (way, adapter) in enumerate(ways.items()):
            out = folder / f"run-{index}"
            settings = {
                "stage": "pretrain", "model": str(start), "data": str(data), "out": str(out), "max_steps": params.steps,
                "tokens_per_step": 1024, "row_length": CONTEXT, "optimizer": "adamw", "compare": False, "threads": 1,
                "dtype": "float32", "learning_rate": params.rate_lora if adapter else params.rate_full,
                "weight_decay": 0.0, **({"adapter": adapter} if adapter else {}),
            }  # fmt: skip
            for row in follow_training(settings):
                if row["step"] % 5 == 0 or row["step"] == 1:
                    yield Point("loss", way, row["step"], row["loss"])
            made = (start, out / "adapter") if adapter else (out / "model", None)
            found[way] = nats(*made[:1], new, made[1]), nats(*made[:1], old, made[1]), trained(*made)
            yield Step(index + 1, len(ways), f"{way}: {found[way][0]:.2f} nats a story")
        merged = folder / "merged"
        run_verb(
            "adapter merge",
            {"adapter": [str(folder / "run-3" / "adapter")], "out": str(merged), "measure": 0, "threads": 1},
        )
        difference = largest_difference(start, folder / "run-3" / "adapter", merged, new[:20])
    rows = [("before", "", f"{before[0]:.2f}", f"{before[1]:.2f}")]
    rows += [(way, f"{count:,}", f"{a:.2f}", f"{b:.2f}") for way, (a, b, count) in found.items()]
    yield Show("ways", Table(
        "What each way learned, and what it forgot", ["way", "numbers trained", "new style", "old style"], rows,
        note=f"Nats per story on {HELDOUT} held-out stories. The entropy of a new one is {true:.2f}, "
        f"of an old one {world.entropy_per_story():.2f}.",
    ))  # fmt: skip
    yield Value("true", true, "nats per story", 0)
    yield Value("before_new", before[0], "nats per story", 0.15)
    yield Value("before_old", before[1], "nats per story", 0.05)
    keys = {
        "all weights": "full",
        "LoRA, r = 1": "r1",
        "LoRA, r = 4": "r4",
        "LoRA, r = 16": "r16",
        "LoRA, r = 16, base in NF4": "nf4",
    }
    for way, key in keys.items():
        yield Value(f"{key}_new", found[way][0], "nats per story", 0.1)
        yield Value(f"{key}_old", found[way][1], "nats per story", 0.5)
        yield Value(f"{key}_count", found[way][2], "numbers", 0)
    yield Value("merge_difference", difference, "of the largest logit", 20)
    new_of = {key: found[way][0] for way, key in keys.items()}
    yield Effect("every way ends within 4 nats of the entropy of the new style", max(new_of.values()) < true + 4)
    yield Effect("rank 4 learns as much as all weights, to a nat a story", abs(new_of["r4"] - new_of["full"]) < 1)
    yield Effect("four bits cost less than half a nat a story", new_of["nf4"] < new_of["r16"] + 0.5)
    yield Effect(
        "all ways forget: the old style costs more than before",
        all(value[1] > before[1] + 0.5 for value in found.values()),
    )
    yield Effect("the merged model is base and adapter, to 1e-5 of the largest logit", difference < 1e-5)


def styled(seed: int, count: int) -> Iterator[str]:
    """Stories of the new style."""
    draw = random.Random(seed)
    names = list(dict.fromkeys(word.strip("{}") for word in STYLE.split() if word.startswith("{")))
    for _ in range(count):
        chosen: dict[str, str] = {}
        for name in names:
            options = dict(world.CHOICES[name.rstrip("2")])
            if name in DIFFER:
                options.pop(chosen.get(DIFFER[name], ""), None)
            chosen[name] = draw.choices(list(options), list(options.values()))[0]
        yield STYLE.format(**chosen)


def entropy() -> float:
    """Of a story of the new style, in nats: names and places are equally likely, and two of a story differ."""
    import math

    total = math.log(8 * 7) + math.log(6 * 5)
    for name, times in {"trait": 2, "animal": 2, "weather": 1, "colour": 1, "thing": 1, "verb": 1}.items():
        total -= times * sum(p * math.log(p) for p in world.CHOICES[name].values())
    return total


def opened(model: Path, adapter: Path | None = None):
    """The model, with its adapter if there is one, and its tokenizer."""
    from bottega.model.adapter_folder import load_adapter_into
    from bottega.model.load import load_decoder
    from bottega.tokenizer.tokenizer import Tokenizer

    decoder = load_decoder(model)
    if adapter is not None:
        load_adapter_into(decoder, adapter)
    return decoder.eval(), Tokenizer.load(model)


def nats(model: Path, texts: list[str], adapter: Path | None = None) -> float:
    """The mean -ln p of a story."""
    import torch

    decoder, tokenizer = opened(model, adapter)
    total = 0.0
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor(tokenizer.encode_markup(f"<|story|> {text}"))
            total -= float(decoder(ids[None])[0, :-1].log_softmax(-1).gather(1, ids[1:, None]).sum())
    return total / len(texts)


def trained(model: Path, adapter: Path | None) -> int:
    """How many numbers were trained."""
    from bottega.model.lora import adapter_parameters

    decoder, _ = opened(model, adapter)
    parameters = adapter_parameters(decoder).values() if adapter else decoder.parameters()
    return sum(each.numel() for each in parameters)


def largest_difference(base: Path, adapter: Path, merged: Path, texts: list[str]) -> float:
    """Between base with adapter and the merged model, of any logit, as a share of the largest logit."""
    import torch

    (one, tokenizer), (other, _) = opened(base, adapter), opened(merged)
    with torch.no_grad():
        encoded = [torch.tensor(tokenizer.encode_markup(f"<|story|> {text}"))[None] for text in texts]
        pairs = [(one(ids), other(ids)) for ids in encoded]
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
