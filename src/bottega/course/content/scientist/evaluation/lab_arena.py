"""Votes, ratings and a judge that is not fair.

Four models of known strength play against each other. Their ratings are fitted to the votes, with intervals; Elo's depend
on the order. Then a judge votes who likes what is shown first and what is long, and is asked twice.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Chart, Series, Table
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 15
TRUE = np.array([0.0, 0.5, 1.0, 1.5])
NAMES = ("A", "B", "C", "D")


class Params(Config):
    """What can be changed."""

    votes: int = Field(default=1200, ge=100, le=20000)
    """Votes in the arena."""
    first: float = Field(default=0.8, ge=-3.0, le=3.0)
    """How much the judge likes the answer that is shown first, in logits."""
    length: float = Field(default=0.6, ge=-3.0, le=3.0)
    """How much the judge likes the longer answer, for one standard deviation of length."""


def run(params: Params) -> Iterator[Event]:
    """Rate by votes, then let the judge vote."""
    from bottega.evaluate.arena.bradley_terry import expected_score, fit_strengths

    draw = np.random.default_rng(0)
    first, second = pairs(draw, params.votes)
    won = draw.random(params.votes) < 1 / (1 + np.exp(TRUE[second] - TRUE[first]))
    fitted = fit_strengths(wins(first, second, won)) if len(TRUE) else TRUE
    fitted = fitted - fitted[0]
    samples = []
    for _ in range(300):
        chosen = draw.integers(params.votes, size=params.votes)
        each = fit_strengths(wins(first[chosen], second[chosen], won[chosen]))
        samples.append(each - each[0])
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    bars = [Bar(name, float(fitted[at]), float(low[at]), float(high[at]), reference=float(TRUE[at])) for at, name in enumerate(NAMES)]
    yield Show("ratings", Bars(f"Bradley-Terry from {params.votes:,} votes", "strength, A = 0", bars, reference_label="true", from_zero=False))
    held = sum(low[at] <= TRUE[at] <= high[at] for at in range(1, 4))
    ends = []
    for order in range(30):
        places = np.random.default_rng(order).permutation(params.votes)
        ends.append(elo(first[places], second[places], won[places]))
    ends = np.array(ends)
    spread = float((ends[:, 3] - ends[:, 0]).max() - (ends[:, 3] - ends[:, 0]).min())
    rows = [(name, f"{ends[:, at].mean():.0f}", f"{ends[:, at].min():.0f} to {ends[:, at].max():.0f}") for at, name in enumerate(NAMES)]
    yield Show("elo", Table("Elo with K = 32: the same votes in thirty orders", ["model", "mean", "from, to"], rows))
    gaps = list(range(0, 801, 50))
    yield Show("curve", Chart("What a difference of ratings means", "rating points", "expected score", [Series("1 / (1 + 10^(−d/400))", [(gap, float(expected_score(gap))) for gap in gaps])]))

    count = 4000
    quality, lengths = draw.normal(size=(2, count, 2))
    quality[:, 1] -= 0.4  # the second of the two models is worse, and writes more
    lengths[:, 1] += 1.0
    logit = quality[:, 0] - quality[:, 1] + params.length * (lengths[:, 0] - lengths[:, 1])
    once = draw.random(count) < 1 / (1 + np.exp(-(logit + params.first)))
    again = draw.random(count) < 1 / (1 + np.exp(-(logit - params.first)))  # the same pair, shown the other way round
    fair = float((1 / (1 + np.exp(-(quality[:, 0] - quality[:, 1])))).mean())
    shown_second = float((draw.random(count) < 1 / (1 + np.exp(-(logit - params.first)))).mean())
    both = float((once.mean() + again.mean()) / 2)
    agree = float((once == again).mean())
    X = np.stack([np.ones(count), lengths[:, 0] - lengths[:, 1]], 1)
    weights = logistic(X, once.astype(float), again.astype(float))
    corrected = float(1 / (1 + np.exp(-weights[0])))
    rows = [("A shown first", f"{once.mean():.1%}"), ("A shown second", f"{shown_second:.1%}"), ("both orders, mean", f"{both:.1%}"),
            ("both orders, at equal length", f"{corrected:.1%}"), ("what a fair judge says", f"{fair:.1%}")]  # fmt: skip
    yield Show("judge", Table("How often the judge prefers A, which is better and briefer", ["how it was asked", "A wins"], rows))
    yield Say(f"Asked twice, with the order exchanged, the judge agrees with itself in {agree:.0%} of the pairs.")
    yield Value("rating_d", float(fitted[3]), "logits", 0.2)
    yield Value("width_d", float(high[3] - low[3]), "logits", 0.3)
    yield Value("elo_spread", spread, "points", 0.5)
    yield Value("first", float(once.mean()), "of the votes", 0.1)
    yield Value("second", shown_second, "of the votes", 0.1)
    yield Value("both", both, "of the votes", 0.1)
    yield Value("corrected", corrected, "of the votes", 0.1)
    yield Value("fair", fair, "of the votes", 0.1)
    yield Value("agree", agree, "of the pairs", 0.1)
    yield Effect("at least two of three intervals hold the truth", held >= 2)
    yield Effect("Elo depends on the order of the votes", spread > 30)
    if params.first >= 0.5 and params.length >= 0.4:
        yield Effect("exchanging the order takes the place's advantage out", abs(both - (once.mean() + shown_second) / 2) < 0.03)
        yield Effect("and leaves that of length", both < fair - 0.05)
        yield Effect("accounting for length brings it near the fair share", abs(corrected - fair) < abs(both - fair) / 2)


def pairs(draw, count: int):
    """Two different models for each vote."""
    first = draw.integers(4, size=count)
    return first, (first + draw.integers(1, 4, size=count)) % 4


def wins(first, second, won):
    """The matrix of wins (4, 4): how often the row beat the column."""
    table = np.zeros((4, 4))
    np.add.at(table, (np.where(won, first, second), np.where(won, second, first)), 1)
    return table


def elo(first, second, won, k: float = 32.0):
    """Ratings after all votes in their order."""
    ratings = np.full(4, 1000.0)
    for a, b, result in zip(first, second, won, strict=True):
        change = k * (float(result) - 1 / (1 + 10 ** ((ratings[b] - ratings[a]) / 400)))
        ratings[a] += change
        ratings[b] -= change
    return ratings


def logistic(x, *votes):
    """Weights of a logistic regression on all votes, by Newton's method."""
    w = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ w))
        slope = sum(x.T @ (p - each) for each in votes)
        w -= np.linalg.solve(len(votes) * (x * (p * (1 - p))[:, None]).T @ x, slope)
    return w
