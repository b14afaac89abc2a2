"""Through twenty layers.

The same numbers go through twenty layers of 128 neurons, with different activation functions and different first
weights. How large are they at the end, and how large is the gradient that comes back to the first layer?
"""

import math
from collections.abc import Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Value

BUDGET = 10
ROWS = 256


class Params(Config):
    """What can be changed."""

    layers: int = Field(default=20, ge=2, le=60)
    """Layers in a row."""
    width: int = Field(default=128, ge=8, le=512)
    """Neurons in each."""


ACTIVATIONS = {
    "none": (lambda z: z, lambda z: np.ones_like(z)),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))) ** 2),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "ReLU": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float)),
}


def run(params: Params) -> Iterator[Event]:
    """Send numbers forward and gradients back."""
    scales = {
        "0.01": 0.01,
        "1": 1.0,
        "Xavier": math.sqrt(1 / params.width),
        "He": math.sqrt(2 / params.width),
    }
    shown = {
        ("ReLU", "0.01"): "ReLU, 0.01",
        ("ReLU", "Xavier"): "ReLU, Xavier",
        ("ReLU", "He"): "ReLU, He",
        ("tanh", "Xavier"): "tanh, Xavier",
    }
    yield Axes("sizes", "How large the numbers are after each layer", "layer", "root mean square", log_y=True)
    ends: dict[tuple[str, str], tuple[float, float, float]] = {}
    for activation in ACTIVATIONS:
        for scale, deviation in scales.items():
            sizes, back, flat = _through(params, activation, deviation)
            ends[activation, scale] = (sizes[-1], back, flat)
            for layer, size in enumerate(sizes):
                if (activation, scale) in shown:
                    yield Point("sizes", shown[activation, scale], layer, max(size, 1e-40))
    rows = [
        (activation, scale, f"{ends[activation, scale][0]:.1e}", f"{ends[activation, scale][1]:.1e}",
         f"{ends[activation, scale][2]:.0%}")
        for activation in ACTIVATIONS for scale in scales
    ]  # fmt: skip
    columns = ["activation", "standard deviation of the weights", "size at the end", "gradient at the start", "flat"]
    note = "Gradient: how large the gradient at the input is, where the one at the output is 1. Flat: slope below 0.01."
    yield Show("table", Table(f"After {params.layers} layers of {params.width} neurons", columns, rows, note))
    yield Say("Xavier is the square root of 1/n, He of 2/n, where n is the number of inputs of a neuron.")
    for activation, scale, name in (
        ("ReLU", "0.01", "relu_small"), ("ReLU", "1", "relu_one"), ("ReLU", "Xavier", "relu_xavier"),
        ("ReLU", "He", "relu_he"), ("tanh", "Xavier", "tanh_xavier"), ("sigmoid", "Xavier", "sigmoid_xavier"),
    ):  # fmt: skip
        yield Value(name, ends[activation, scale][0], "root mean square", 0.3)
        yield Value(f"{name}_back", ends[activation, scale][1], "gradient at the input", 0.5)
    yield Value("tanh_flat", ends["tanh", "1"][2], "of the neurons", 0.1)
    yield Effect("with He's weights ReLU neither dies out nor explodes", 0.1 < ends["ReLU", "He"][0] < 10)
    yield Effect("with half their variance it loses a hundredfold", ends["ReLU", "Xavier"][0] < ends["ReLU", "He"][0] / 100)
    yield Effect("weights of 0.01 end in nothing", ends["ReLU", "0.01"][0] < 1e-10)
    yield Effect("weights of 1 explode", ends["ReLU", "1"][0] > 1e10)
    yield Effect("sigmoid's gradient is gone", ends["sigmoid", "Xavier"][1] < 1e-8)
    yield Effect("weights of 1 leave most of tanh's neurons flat", ends["tanh", "1"][2] > 0.6)


def _through(params: Params, activation: str, deviation: float) -> tuple[list[float], float, float]:
    draw = np.random.default_rng(0)
    function, slope = ACTIVATIONS[activation]
    x = draw.normal(size=(ROWS, params.width))
    sizes, kept = [_size(x)], []
    for _ in range(params.layers):
        weights = draw.normal(size=(params.width, params.width)) * deviation
        z = x @ weights
        kept.append((weights, slope(z)))
        x = function(z)
        sizes.append(_size(x))
    gradient = draw.normal(size=x.shape)
    first = _size(gradient)
    for weights, slopes in reversed(kept):
        gradient = (gradient * slopes) @ weights.T
    return sizes, _size(gradient) / first, float(np.mean([s < 0.01 for _, s in kept]))


def _size(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))
