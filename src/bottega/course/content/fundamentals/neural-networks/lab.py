"""A graph that knows its gradient.

A neuron is written as a graph of numbers, and the gradient goes back through it, node by node. Each gradient is held
against a measured slope. Then a whole network of such numbers learns to tell two half moons apart.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value

BUDGET = 20
POINTS = 60


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=60, ge=5, le=200)
    """Steps of gradient descent, each over all points."""
    learning_rate: float = Field(default=0.5, gt=0, le=50)
    """How far a step goes along the gradient."""
    hidden: int = Field(default=8, ge=1, le=16)
    """Neurons in the hidden layer."""


class Number:
    """A number that remembers what it was made of, and how its maker passes a gradient on."""

    def __init__(self, data: float, parents: Sequence["Number"] = (), slopes: Sequence[float] = (), name: str = ""):
        self.data, self.parents, self.slopes, self.name, self.grad = data, parents, slopes, name, 0.0

    def __add__(self, other: "Number") -> "Number":
        return Number(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other: "Number") -> "Number":
        return Number(self.data * other.data, (self, other), (other.data, self.data))

    def tanh(self) -> "Number":
        """tanh, whose slope is 1 − tanh²."""
        t = math.tanh(self.data)
        return Number(t, (self,), (1 - t * t,))

    def backward(self, accumulate: bool = True) -> list["Number"]:
        """Give every number under this one its gradient; returns them, this one first."""
        order: list[Number] = []
        seen: set[int] = set()
        stack: list[tuple[Number, bool]] = [(self, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                order.append(node)
            elif id(node) not in seen:
                seen.add(id(node))
                stack.append((node, True))
                stack.extend((parent, False) for parent in node.parents)
        for node in order:
            node.grad = 0.0
        self.grad = 1.0
        for node in reversed(order):
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                parent.grad = node.grad * slope + (parent.grad if accumulate else 0.0)
        return order[::-1]


def run(params: Params) -> Iterator[Event]:
    """A neuron, a check on random graphs, and a network."""
    yield from _one_neuron()
    yield from _check()
    yield from _moons(params)


def _one_neuron() -> Iterator[Event]:
    inputs = {"w1": 2.0, "x1": 0.5, "w2": -1.0, "x2": 1.5, "b": 0.25, "minus y": -0.5}

    def loss(values: dict[str, float]) -> tuple[Number, dict[str, Number]]:
        n = {name: Number(value, name=name) for name, value in values.items()}
        n["w1·x1"], n["w2·x2"] = n["w1"] * n["x1"], n["w2"] * n["x2"]
        n["z"] = n["w1·x1"] + n["w2·x2"] + n["b"]
        n["a"] = n["z"].tanh()
        n["e"] = n["a"] + n["minus y"]
        n["L"] = n["e"] * n["e"]
        return n["L"], n

    top, nodes = loss(inputs)
    top.backward()
    made = {
        "w1·x1": "w1 times x1", "w2·x2": "w2 times x2", "z": "w1·x1 + w2·x2 + b", "a": "tanh z",
        "e": "a − y", "L": "e times e",
    }  # fmt: skip
    rows, worst, step = [], 0.0, 1e-5
    for name, node in nodes.items():
        measured = ""
        if name in inputs:
            ends = [loss({**inputs, name: inputs[name] + sign * step})[0].data for sign in (1, -1)]
            slope = (ends[0] - ends[1]) / (2 * step)
            worst, measured = max(worst, abs(slope - node.grad)), f"{slope:.4f}"
        rows.append((name, made.get(name, "given"), f"{node.data:.4f}", f"{node.grad:.4f}", measured))
    yield Say("One neuron: z = w1·x1 + w2·x2 + b, a = tanh z, and the loss L = (a − y)².")
    columns = ["node", "made of", "value", "gradient", "measured slope"]
    yield Show("graph", Table("The graph, and the gradient of L by each node", columns, rows))
    yield Value("z", nodes["z"].data, "", 0)
    yield Value("a", nodes["a"].data, "", 1e-6)
    yield Value("e", nodes["e"].data, "", 1e-6)
    yield Value("slope_tanh", 1 - nodes["a"].data ** 2, "", 1e-6)
    yield Value("grad_z", nodes["z"].grad, "", 1e-6)
    yield Value("grad_w1", nodes["w1"].grad, "", 1e-6)
    yield Value("grad_w2", nodes["w2"].grad, "", 1e-6)
    yield Value("loss", top.data, "", 1e-6)
    yield Effect("the gradient of the neuron is the measured slope", worst < 1e-8)


def _check() -> Iterator[Event]:
    """Random graphs in which numbers are used more than once."""
    draw = random.Random(0)
    right = wrong = 0.0
    for _ in range(200):
        plan = [(draw.choice("+*t"), draw.random(), draw.random()) for _ in range(8)]
        start = [draw.uniform(-1, 1) for _ in range(3)]

        def value(given: Sequence[float], plan: list = plan) -> tuple[Number, list[Number]]:
            made = [Number(each) for each in given]
            for kind, first, second in plan:
                one, two = made[int(first * len(made))], made[int(second * len(made))]
                made.append(one + two if kind == "+" else one * two if kind == "*" else one.tanh())
            top = made[-1]
            for each in made[:-1]:
                top = top + each * each
            return top, made[:3]

        measured = [_slope(lambda g: value(g)[0].data, start, i) for i in range(3)]
        for accumulate in (True, False):
            top, leaves = value(start)
            top.backward(accumulate)
            apart = max(abs(a.grad - m) / max(1.0, abs(m)) for a, m in zip(leaves, measured, strict=True))
            if accumulate:
                right = max(right, apart)
            else:
                wrong = max(wrong, apart)
    yield Say(f"200 random graphs: largest error {right:.0e}; with = in place of += it is {wrong:.2f}.")
    yield Value("check", right, "largest relative error", 100)
    yield Value("check_assign", wrong, "largest relative error", 0.1)
    yield Effect("the gradient of every random graph is the measured slope", right < 1e-6)
    yield Effect("a backward pass that forgets to add is far off", wrong > 0.5)


def _slope(function: Callable[[Sequence[float]], float], at: Sequence[float], i: int, step: float = 1e-5) -> float:
    ends = [function([x + sign * step * (j == i) for j, x in enumerate(at)]) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)


def _moons(params: Params) -> Iterator[Event]:
    draw = random.Random(1)
    points = []
    for i in range(POINTS):
        angle, upper = math.pi * draw.random(), i % 2
        x, y = (math.cos(angle), math.sin(angle)) if upper else (1 - math.cos(angle), 0.5 - math.sin(angle))
        points.append((x - 0.5 + draw.gauss(0, 0.1), y - 0.25 + draw.gauss(0, 0.1), 1.0 if upper else -1.0))
    hidden = [[Number(draw.gauss(0, 0.7)) for _ in range(3)] for _ in range(params.hidden)]
    outer = [Number(draw.gauss(0, 1 / math.sqrt(params.hidden))) for _ in range(params.hidden)] + [Number(0.0)]
    weights = [w for row in hidden for w in row] + outer
    yield Axes("moons", "A network of numbers learns two half moons", "step", "mean squared error")
    losses: list[float] = []
    right = size = 0
    for step in range(params.steps + 1):
        total, right = Number(0.0), 0
        for x, y, label in points:
            inputs = (Number(x), Number(y))
            out = outer[-1]
            for row, weight in zip(hidden, outer, strict=False):
                out = out + weight * (row[0] * inputs[0] + row[1] * inputs[1] + row[2]).tanh()
            out = out.tanh()
            error = out + Number(-label)
            total = total + error * error
            right += (out.data > 0) == (label > 0)
        loss = total * Number(1 / POINTS)
        losses.append(loss.data)
        yield Point("moons", "training loss", step, loss.data)
        if step == params.steps:
            break
        size = len(loss.backward())
        for weight in weights:
            weight.data -= params.learning_rate * weight.grad
        yield Step(step + 1, params.steps, f"loss {loss.data:.3f}")
    yield Value("parameters", len(weights), "parameters", 0)
    yield Value("nodes", size, "numbers in the graph", 0)
    yield Value("start", losses[0], "mean squared error", 0.02)
    yield Value("end", losses[-1], "mean squared error", 0.1)
    yield Value("right", right / POINTS, "of the points", 0.05)
    yield Effect("the loss falls to less than half", losses[-1] < losses[0] / 2)
    yield Effect("nine points in ten are on the right side", right >= 0.9 * POINTS)
