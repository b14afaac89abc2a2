"""Who remembers the first word?

A network reads one of eight signs, then noise, and has to say at the end which sign it was. A plain recurrent network,
a GRU and an LSTM try, over ten words and over thirty. Then the gradient that reaches the first word is measured.
"""

import math
from collections.abc import Iterator

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value

BUDGET = 40
SIGNS, NOISE, HIDDEN, BATCH = 8, 4, 32, 64
NEAR = 10


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=500, ge=20, le=2000)
    """Optimiser steps of 64 sequences."""
    forget_bias: float = Field(default=3.0, ge=-5, le=10)
    """Bias of the LSTM's forget gate at the start."""
    far: int = Field(default=30, ge=11, le=100)
    """Words between the sign and the question, in the harder of two tasks."""


def run(params: Params) -> Iterator[Event]:
    """Train six networks, then look at gradients of new ones."""
    import torch
    from torch import nn

    class Reader(nn.Module):
        """Reads signs, and scores them at the end."""

        def __init__(self, kind: str) -> None:
            super().__init__()
            self.embed = nn.Embedding(SIGNS + NOISE, HIDDEN)
            self.cell = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}[kind](HIDDEN, HIDDEN, batch_first=True)
            self.out = nn.Linear(HIDDEN, SIGNS)
            if kind == "LSTM":
                with torch.no_grad():  # the gates are in the order input, forget, cell, output
                    self.cell.bias_ih_l0[HIDDEN : 2 * HIDDEN] = params.forget_bias
                    self.cell.bias_hh_l0[HIDDEN : 2 * HIDDEN] = 0

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.out(self.cell(inputs)[0][:, -1])

    def sequences(draw: torch.Generator, count: int, delay: int) -> tuple[torch.Tensor, torch.Tensor]:
        sign = torch.randint(0, SIGNS, (count,), generator=draw)
        noise = torch.randint(SIGNS, SIGNS + NOISE, (count, delay), generator=draw)
        return torch.cat([sign[:, None], noise], 1), sign

    accuracy: dict[tuple[str, str], float] = {}
    done = 0
    delays = {"near": NEAR, "far": params.far}
    for place, delay in delays.items():
        yield Axes(place, f"With {delay} words in between", "step", "nats", floors={"ln 8": math.log(SIGNS)})
        for kind in ("RNN", "GRU", "LSTM"):
            torch.manual_seed(0)
            net, draw = Reader(kind), torch.Generator().manual_seed(1)
            optimiser = torch.optim.Adam(net.parameters(), lr=0.005)
            for step in range(params.steps):
                tokens, sign = sequences(draw, BATCH, delay)
                loss = nn.functional.cross_entropy(net(net.embed(tokens)), sign)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimiser.step()
                if step % 20 == 0:
                    yield Point(place, kind, step, float(loss.detach()))
            with torch.no_grad():
                tokens, sign = sequences(torch.Generator().manual_seed(9), 1000, delay)
                accuracy[kind, place] = float((net(net.embed(tokens)).argmax(1) == sign).float().mean())
            done += 1
            yield Step(done, 6, f"{kind} over {delay}: {accuracy[kind, place]:.0%}")
    rows = [(kind, *(f"{accuracy[kind, place]:.0%}" for place in delays)) for kind in ("RNN", "GRU", "LSTM")]
    columns = ["network", *(f"{delay} words between" for delay in delays.values())]
    yield Show("table", Table(f"The first word is known; chance is {1 / SIGNS:.1%}", columns, rows))

    yield Axes("gradient", "Gradient that reaches the first word, before training", "words read", "norm", log_y=True)
    norms: dict[tuple[str, int], float] = {}
    for kind in ("RNN", "GRU", "LSTM"):
        torch.manual_seed(0)
        net = Reader(kind).double()
        for length in (1, 5, 10, 20, 40, 60, 80):
            tokens, sign = sequences(torch.Generator().manual_seed(2), BATCH, length - 1)
            inputs = net.embed(tokens).detach().requires_grad_()
            state = net.cell(inputs)[1]
            last = state[1] if kind == "LSTM" else state  # an LSTM's memory is its cell
            last.sum().backward()
            assert inputs.grad is not None
            norms[kind, length] = float(inputs.grad[:, 0].norm(dim=1).mean())
            yield Point("gradient", kind, length, max(norms[kind, length], 1e-30))
    yield Say(f"Over 80 words: RNN {norms['RNN', 80]:.0e}, GRU {norms['GRU', 80]:.0e}, LSTM {norms['LSTM', 80]:.2f}.")
    for kind in ("RNN", "GRU", "LSTM"):
        for place in delays:
            yield Value(f"{kind.lower()}_{place}", accuracy[kind, place], "of the first words", 1.5 if kind == "RNN" else 0.05)
        yield Value(f"{kind.lower()}_gradient", norms[kind, 80], "norm", 1)
        yield Value(f"{kind.lower()}_gradient_1", norms[kind, 1], "norm", 0.2)
    yield Value("rnn_factor", (norms["RNN", 80] / norms["RNN", 40]) ** (1 / 40), "per word", 0.05)
    yield Effect("over the longer distance GRU and LSTM know the first word", min(accuracy["GRU", "far"], accuracy["LSTM", "far"]) > 0.95)
    yield Effect("the plain network does not", accuracy["RNN", "far"] < 0.6)
    yield Effect("its gradient is gone after eighty words", norms["RNN", 80] < 1e-10)
    yield Effect("through the LSTM's cell it is still there", norms["LSTM", 80] > 1e6 * norms["RNN", 80])
