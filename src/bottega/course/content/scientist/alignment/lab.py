"""Better and worse: DPO.

The model that learned to answer is shown pairs, a right answer and a wrong one, and learns to prefer. The loss begins at
ln 2 to the last digit, the margin grows, and what happens to the two probabilities themselves is another matter.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Table
from bottega.course.companion import companion, pair_rows, write_rows
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value
from bottega.course.toolchain import follow_training

BUDGET = 40
HELDOUT_SEED = 777


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=80, ge=10, le=500)
    """Steps of each run."""
    rate: float = Field(default=0.001, gt=0.0, le=0.1)
    """Learning rate."""
    betas: str = Field(default="0.05 0.2 1", max_length=60)
    """The values of β, with spaces between them."""
    nll: float = Field(default=0.0, ge=0.0, le=10.0)
    """Weight of the chosen answers' own loss beside DPO's."""


def run(params: Params) -> Iterator[Event]:
    """One run for each β, from the same model."""
    from bottega.model.load import load_decoder
    from bottega.tokenizer.tokenizer import Tokenizer

    folder = companion("fine-tuned")
    tokenizer = Tokenizer.load(folder)
    tests = [encoded(tokenizer, row) for row in pair_rows(HELDOUT_SEED, 200)]
    start = load_decoder(folder)
    before = judged(start, tests)
    yield Say(f"Before: the right answer is the likelier one in {before['ordered']:.0%} of 200 new pairs.")
    yield Axes("loss", "The loss of DPO", "step", "nats", floors={"ln 2": 0.6931})
    yield Axes("rewards", "β ln (π / π_ref), middle β", "step", "reward")
    betas = [float(each) for each in params.betas.split()]
    found, first = {}, 0.0
    with tempfile.TemporaryDirectory() as place:
        data = write_rows(Path(place) / "pairs.jsonl", pair_rows(2, 1500))
        for at, beta in enumerate(betas):
            out = Path(place) / f"run{at}"
            settings = {
                "stage": "dpo", "model": str(folder), "data": str(data), "out": str(out), "max_steps": params.steps,
                "batch_size": 16, "row_length": 256, "learning_rate": params.rate, "optimizer": "adamw", "compare": False,
                "threads": 1, "dtype": "float32", "preference": {"beta": beta, "nll_weight": params.nll},
            }  # fmt: skip
            for row in follow_training(settings):
                if "margin" not in row:
                    continue
                first = row["loss"] if at == 0 and row["step"] == 1 else first
                if row["step"] == 1 or row["step"] % 5 == 0:
                    yield Point("loss", f"β {beta:g}", row["step"], row["loss"])
                    if at == len(betas) // 2:
                        yield Point("rewards", "chosen", row["step"], row["reward_chosen"])
                        yield Point("rewards", "rejected", row["step"], row["reward_rejected"])
            found[beta] = judged(load_decoder(out / "model"), tests)
            yield Step(at + 1, len(betas), f"β {beta:g}: {found[beta]['ordered']:.0%} of the pairs in order")
    rows = [("before", *numbers(before))] + [(f"β {beta:g}", *numbers(each)) for beta, each in found.items()]
    columns = ["model", "pairs in order", "questions answered", "ln p chosen", "ln p rejected", "margin"]
    yield Show("table", Table("On 200 new pairs", columns, rows, note="Log-probabilities of whole answers, in nats."))
    bars = [Bar(name, each[kind], group=name) for name, each in (("before", before), *((f"β {b:g}", f) for b, f in found.items()))
            for kind in ("chosen", "rejected")]  # fmt: skip
    bars = [Bar(("chosen", "rejected")[at % 2], bar.value, group=bar.group) for at, bar in enumerate(bars)]
    yield Show("falls", Bars("Log-probability of the answers", "nats", bars, from_zero=False))
    small, large = found[betas[0]], found[betas[-1]]
    yield Value("first", first, "nats", 1e-5)
    yield Value("ordered_before", before["ordered"], "of the pairs", 0.1)
    yield Value("ordered_small", small["ordered"], "of the pairs", 0.2)
    yield Value("ordered_large", large["ordered"], "of the pairs", 0.2)
    yield Value("right_before", before["right"], "of the questions", 0.2)
    yield Value("right_small", small["right"], "of the questions", 0.5)
    yield Value("right_large", large["right"], "of the questions", 0.3)
    for name, each in (("before", before), ("small", small), ("large", large)):
        yield Value(f"chosen_{name}", each["chosen"], "nats", 0.7)
        yield Value(f"rejected_{name}", each["rejected"], "nats", 0.7)
        yield Value(f"margin_{name}", each["chosen"] - each["rejected"], "nats", 0.7)
    yield Effect("the first loss is ln 2", abs(first - 0.693147) < 1e-4)
    if params.steps >= 60 and params.rate <= 0.005 and len(betas) > 1 and params.nll == 0:
        yield Effect("the margin grows", small["chosen"] - small["rejected"] > before["chosen"] - before["rejected"] + 2)
        yield Effect("the rejected answers become much rarer", small["rejected"] < before["rejected"] - 3)
        yield Effect("the chosen ones become no likelier", small["chosen"] < before["chosen"] + 0.1)
        yield Effect("a small β lets the model go farther", abs(small["rejected"] - before["rejected"]) > abs(large["rejected"] - before["rejected"]))


def encoded(tokenizer, row) -> tuple[list[int], list[int], list[int]]:
    """Prompt, chosen and rejected answer of a pair, as ids."""
    prompt = tokenizer.encode_markup(f"<|story|> <|user|> {row['prompt'][0]['content']} <|assistant|>")
    return prompt, *(tokenizer.encode_markup(f"{row[kind][0]['content']} <|end|>") for kind in ("chosen", "rejected"))


def judged(decoder, tests) -> dict[str, float]:
    """Mean log-probabilities of both answers, the share of pairs in order, and of prompts whose next word is right."""
    import torch

    sums, ordered, right = [0.0, 0.0], 0, 0
    with torch.no_grad():
        for prompt, *answers in tests:
            each, best = [], -1
            for answer in answers:
                ids = torch.tensor([prompt + answer])
                log_probs = decoder(ids)[0, len(prompt) - 1 : -1].log_softmax(-1)
                each.append(float(log_probs.gather(1, ids[0, len(prompt) :, None]).sum()))
                best = int(log_probs[0].argmax())
            sums = [a + b for a, b in zip(sums, each, strict=True)]
            ordered += each[0] > each[1]
            right += best == answers[0][0]
    count = len(tests)
    return {"chosen": sums[0] / count, "rejected": sums[1] / count, "ordered": ordered / count, "right": right / count}


def numbers(found: dict[str, float]) -> tuple[str, ...]:
    """A row of the table."""
    return (f"{found['ordered']:.0%}", f"{found['right']:.0%}", f"{found['chosen']:.2f}", f"{found['rejected']:.2f}",
            f"{found['chosen'] - found['rejected']:.2f}")  # fmt: skip
