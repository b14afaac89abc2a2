"""What pairs teach: a reward model and its shortcuts.

Raters compare two answers and prefer the better one, mostly; they also like long ones. A reward model is fitted to their
votes, and believes both. The bias is found by a question that has nothing to do with quality, and taken out.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Chart, Series, Table
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 10


class Params(Config):
    """What can be changed."""

    pairs: int = Field(default=4000, ge=100, le=50000)
    """Comparisons by raters."""
    liking: float = Field(default=0.8, ge=0.0, le=4.0)
    """How much raters like length: what one standard deviation of it adds, in logits."""
    mistakes: float = Field(default=0.05, ge=0.0, le=0.5)
    """Share of votes given at random."""


def run(params: Params) -> Iterator[Event]:
    """Votes, two reward models, and what each prefers."""
    draw = np.random.default_rng(0)
    quality, length = draw.normal(size=(2, params.pairs, 2))
    length += 0.3 * quality  # good answers are a little longer, too
    true = np.stack([quality, length], -1)
    logits = (quality[:, 0] - quality[:, 1]) + params.liking * (length[:, 0] - length[:, 1])
    votes = draw.random(params.pairs) < 1 / (1 + np.exp(-logits))
    at_random = draw.random(params.pairs) < params.mistakes
    votes = np.where(at_random, draw.random(params.pairs) < 0.5, votes)
    longer = float(((length[:, 0] > length[:, 1]) == votes).mean())
    better = float(((quality[:, 0] > quality[:, 1]) == votes).mean())
    yield Say(f"Of {params.pairs:,} votes {longer:.0%} went to the longer answer, {better:.0%} to the better one.")

    # What a model sees of an answer: quality through noise, and its length, which is plain.
    seen = true + draw.normal(size=true.shape) * [0.7, 0.0]
    both = fit(seen[:, 0] - seen[:, 1], votes)
    blind = fit((seen[:, 0] - seen[:, 1])[:, :1], votes)
    kept = np.abs(length[:, 0] - length[:, 1]) < 0.3
    matched = fit((seen[:, 0] - seen[:, 1])[kept], votes[kept])
    rows = [("both seen, all pairs", both[0], both[1]), ("pairs of like length only", matched[0], matched[1]), ("length hidden", blind[0], 0.0)]
    yield Show("weights", Table("What each reward model rewards", ["fitted to", "quality", "length"],
                                [(name, f"{a:.2f}", f"{b:.2f}") for name, a, b in rows], note="In logits for one standard deviation."))  # fmt: skip
    fresh_quality, fresh_length = draw.normal(size=(2, 4000, 16))
    fresh_length += 0.3 * fresh_quality
    noisy = fresh_quality + 0.7 * draw.normal(size=fresh_quality.shape)
    found = {}
    for name, a, b in rows:
        best = (a * noisy + b * fresh_length).argmax(1)
        at = np.arange(len(best))
        found[name] = float(fresh_quality[at, best].mean()), float(fresh_length[at, best].mean())
    bars = [Bar(kind, found[name][place], group=name) for name in found for place, kind in enumerate(("quality", "length"))]
    yield Show("chosen", Bars("What the best of sixteen is like", "standard deviations above the mean", bars))

    grid = np.linspace(-3, 3, 25)
    yield Show("curve", Chart("Bradley-Terry: who wins", "difference of the rewards", "probability of the vote",
                              [Series("σ(difference)", [(float(x), float(1 / (1 + np.exp(-x)))) for x in grid])]))  # fmt: skip
    accuracy = float(((seen[:, 0] - seen[:, 1]) @ both > 0).astype(int)[votes].mean() * votes.mean()
                     + ((seen[:, 0] - seen[:, 1]) @ both < 0).astype(int)[~votes].mean() * (~votes).mean())  # fmt: skip
    yield Value("longer", longer, "of the votes", 0.05)
    yield Value("better", better, "of the votes", 0.05)
    yield Value("weight_quality", float(both[0]), "logits", 0.2)
    yield Value("weight_length", float(both[1]), "logits", 0.2)
    yield Value("accuracy", accuracy, "of the votes", 0.05)
    yield Value("length_both", found["both seen, all pairs"][1], "standard deviations", 0.2)
    yield Value("quality_both", found["both seen, all pairs"][0], "standard deviations", 0.2)
    yield Value("length_hidden", found["length hidden"][1], "standard deviations", 0.3)
    yield Value("quality_hidden", found["length hidden"][0], "standard deviations", 0.2)
    if params.liking >= 0.5 and params.pairs >= 2000:
        yield Effect("the reward model has learned to like length", both[1] > 0.3)
        yield Effect("and its favourites are longer, not only better", found["both seen, all pairs"][1] > found["length hidden"][1] + 0.3)
        yield Effect("without the length they are better", found["length hidden"][0] > found["both seen, all pairs"][0] + 0.1)


def fit(differences, votes, steps: int = 300):
    """Weights of the maximum likelihood of votes under P = σ(w · difference), by Newton's method."""
    w = np.zeros(differences.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-differences @ w))
        slope = differences.T @ (p - votes)
        curvature = (differences * (p * (1 - p))[:, None]).T @ differences
        step = np.linalg.solve(curvature, slope)
        w -= step
        if np.abs(step).max() < 1e-9:
            break
    return w
