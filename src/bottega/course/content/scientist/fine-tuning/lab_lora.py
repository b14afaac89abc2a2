"""All weights, or a few: LoRA by rank.

The model has to learn the stories told backwards, sentence by sentence: the same words, the same entropy, another
order. All weights are trained, then adapters of several ranks, then one on a base that was rounded to four bits.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Series, Table
from bottega.course import world
from bottega.course.companion import HELDOUT_SEED, companion
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value
from bottega.course.toolchain import follow_training

BUDGET = 45
RANKS = (1, 4, 16)


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=120, ge=20, le=1000)
    """Steps of each run."""
    rate: float = Field(default=0.01, gt=0.0, le=1.0)
    """Learning rate of the adapters."""
    full_rate: float = Field(default=0.003, gt=0.0, le=0.1)
    """Learning rate of all weights."""
    alpha: float = Field(default=2.0, gt=0.0, le=64.0)
    """alpha over the rank: the factor before the adapter's product."""


def run(params: Params) -> Iterator[Event]:
    """Train in every way, and measure the loss on new backward stories."""
    import torch

    from bottega.model.load import load_decoder
    from bottega.tokenizer.tokenizer import Tokenizer

    folder = companion("pretrained")
    tokenizer = Tokenizer.load(folder)
    example = backwards(next(iter(world.stories(HELDOUT_SEED, 1))).text)
    yield Say(f"For example: {example}")
    floor = world.entropy_per_story() / (world.tokens_per_story())
    yield Axes("loss", "Loss while it learns", "step", "nats a word", floors={"entropy": floor})
    ways = {"all weights": None, **{f"rank {rank}": {"type": "lora", "r": rank, "alpha": params.alpha * rank} for rank in RANKS},
            "rank 16, base in 4 bits": {"type": "qlora", "r": 16, "alpha": params.alpha * 16}}  # fmt: skip
    found, old, numbers = {}, {}, {}
    tests = [tokenizer.encode_markup(f"<|story|> {backwards(s.text)}") for s in world.stories(HELDOUT_SEED, 100)]
    forward = [tokenizer.encode_markup(f"<|story|> {s.text}") for s in world.stories(HELDOUT_SEED, 100)]
    start = load_decoder(folder)
    before, old["before"] = loss_of(start, tests), loss_of(start, forward)
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "stories.jsonl"
        rows = ({"text": backwards(story.text)} for story in world.stories(7, 3000))
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        for at, (way, adapter) in enumerate(ways.items()):
            out = Path(place) / f"run{at}"
            settings = {
                "stage": "pretrain", "model": str(folder), "data": str(data), "out": str(out), "max_steps": params.steps,
                "tokens_per_step": 1024, "row_length": 256, "optimizer": "adamw", "compare": False, "threads": 1,
                "dtype": "float32", "learning_rate": params.rate if adapter else params.full_rate,
                **({"adapter": adapter} if adapter else {}),
            }  # fmt: skip
            for row in follow_training(settings):
                if "loss" in row and row["step"] % 10 == 0:
                    yield Point("loss", way, row["step"], row["loss"])
            tuned = tuned_model(folder, out, adapter)
            found[way], old[way] = loss_of(tuned, tests), loss_of(tuned, forward)
            numbers[way] = trained_numbers(out, tuned, adapter)
            yield Step(at + 1, len(ways), f"{way}: {found[way]:.3f}")
        gap = merge_gap(folder, Path(place) / "run3")
    rows = [("before", 0, f"{before:.3f}", f"{old['before']:.3f}")]
    rows += [(way, numbers[way], f"{found[way]:.3f}", f"{old[way]:.3f}") for way in ways]
    columns = ["way", "numbers trained", "loss, backwards", "loss, as before"]
    yield Show("table", Table("What each way learns and forgets", columns, rows, note=f"The entropy is {floor:.3f}."))
    points = sorted((numbers[way], found[way]) for way in ways if "bits" not in way)
    line = [Series("after training", points), Series("entropy", [(points[0][0], floor), (points[-1][0], floor)], baseline=True)]
    yield Show("price", Chart("What more numbers buy", "numbers trained", "nats a word", line, log_x=True))
    full = sum(each.numel() for each in start.parameters())
    yield Value("before", before, "nats a word", 0.1)
    yield Value("floor", floor, "nats a word", 0)
    yield Value("all", found["all weights"], "nats a word", 0.15)
    for rank in RANKS:
        yield Value(f"rank_{rank}", found[f"rank {rank}"], "nats a word", 0.2)
        yield Value(f"numbers_{rank}", numbers[f"rank {rank}"], "numbers", 0)
    yield Value("four_bits", found["rank 16, base in 4 bits"], "nats a word", 0.2)
    yield Value("old_before", old["before"], "nats a word", 0.1)
    yield Value("old_all", old["all weights"], "nats a word", 0.5)
    yield Value("old_16", old["rank 16"], "nats a word", 0.5)
    yield Value("parameters", full, "parameters", 0)
    yield Value("merge_gap", gap, "largest difference of two logits", 100)
    if params.steps >= 100 and 0.003 <= params.rate <= 0.03 and params.alpha <= 4:
        yield Effect("every way learns", all(value < before - 0.5 for value in found.values()))
        yield Effect("a higher rank learns more", found["rank 16"] < found["rank 1"])
        yield Effect("rank 16 comes near to all weights", found["rank 16"] < found["all weights"] + 0.15)
        yield Effect("on a base of four bits hardly less is learned", found["rank 16, base in 4 bits"] < found["rank 16"] + 0.1)
    yield Effect("merged, it is the same model", gap < 1e-3 and bool(torch.isfinite(torch.tensor(gap))))


def backwards(text: str) -> str:
    """A story with its sentences in the opposite order."""
    sentences = [each for each in text.split(" . ") if each]
    sentences[-1] = sentences[-1].removesuffix(" .")
    return " . ".join(reversed(sentences)) + " ."


def loss_of(decoder, rows) -> float:
    """Mean −ln p of a word."""
    import torch

    total = count = 0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor(row)
            log_probs = decoder(ids[None])[0, :-1].log_softmax(-1)
            total -= float(log_probs.gather(1, ids[1:, None]).sum())
            count += len(row) - 1
    return total / count


def tuned_model(folder: Path, out: Path, adapter):
    """The model that a run made: all weights, or the base with its adapter beside it."""
    from bottega.model.adapter_folder import load_adapter_into
    from bottega.model.load import load_decoder

    if adapter is None:
        return load_decoder(out / "model")
    decoder = load_decoder(folder)
    load_adapter_into(decoder, out / "adapter")
    return decoder


def trained_numbers(out: Path, decoder, adapter) -> int:
    """How many numbers a run trained."""
    from bottega.model.lora import adapter_parameters

    parameters = adapter_parameters(decoder).values() if adapter else decoder.parameters()
    return sum(each.numel() for each in parameters)


def merge_gap(folder: Path, out: Path) -> float:
    """The largest difference between the logits of base + adapter and of the merged model."""
    import torch

    from bottega.course.toolchain import run_verb
    from bottega.model.load import load_decoder

    merged = out.parent / "merged"
    run_verb("adapter merge", {"adapter": str(out / "adapter"), "model": str(folder), "out": str(merged)})
    ids = torch.arange(6, 70)[None]
    with torch.no_grad():
        beside, inside = tuned_model(folder, out, True)(ids), load_decoder(merged)(ids)
    return float((beside - inside).abs().max())
