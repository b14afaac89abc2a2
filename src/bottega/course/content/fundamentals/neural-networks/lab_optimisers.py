"""Four optimisers, sixty noisy points.

The same network, the same first weights and the same points, one label in six of them wrong: only the rule of the
step differs. Watch the loss on the points that are learnt from, and on points that are not.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Series, Table
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value

BUDGET = 15
RATES = {"SGD": 0.05, "momentum": 0.05, "RMSprop": 0.01, "Adam": 0.01}


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=600, ge=50, le=3000)
    """Steps, each over all sixty points."""
    noise: float = Field(default=0.15, ge=0, le=0.5)
    """Chance that a training point has the wrong label."""
    factor: float = Field(default=1.0, gt=0, le=20)
    """What all four learning rates are multiplied by."""


def moons(draw: np.random.Generator, count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Two half moons that touch; `noise` of the labels are exchanged."""
    labels = np.arange(count) % 2
    angle = np.pi * draw.random(count)
    x = np.where(labels == 1, np.cos(angle), 1 - np.cos(angle)) - 0.5
    y = np.where(labels == 1, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
    points = np.stack([x, y], 1) + draw.normal(size=(count, 2)) * 0.2
    wrong = draw.random(count) < noise
    return points, np.where(wrong, 1 - labels, labels)


def first_weights(sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Weights and biases of a network of these layers, by He's rule."""
    draw = np.random.default_rng(1)
    made: list[np.ndarray] = []
    for before, after in zip(sizes, sizes[1:], strict=False):
        made += [draw.normal(size=(before, after)) * np.sqrt(2 / before), np.zeros(after)]
    return made


def loss_and_gradients(
    weights: list[np.ndarray], points: np.ndarray, labels: np.ndarray
) -> tuple[float, list[np.ndarray]]:
    """Cross-entropy of a ReLU network, and its gradient by every weight."""
    inputs, x = [], points
    for i in range(0, len(weights), 2):
        inputs.append(x)
        x = x @ weights[i] + weights[i + 1]
        if i + 2 < len(weights):
            x = np.maximum(x, 0)
    scores = x - x.max(1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(log_p)
    gradient[rows, labels] -= 1
    gradient /= len(labels)
    found: list[np.ndarray] = []
    for i in range(len(weights) - 2, -1, -2):
        found = [inputs[i // 2].T @ gradient, gradient.sum(0), *found]
        if i:
            gradient = (gradient @ weights[i].T) * (inputs[i // 2] > 0)
    return float(-log_p[rows, labels].mean()), found


class Rule:
    """One of the four rules, with what it remembers."""

    def __init__(self, name: str, weights: list[np.ndarray]) -> None:
        self.name, self.rate, self.time = name, RATES[name], 0
        self.first, self.second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]

    def step(self, weights: list[np.ndarray], gradients: list[np.ndarray]) -> None:
        """Move the weights."""
        self.time += 1
        for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
            if self.name == "SGD":
                w -= self.rate * g
            elif self.name == "momentum":
                self.first[i] = 0.9 * self.first[i] + g
                w -= self.rate * self.first[i]
            elif self.name == "RMSprop":
                self.second[i] = 0.99 * self.second[i] + 0.01 * g * g
                w -= self.rate * g / (np.sqrt(self.second[i]) + 1e-8)
            else:
                self.first[i] = 0.9 * self.first[i] + 0.1 * g
                self.second[i] = 0.999 * self.second[i] + 0.001 * g * g
                mean, square = self.first[i] / (1 - 0.9**self.time), self.second[i] / (1 - 0.999**self.time)
                w -= self.rate * mean / (np.sqrt(square) + 1e-8)


def run(params: Params) -> Iterator[Event]:
    """Train four times, and hold the losses side by side."""
    points, labels = moons(np.random.default_rng(0), 60, params.noise)
    others, truth = moons(np.random.default_rng(99), 600, params.noise)
    yield Say(f"60 points to learn from, 600 to judge by; in both about {params.noise:.0%} of the labels are wrong.")
    yield Axes("training", "Loss on the sixty points", "step", "nats", log_y=True)
    yield Axes("validation", "Loss on points that are not learnt from", "step", "nats")
    rows, curves, ends, best = [], [], {}, {}
    for place, name in enumerate(RATES):
        weights = first_weights((2, 64, 64, 2))
        rule = Rule(name, weights)
        rule.rate *= params.factor
        loss = judged = 9.0
        lowest, curve = (judged, 0), []
        for step in range(params.steps + 1):
            loss, gradients = loss_and_gradients(weights, points, labels)
            if step % 10 == 0:
                judged = loss_and_gradients(weights, others, truth)[0]
                lowest = min(lowest, (judged, step))
                curve.append((step, judged))
                yield Point("training", name, step, loss)
                yield Point("validation", name, step, judged)
            if step < params.steps:
                rule.step(weights, gradients)
        ends[name], best[name] = (loss, judged), lowest
        curves.append(Series(name, curve))
        rows.append((name, rule.rate, f"{loss:.3f}", f"{judged:.2f}", f"{lowest[0]:.2f}", lowest[1]))
        yield Step(place + 1, len(RATES), f"{name}: {loss:.3f} and {judged:.2f}")
    columns = ["optimiser", "learning rate", "training loss", "validation loss", "its lowest", "at step"]
    yield Show("table", Table(f"After {params.steps} steps", columns, rows))
    yield Show("curves", Chart("Loss on other points", "step", "nats", curves))
    for name, (loss, judged) in ends.items():
        yield Value(f"{name.lower()}_training", loss, "nats", 0.3)
        yield Value(f"{name.lower()}_validation", judged, "nats", 0.3)
        yield Value(f"{name.lower()}_best", best[name][0], "nats", 0.15)
    yield Value("adam_best_step", best["Adam"][1], "steps", 0.6)
    yield Effect("Adam learns the wrong labels by heart: its training loss is below a quarter of SGD's",
                 ends["Adam"][0] < ends["SGD"][0] / 4)
    yield Effect("and it is the worse on other points", ends["Adam"][1] > 1.5 * ends["SGD"][1])
    yield Effect("at its best step it was about as good as SGD ever is", best["Adam"][0] < best["SGD"][0] + 0.08)
