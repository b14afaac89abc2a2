"""The same network twice.

A network of three layers reads handwritten digits, once with every gradient written out in NumPy, once in PyTorch.
Both begin with the same weights and see the same batches: their losses have to agree. Then three famous mistakes are
put into the PyTorch loop.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value, load_module

BUDGET = 25
BATCH = 64


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=300, ge=20, le=2000)
    """Steps, each over 64 digits."""
    hidden: int = Field(default=64, ge=4, le=256)
    """Neurons in each of the two hidden layers."""


def run(params: Params) -> Iterator[Event]:
    """Train both, compare, and break one."""
    import numpy as np
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    by_hand = load_module(Path(__file__).with_name("lab_optimisers.py"))
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    learnt, labels, others, truth = x[:1200], y[:1200], x[1200:], y[1200:]
    batches = np.random.default_rng(1).integers(0, 1200, (params.steps, BATCH))
    sizes = (64, params.hidden, params.hidden, 10)

    def network(drop: float = 0.0) -> nn.Sequential:
        net = nn.Sequential(
            nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Dropout(drop), nn.Linear(sizes[1], sizes[2]), nn.ReLU(),
            nn.Dropout(drop), nn.Linear(sizes[2], sizes[3]),
        )  # fmt: skip
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), by_hand.first_weights(sizes), strict=True):
                parameter.copy_(torch.tensor(value.T))
        return net

    weights = [each.astype(np.float32) for each in by_hand.first_weights(sizes)]
    rule = by_hand.Rule("Adam", weights)
    rule.rate = 0.003
    net = network()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.003)
    loss_of = nn.CrossEntropyLoss()
    yield Axes("loss", "Both networks, the same digits", "step", "nats", log_y=True)
    apart: list[float] = []
    ours = 0.0
    for step, batch in enumerate(batches):
        inputs, targets = learnt[batch], labels[batch]
        ours, gradients = by_hand.loss_and_gradients(weights, inputs, targets)
        rule.step(weights, gradients)
        theirs = loss_of(net(torch.tensor(inputs)), torch.tensor(targets))
        optimiser.zero_grad()
        theirs.backward()
        optimiser.step()
        apart.append(abs(ours - float(theirs.detach())))
        if step % 10 == 0 or step + 1 == params.steps:
            yield Point("loss", "by hand", step, ours)
            yield Point("loss", "PyTorch", step, float(theirs.detach()))
            yield Step(step + 1, params.steps, f"loss {ours:.4f}")
    with torch.no_grad():
        right = float((net(torch.tensor(others)).argmax(1).numpy() == truth).mean())
    yield Say(f"The losses of the first fifty steps differ by {max(apart[:50]):.0e} at most.")

    def accuracy(mistake: str) -> float:
        torch.manual_seed(0)
        broken = network(0.5 if mistake == "no eval()" else 0.0)
        steps = torch.optim.SGD(broken.parameters(), lr=0.1)
        for batch in batches:
            out = broken(torch.tensor(learnt[batch]))
            if mistake == "softmax before the loss":
                out = out.softmax(1)
            loss = loss_of(out, torch.tensor(labels[batch]))
            if mistake != "no zero_grad()":
                steps.zero_grad()
            loss.backward()
            steps.step()
        broken.train(mistake == "no eval()")
        with torch.no_grad():
            return float((broken(torch.tensor(others)).argmax(1).numpy() == truth).mean())

    mistakes = ("none", "no zero_grad()", "softmax before the loss", "no eval()")
    found = {mistake: accuracy(mistake) for mistake in mistakes}
    rows = [(mistake, f"{found[mistake]:.1%}") for mistake in mistakes]
    note = "Plain SGD with a rate of 0.1; the last row has dropout of one half, still at work while it is judged."
    yield Show("mistakes", Table("Digits that are read rightly", ["mistake", "right"], rows, note))
    yield Value("parameters", sum(each.numel() for each in net.parameters()), "parameters", 0)
    yield Value("apart_early", max(apart[:50]), "nats", 20)
    yield Value("apart", max(apart), "nats", 100)
    yield Value("end", ours, "nats", 0.5)
    yield Value("right", right, "of the digits", 0.02)
    for mistake, name in zip(mistakes, ("none", "no_zero", "softmax", "no_eval"), strict=True):
        yield Value(name, found[mistake], "of the digits", 0.1)
    yield Effect("in the first fifty steps both have the same loss to 5 millionths", max(apart[:50]) < 5e-6)
    yield Effect("they read more than 94 % of new digits", right > 0.94)
    yield Effect("each mistake costs accuracy and raises no error", all(found[m] < found["none"] for m in mistakes[1:]))
