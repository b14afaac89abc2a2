"""Surprise, counted.

How many nats does a word cost? The stories' words are guessed by four models, from one that knows nothing to the grammar
that made them. Each pays the entropy and, on top, what it does not know: its divergence.
"""

import math
from collections import Counter
from collections.abc import Iterator

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Chart, Series, Table
from bottega.course import world
from bottega.course.lab import Effect, Event, Show, Value

BUDGET = 15


class Params(Config):
    """What can be changed."""

    stories: int = Field(default=2000, ge=20, le=10000)
    """Stories that the counting models have read."""


def run(params: Params) -> Iterator[Event]:
    """Cross-entropies of four models on new stories."""
    seen = [["<s>", *story.words] for story in world.stories(0, params.stories)]
    fresh = list(world.stories(99, 500))
    vocabulary = sorted({word for story in seen for word in story[1:]} | {word for story in fresh for word in story.words})
    size = len(vocabulary)
    ones = Counter(word for story in seen for word in story[1:])
    total = sum(ones.values())
    costs = {"each word alike": math.log(size), "how often each occurs": 0.0, "the word before": 0.0, "the two words before": 0.0}
    tables = {n: Counter(tuple(story[at - n : at + 1]) for story in seen for at in range(n, len(story))) for n in (1, 2)}
    before = {n: Counter(key[:-1] for key in tables[n].elements()) for n in tables}
    words = sum(len(story.words) for story in fresh)

    def single(word: str) -> float:
        return (ones[word] + 0.01) / (total + 0.01 * size)

    def given(context: tuple[str, ...], word: str) -> float:
        n = len(context)
        if not n:
            return single(word)
        count = before[n][context]
        return (tables[n][*context, word] + 0.5 * given(context[1:], word)) / (count + 0.5)

    for story in fresh:
        row = ["<s>", *story.words]
        for at in range(1, len(row)):
            costs["how often each occurs"] -= math.log(single(row[at])) / words
            costs["the word before"] -= math.log(given((row[at - 1],), row[at])) / words
            context = tuple(row[max(0, at - 2) : at])
            costs["the two words before"] -= math.log(given(context, row[at])) / words
    truth = -sum(story.log_probability for story in fresh) / words
    costs["the grammar itself"] = truth
    bars = [Bar(name, value, reference=truth) for name, value in costs.items()]
    yield Show("costs", Bars("Cross-entropy of 500 new stories", "nats a word", bars, reference_label="entropy"))
    rows = [(name, f"{value:.3f}", f"{value - truth:.3f}", f"{math.exp(value):.2f}", f"{value / math.log(2):.2f}") for name, value in costs.items()]
    columns = ["model", "cross-entropy, nats", "of it divergence", "perplexity", "in bits"]
    yield Show("table", Table("What a word costs", columns, rows))
    points = [(p / 100, entropy(p / 100)) for p in range(1, 100)]
    yield Show("coin", Chart("The entropy of a coin", "chance of heads", "nats", [Series("entropy", points)]))
    p, q = [0.5, 0.25, 0.25], [0.8, 0.1, 0.1]
    one, other = kl(p, q), kl(q, p)
    yield Show("directions", Table("Divergence has a direction", ["", "nats"], [("p = (½, ¼, ¼) from q = (0.8, 0.1, 0.1)", f"{one:.4f}"), ("q from p", f"{other:.4f}")]))
    for name, key in (("each word alike", "uniform"), ("how often each occurs", "unigram"), ("the word before", "bigram"), ("the two words before", "trigram"), ("the grammar itself", "truth")):
        yield Value(key, costs[name], "nats a word", 0.05)
    yield Value("exact", world.entropy_per_token(), "nats a word", 0)
    yield Value("vocabulary", size, "words", 0)
    yield Value("kl_pq", one, "nats", 0)
    yield Value("kl_qp", other, "nats", 0)
    yield Effect("whoever knows more pays less", list(costs.values()) == sorted(costs.values(), reverse=True))
    yield Effect("nobody pays less than the grammar", min(costs.values()) == truth)
    yield Effect("its cost on 500 stories is the entropy to 3 %", abs(truth - world.entropy_per_token()) < 0.03 * truth)
    yield Effect("the two directions of a divergence differ", abs(one - other) > 0.01)


def entropy(p: float) -> float:
    """Of a coin, in nats."""
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def kl(p, q) -> float:
    """Σ p ln(p / q)."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
