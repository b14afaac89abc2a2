"""When a measure becomes a target.

Of n answers the one with the highest reward is taken, and the reward is not quite what was wanted. With few answers the
true quality rises with the reward. With many, what is chosen is what the reward is most wrong about.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Series, Table
from bottega.course.lab import Effect, Event, Say, Show, Step, Value

BUDGET = 15
NUMBERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Params(Config):
    """What can be changed."""

    noise: float = Field(default=0.6, ge=0.0, le=5.0)
    """Size of what the reward gets wrong."""
    tail: float = Field(default=2.0, gt=0.5, le=100.0)
    """How heavy its tail is (Student's degrees of freedom): 2 is heavy, 100 is normal."""
    rounds: int = Field(default=4000, ge=200, le=20000)
    """Draws for each n."""


def run(params: Params) -> Iterator[Event]:
    """Best of n, for more and more n."""
    draw = np.random.default_rng(0)
    true, proxy, mild = [], [], []
    for at, count in enumerate(NUMBERS):
        quality = draw.normal(size=(params.rounds, count))
        error = params.noise * draw.standard_t(params.tail, size=quality.shape)
        light = params.noise * draw.normal(size=quality.shape)
        rows = np.arange(params.rounds)
        best, best_mild = (quality + error).argmax(1), (quality + light).argmax(1)
        true.append(float(quality[rows, best].mean()))
        proxy.append(float((quality + error)[rows, best].mean()))
        mild.append(float(quality[rows, best_mild].mean()))
        yield Step(at + 1, len(NUMBERS), f"best of {count}: {true[-1]:.2f}")
    distances = [float(np.log(n) - (n - 1) / n) for n in NUMBERS]
    lines = [("what was wanted, heavy errors", true), ("what was wanted, normal errors", mild)]
    yield Show("wanted", Chart("What the best of n is worth", "KL from the model, nats", "true quality",
                               [Series(name, list(zip(distances, values, strict=True))) for name, values in lines]))  # fmt: skip
    yield Show("reward", Chart("And what it earns", "KL from the model, nats", "reward, heavy errors", [Series("reward", list(zip(distances, proxy, strict=True)))]))
    rows = [(n, f"{d:.2f}", f"{p:.2f}", f"{t:.2f}", f"{m:.2f}") for n, d, p, t, m in zip(NUMBERS, distances, proxy, true, mild, strict=True)]
    yield Show("table", Table("Best of n", ["n", "KL, nats", "reward", "true quality", "true quality, normal errors"], rows))
    peak = int(np.argmax(true))
    yield Say(f"The peak is at n = {NUMBERS[peak]}, {distances[peak]:.2f} nats from the model.")
    yield Value("peak_n", NUMBERS[peak], "answers", 2.0)
    yield Value("peak", true[peak], "quality", 0.15)
    yield Value("last", true[-1], "quality", 0.6)
    yield Value("proxy_peak", proxy[peak], "reward", 0.5)
    yield Value("proxy_last", proxy[-1], "reward", 0.5)
    yield Value("mild_last", mild[-1], "quality", 0.1)
    yield Value("kl_16", distances[4], "nats", 0)
    if params.noise >= 0.3 and params.tail <= 3:
        yield Effect("the reward always grows", all(b > a for a, b in zip(proxy, proxy[1:], strict=False)))
        yield Effect("what was wanted has a peak, and falls behind it", true[-1] < 0.75 * true[peak])
        yield Effect("with normal errors it does not fall", mild[-1] > 0.95 * max(mild))
