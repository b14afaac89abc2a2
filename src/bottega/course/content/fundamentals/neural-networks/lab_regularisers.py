"""What keeps a network from learning by heart.

The network and the sixty points of the optimisers, always with Adam. Each run has one measure against overfitting, and
all are judged on the same six hundred points.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Table
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value, load_module

BUDGET = 25
MEASURES = ("nothing", "L2", "L1", "dropout", "augmentation")


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=600, ge=50, le=2000)
    """Steps, each over all sixty points."""
    l2: float = Field(default=0.01, ge=0, le=1)
    """Factor of the sum of squares of the weights."""
    l1: float = Field(default=0.005, ge=0, le=1)
    """Factor of the sum of absolute weights."""
    dropout: float = Field(default=0.5, ge=0, le=0.9)
    """Chance that a hidden neuron is silent for a step."""
    jitter: float = Field(default=0.3, ge=0, le=2)
    """Augmentation: standard deviation of what is added to the points, anew in each step."""


def run(params: Params) -> Iterator[Event]:
    """Train with each measure, and compare."""
    import numpy as np
    import torch
    from torch import nn

    data = load_module(Path(__file__).with_name("lab_optimisers.py"))
    points, labels = map(torch.tensor, data.moons(np.random.default_rng(0), 60, 0.15))
    others, truth = map(torch.tensor, data.moons(np.random.default_rng(99), 600, 0.15))
    first = data.first_weights((2, 64, 64, 2))
    loss_of = nn.CrossEntropyLoss()
    yield Axes("curves", "Loss on points that are not learnt from", "step", "nats")
    rows, ends = [], {}
    for place, measure in enumerate(MEASURES):
        torch.manual_seed(0)
        drop = params.dropout if measure == "dropout" else 0.0
        net = nn.Sequential(
            nn.Linear(2, 64), nn.ReLU(), nn.Dropout(drop), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(drop),
            nn.Linear(64, 2),
        ).double()  # fmt: skip
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), first, strict=True):
                parameter.copy_(torch.tensor(value.T))
        matrices = [each for each in net.parameters() if each.dim() == 2]
        optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
        training = judged = lowest = 9.0
        at = 0
        for step in range(params.steps + 1):
            if step % 10 == 0:
                net.eval()
                with torch.no_grad():
                    training, judged = float(loss_of(net(points), labels)), float(loss_of(net(others), truth))
                lowest, at = min((lowest, at), (judged, step))
                yield Point("curves", measure, step, judged)
            net.train()
            inputs = points + params.jitter * torch.randn_like(points) if measure == "augmentation" else points
            loss = loss_of(net(inputs), labels)
            if measure == "L2":
                loss = loss + params.l2 * sum((w**2).sum() for w in matrices)
            if measure == "L1":
                loss = loss + params.l1 * sum(w.abs().sum() for w in matrices)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        size = torch.cat([w.detach().flatten() for w in matrices])
        small = float((size.abs() < 1e-2).double().mean())
        ends[measure] = (training, judged, lowest, at, small, float(size.norm()))
        rows.append((measure, f"{training:.3f}", f"{judged:.2f}", f"{float(size.norm()):.1f}", f"{small:.0%}"))
        yield Step(place + 1, len(MEASURES), f"{measure}: {judged:.2f}")
    lowest, at = ends["nothing"][2:4]
    rows.append(("early stopping", "", f"{lowest:.2f}", "", ""))
    yield Say(f"Early stopping is the run with no measure, as it was at step {at}: it costs nothing but a look.")
    columns = ["measure", "training loss", "validation loss", "norm of the weights", "weights below 0.01"]
    yield Show("table", Table(f"After {params.steps} steps", columns, rows))
    bars = [Bar(name, ends[name][1], baseline=name == "nothing") for name in MEASURES]
    yield Show("bars", Bars("Loss on other points", "nats", [*bars, Bar("early stopping", lowest)]))
    for name in MEASURES:
        yield Value(f"{name.lower()}_training", ends[name][0], "nats", 0.4)
        yield Value(f"{name.lower()}_validation", ends[name][1], "nats", 0.3)
    yield Value("stopped", lowest, "nats", 0.15)
    yield Value("stopped_at", at, "steps", 1)
    yield Value("l1_small", ends["L1"][4], "of the weights", 0.1)
    yield Value("l2_small", ends["L2"][4], "of the weights", 0.3)
    yield Value("nothing_norm", ends["nothing"][5], "", 0.3)
    yield Value("l2_norm", ends["L2"][5], "", 0.3)
    for name in MEASURES[1:]:
        yield Effect(f"{name} is better on other points than nothing", ends[name][1] < 0.8 * ends["nothing"][1])
    yield Effect("stopping early is, too", lowest < 0.5 * ends["nothing"][1])
    yield Effect("L2 makes the weights smaller", ends["L2"][5] < 0.6 * ends["nothing"][5])
    yield Effect("L1 makes most of them nothing", ends["L1"][4] > 0.6 and ends["L1"][4] > ends["nothing"][4] + 0.3)
