"""What a few throws tell: likelihood, posterior, intervals.

A coin is thrown. The share of heads is the likeliest value and often far off; the posterior says how far. Then a
thousand other coins: how often does an interval that promises 95 % hold what it promises?
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Series, Table
from bottega.course.lab import Effect, Event, Say, Show, Step, Value

BUDGET = 15
SIZES = (5, 10, 20, 50, 100, 400)


class Params(Config):
    """What can be changed."""

    heads: int = Field(default=7, ge=0, le=1000)
    """Heads that were seen."""
    throws: int = Field(default=10, ge=1, le=1000)
    """Throws in all."""
    chance: float = Field(default=0.9, gt=0.0, lt=1.0)
    """The true chance of heads of the thousand coins."""


def run(params: Params) -> Iterator[Event]:
    """The posterior of one coin, then the coverage of intervals over many."""
    heads = min(params.heads, params.throws)
    grid = np.linspace(0.0005, 0.9995, 1000)
    log_likelihood = heads * np.log(grid) + (params.throws - heads) * np.log(1 - grid)
    likelihood = np.exp(log_likelihood - log_likelihood.max())
    prior = grid * (1 - grid)
    posterior = likelihood * prior
    lines = [(name, values / values.sum() * len(grid)) for name, values in
             (("likelihood", likelihood), ("prior Beta(2, 2)", prior), ("posterior", posterior))]  # fmt: skip
    yield Show("posterior", Chart(f"{heads} heads of {params.throws}", "chance of heads", "density",
                                  [Series(name, [(float(grid[at]), float(values[at])) for at in range(0, 1000, 20)]) for name, values in lines]))  # fmt: skip
    best, mean = float(grid[likelihood.argmax()]), float((grid * posterior).sum() / posterior.sum())
    exact = (2 + heads) / (4 + params.throws)
    yield Say(f"The likeliest chance is {best:.3f}, the posterior's mean {mean:.3f}.")

    draw = np.random.default_rng(0)
    covers: dict[str, list[tuple[int, float]]] = {"normal": [], "Wilson": []}
    for at, size in enumerate(SIZES):
        seen = draw.binomial(size, params.chance, 20_000)
        for name, (low, high) in (("normal", normal(seen, size)), ("Wilson", wilson(seen, size))):
            covers[name].append((size, float(((low <= params.chance) & (params.chance <= high)).mean())))
        yield Step(at + 1, len(SIZES))
    lines = [Series(name, values) for name, values in covers.items()]
    lines.append(Series("promised", [(SIZES[0], 0.95), (SIZES[-1], 0.95)], baseline=True))
    yield Show("coverage", Chart(f"How often the interval holds the truth, {params.chance:g}", "throws", "share", lines, log_x=True))
    rows = [(size, f"{dict(covers['normal'])[size]:.1%}", f"{dict(covers['Wilson'])[size]:.1%}") for size in SIZES]
    yield Show("table", Table("Intervals that promise 95 %", ["throws", "p ± 1.96 s", "Wilson"], rows))
    numbers = draw.normal(3.0, 2.0, size=(20_000, 5))
    biased, unbiased = float(numbers.var(1).mean()), float(numbers.var(1, ddof=1).mean())
    means = draw.exponential(size=(4000, 64)).mean(1)
    yield Show("variance", Table("The variance of five numbers, over 20,000 samples; the truth is 4", ["divided by", "mean of the estimates"],
                                 [("n, the likeliest", f"{biased:.3f}"), ("n − 1", f"{unbiased:.3f}")]))  # fmt: skip
    yield Value("best", best, "", 0.01)
    yield Value("mean", mean, "", 0.01)
    yield Value("normal_10", dict(covers["normal"])[10], "of the intervals", 0.05)
    yield Value("normal_100", dict(covers["normal"])[100], "of the intervals", 0.05)
    yield Value("wilson_10", dict(covers["Wilson"])[10], "of the intervals", 0.05)
    yield Value("biased", biased, "", 0.05)
    yield Value("unbiased", unbiased, "", 0.05)
    yield Value("spread_64", float(means.std()), "", 0.1)
    yield Effect("the posterior's mean is (2 + heads) / (4 + throws)", abs(mean - exact) < 1e-3)
    if params.chance == 0.9:
        yield Effect("of ten throws the usual interval holds far less than it promises", dict(covers["normal"])[10] < 0.75)
        yield Effect("Wilson's holds it", dict(covers["Wilson"])[10] > 0.92)
    yield Effect("dividing by n gives four fifths of the variance", abs(biased / 4 - 0.8) < 0.03)
    yield Effect("a mean of 64 spreads an eighth as far as one number", abs(float(means.std()) - 1 / 8) < 0.01)


def normal(heads, size: int):
    """p ± 1.96 √(p (1 − p) / n)."""
    p = heads / size
    width = 1.96 * np.sqrt(p * (1 - p) / size)
    return p - width, p + width


def wilson(heads, size: int):
    """Wilson's score interval (1927)."""
    p, z = heads / size, 1.96
    middle = (p + z * z / (2 * size)) / (1 + z * z / size)
    width = z * np.sqrt(p * (1 - p) / size + z * z / (4 * size * size)) / (1 + z * z / size)
    return middle - width, middle + width
