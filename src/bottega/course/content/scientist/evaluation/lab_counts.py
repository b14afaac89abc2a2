"""Numbers that flatter.

Programs are drawn several times and one has to pass; questions of a test stand in the training text; the best of many
checkpoints is reported. Each makes a score larger than the model is, by an amount that can be computed.
"""

from collections.abc import Iterator
from math import comb

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Series, Table
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 10


class Params(Config):
    """What can be changed."""

    drawn: int = Field(default=10, ge=2, le=100)
    """Programs drawn for each problem."""
    leaked: float = Field(default=0.2, ge=0.0, le=1.0)
    """Share of the test that stands in the training text."""
    checkpoints: int = Field(default=20, ge=1, le=200)
    """Checkpoints, of which the best is reported."""


def run(params: Params) -> Iterator[Event]:
    """Three ways to look better than one is."""
    from bottega.evaluate.tasks.code_tasks import unbiased_pass_at_k

    draw = np.random.default_rng(0)
    chances = draw.beta(0.4, 1.2, size=400)  # most problems are hard, some easy
    passed = draw.binomial(params.drawn, chances)
    points: dict[str, list[tuple[float, float]]] = {"true": [], "unbiased": [], "1 − (1 − c/n)^k": []}
    for k in range(1, min(params.drawn, 10) + 1):
        points["true"].append((k, float((1 - (1 - chances) ** k).mean())))
        points["unbiased"].append((k, float(np.mean([unbiased_pass_at_k(params.drawn, int(c), k) for c in passed]))))
        points["1 − (1 − c/n)^k"].append((k, float((1 - (1 - passed / params.drawn) ** k).mean())))
    yield Show("passes", Chart(f"pass@k from {params.drawn} programs", "k", "share solved", [Series(name, each) for name, each in points.items()]))
    last = {name: each[-1][1] for name, each in points.items()}

    questions = 1000
    known = draw.random(questions) < params.leaked
    right = np.where(known, draw.random(questions) < 0.95, draw.random(questions) < 0.55)
    rows = [("all", questions, f"{right.mean():.1%}"), ("in the training text", int(known.sum()), f"{right[known].mean():.1%}" if known.any() else "–"),
            ("not in it", int((~known).sum()), f"{right[~known].mean():.1%}" if (~known).any() else "–")]  # fmt: skip
    yield Show("leak", Table("A model that is right in 55 % of new questions", ["questions", "number", "right"], rows))
    sentence = ["which", "gas", "do", "plants", "take", "in", "to", "make", "sugar", "from", "light", "and", "water", "during", "the", "day"]
    texts = {"copied": ["as we know", *sentence, "is a question of biology"], "a paraphrase": ["name", "the", "gas", "that", "plants", "need", "for", "sugar", "when", "the", "sun", "shines"]}
    found = {name: overlap(sentence, " ".join(words).split()) for name, words in texts.items()}
    yield Show("overlap", Table("Runs of 8 words that question and training text share", ["text", "shared"], [(name, f"{value:.0%}") for name, value in found.items()]))

    runs = 0.70 + np.sqrt(0.7 * 0.3 / 500) * draw.normal(size=(20_000, params.checkpoints))
    best = float(runs.max(1).mean())
    sizes = (1, 2, 5, 10, 20, 50, 100)
    curve = [(n, float((0.70 + np.sqrt(0.7 * 0.3 / 500) * draw.normal(size=(4000, n))).max(1).mean())) for n in sizes]
    yield Show("best", Chart("The best of n equal checkpoints, 500 questions each", "checkpoints", "reported accuracy", [Series("best", curve), Series("true", [(1, 0.7), (100, 0.7)], baseline=True)], log_x=True))
    yield Say(f"All checkpoints are right in 70 %; the best of {params.checkpoints} reports {best:.1%}.")
    ways = comb(10, 3)
    yield Value("true", last["true"], "of the problems", 0.1)
    yield Value("unbiased", last["unbiased"], "of the problems", 0.1)
    yield Value("naive", last["1 − (1 − c/n)^k"], "of the problems", 0.1)
    yield Value("all", float(right.mean()), "right", 0.05)
    yield Value("clean", float(right[~known].mean()) if (~known).any() else 0.0, "right", 0.1)
    yield Value("best", best, "right", 0.02)
    yield Value("copied", found["copied"], "of the runs", 0)
    yield Value("paraphrased", found["a paraphrase"], "of the runs", 0)
    yield Value("ways", ways, "choices", 0)
    if params.drawn == 10:
        yield Effect("the naive pass@k is too small", last["1 − (1 − c/n)^k"] < last["unbiased"] - 0.01)
        yield Effect("the unbiased one is near the truth", abs(last["unbiased"] - last["true"]) < 0.05)
    if params.leaked >= 0.1:
        yield Effect("a leak raises the score", right.mean() > right[~known].mean() + 0.02)
    yield Effect("copies are found, paraphrases are not", found["copied"] == 1 and found["a paraphrase"] == 0)
    if params.checkpoints >= 10:
        yield Effect("the best of many is luck", best > 0.72)


def overlap(question: list[str], text: list[str], size: int = 8) -> float:
    """The share of the question's runs of words that stand in the text."""
    runs = {tuple(text[at : at + size]) for at in range(len(text) - size + 1)}
    mine = [tuple(question[at : at + size]) for at in range(len(question) - size + 1)]
    return sum(each in runs for each in mine) / len(mine)
