"""Who remembers the first word?

A network reads a word that matters, then noise, then has to say the word. A plain recurrent network, a GRU and an LSTM
learn it for short and long delays. Then the gradient at the first word is measured before any training: it tells what
each of them could have learned.
"""

from collections.abc import Iterator

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Chart, Series, Table
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value

BUDGET = 40
SYMBOLS, NOISE, HIDDEN, BATCH = 4, 4, 32, 64
KINDS = ("RNN", "GRU", "LSTM")


class Params(Config):
    """What can be changed."""

    short: int = Field(default=8, ge=1, le=40)
    """Words of noise, the first time."""
    long: int = Field(default=40, ge=1, le=100)
    """Words of noise, the second time."""
    steps: int = Field(default=250, ge=20, le=2000)
    """Steps of training."""
    forget_bias: float = Field(default=3.0, ge=-5.0, le=10.0)
    """What the LSTM's forget gate begins with: 3 means that 95 % are kept at each step."""


def run(params: Params) -> Iterator[Event]:
    """Train each on both delays, then measure gradients."""
    import torch

    yield Say(f"One of {SYMBOLS} words, then noise. Guessing is right in {1 / SYMBOLS:.0%}.")
    yield Axes("accuracy", f"A delay of {params.long} words", "step", "share remembered", floors={"guessing": 1 / SYMBOLS})
    accuracy: dict[tuple[str, int], float] = {}
    done = 0
    for delay in (params.short, params.long):
        for kind in KINDS:
            for step, value in train(kind, delay, params):
                if delay == params.long:
                    yield Point("accuracy", kind, step, value)
                accuracy[kind, delay] = value
            done += 1
            yield Step(done, 2 * len(KINDS), f"{kind}, {delay} words of noise: {accuracy[kind, delay]:.0%}")
    bars = [Bar(kind, accuracy[kind, delay], group=f"{delay} words of noise", reference=1 / SYMBOLS)
            for delay in (params.short, params.long) for kind in KINDS]  # fmt: skip
    yield Show("remembered", Bars("What was remembered", "share of 512 new sequences", bars, percent=True, reference_label="guessing"))

    delays = (1, 2, 5, 10, 20, 40, 80)
    lines, norms = [], {}
    for kind in KINDS:
        torch.manual_seed(1)
        network = Network(kind, params.forget_bias)
        points = [(delay, gradient_norm(network, delay)) for delay in delays]
        norms[kind] = dict(points)
        lines.append(Series(kind, points))
    yield Show("gradients", Chart("Gradient at the first word, before training", "words of noise", "norm", lines, log_y=True))
    rows = [(delay, *(f"{norms[kind][delay]:.1e}" for kind in KINDS)) for delay in delays]
    yield Show("norms", Table("The same numbers", ["words of noise", *KINDS], rows))
    shrinks = (norms["RNN"][80] / norms["RNN"][20]) ** (1 / 60)
    for kind in KINDS:
        yield Value(f"short_{kind.lower()}", accuracy[kind, params.short], "remembered", 0.5)
        yield Value(f"long_{kind.lower()}", accuracy[kind, params.long], "remembered", 1.0)
        yield Value(f"norm_{kind.lower()}", norms[kind][80], "norm at 80 words", 1e6)
    yield Value("shrinks", shrinks, "a step", 0.2)
    if params.forget_bias >= 2 and params.steps >= 200 and params.long >= 30:
        yield Effect("over a long delay the plain network does no better than guessing", accuracy["RNN", params.long] < 0.5)
        yield Effect("the LSTM remembers", accuracy["LSTM", params.long] > 0.9)
        yield Effect("the plain network's gradient vanishes", norms["RNN"][80] < 1e-9)
        yield Effect("that of the LSTM does not", norms["LSTM"][80] > 1e-6)


def Network(kind: str, forget_bias: float):  # noqa: N802 (it makes one)
    """A recurrent layer of one kind over embedded words, and a head."""
    import torch

    class _Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(SYMBOLS + NOISE, HIDDEN)
            self.layer = getattr(torch.nn, kind)(HIDDEN, HIDDEN, batch_first=True)
            self.head = torch.nn.Linear(HIDDEN, SYMBOLS)
            if kind == "LSTM":  # torch orders the gates: input, forget, cell, output
                with torch.no_grad():
                    self.layer.bias_hh_l0[HIDDEN : 2 * HIDDEN] = forget_bias
                    self.layer.bias_ih_l0[HIDDEN : 2 * HIDDEN] = 0

        def forward(self, embedded):
            return self.head(self.layer(embedded)[0][:, -1])

    return _Network()


def sequences(count: int, delay: int, generator):
    """(count, 1 + delay) words, and the first one of each."""
    import torch

    first = torch.randint(SYMBOLS, (count, 1), generator=generator)
    noise = torch.randint(SYMBOLS, SYMBOLS + NOISE, (count, delay), generator=generator)
    return torch.cat([first, noise], 1), first[:, 0]


def train(kind: str, delay: int, params):
    """Train, and yield the share remembered now and then."""
    import torch

    torch.manual_seed(0)
    network, generator = Network(kind, params.forget_bias), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    tests, truth = sequences(512, delay, torch.Generator().manual_seed(1))
    for step in range(1, params.steps + 1):
        words, first = sequences(BATCH, delay, generator)
        loss = torch.nn.functional.cross_entropy(network(network.embedding(words)), first)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step % 25 == 0 or step == params.steps:
            with torch.no_grad():
                yield step, float((network(network.embedding(tests)).argmax(1) == truth).float().mean())


def gradient_norm(network, delay: int) -> float:
    """The norm of the gradient of the loss with respect to the first word's vector, mean over 32 sequences."""
    import torch

    words, first = sequences(32, delay, torch.Generator().manual_seed(2))
    embedded = network.embedding(words).detach().double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(network.double()(embedded), first, reduction="sum")
    loss.backward()
    return float(embedded.grad[:, 0].norm(dim=1).mean())
