"""Eigenvalues decide your learning rate.

A ball rolls down valleys of three shapes, step by step. Which steps are too long is decided by one number of the valley,
and how many steps are needed by another. Then a matrix is multiplied with the same vector again and again.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Heat, Series, Table
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 10


class Params(Config):
    """What can be changed."""

    steepness: float = Field(default=10.0, ge=1.0, le=1000.0)
    """The larger eigenvalue of the valley that is shown; the smaller is 1."""
    rate: float = Field(default=0.19, gt=0.0, le=3.0)
    """Learning rate of the path that is shown."""
    steps: int = Field(default=60, ge=5, le=500)
    """Steps of gradient descent."""


def run(params: Params) -> Iterator[Event]:
    """Descend, sweep the rates, multiply."""
    limit = 2 / params.steepness
    path = descend(np.array([params.steepness, 1.0]), params.rate, params.steps)
    losses = 0.5 * (path**2 @ np.array([params.steepness, 1.0]))
    yield Say(f"The valley is ½ ({params.steepness:g} x² + y²); rates below {limit:.4f} converge.")
    grid = np.linspace(-1.2, 1.2, 25)
    heights = 0.5 * (params.steepness * grid[None, :] ** 2 + grid[:, None] ** 2)
    names = [f"{each:+.1f}" for each in grid]
    yield Show("valley", Heat("The valley, dark where it is low", "y", "x", names, names, np.log1p(heights).round(4).tolist(), inverted=True))
    shown = [Series("x, across", [(t, float(x)) for t, x in enumerate(path[:31, 0])]), Series("y, along", [(t, float(y)) for t, y in enumerate(path[:31, 1])])]
    yield Show("path", Chart(f"Both coordinates at a rate of {params.rate:g}", "step", "place", shown))
    curves, best = [], {}
    for kappa in (1.0, 10.0, 100.0):
        scales = np.array([kappa, 1.0])
        points = []
        for share in np.linspace(0.02, 1.1, 55):
            rate = share * 2 / kappa
            factor = float(np.abs(1 - rate * scales).max())
            points.append((float(share), min(factor, 1.25)))
        curves.append(Series(f"κ = {kappa:g}", points))
        best[kappa] = 2 / (kappa + 1)
    yield Show("cliff", Chart("What is left of the error after a step", "rate, as a share of 2 / λ_max", "factor a step", curves))
    rows = []
    for kappa in (1.0, 10.0, 100.0):
        for rate in (best[kappa], 2 / kappa * 1.01):
            end = descend(np.array([kappa, 1.0]), rate, 200)[-1]
            rows.append((f"{kappa:g}", f"{rate:.4f}", f"{2 / kappa:.4f}", f"{np.linalg.norm(end):.1e}"))
    yield Show("limits", Table("After 200 steps from (1, 1)", ["κ", "rate", "2 / λ_max", "distance from the floor"], rows))

    draw = np.random.default_rng(0)
    q, _ = np.linalg.qr(draw.normal(size=(6, 6)))
    values = np.array([3.0, 2.4, 1.5, 1.0, 0.5, 0.1])
    matrix = q @ np.diag(values) @ q.T
    vector, value, residuals = np.ones(6), 0.0, []
    for step in range(1, 61):
        vector = matrix @ vector
        vector /= np.linalg.norm(vector)
        value = vector @ matrix @ vector
        residuals.append((step, float(np.linalg.norm(matrix @ vector - value * vector))))
    yield Show("power", Chart("Power iteration: |A v − λ v|", "product", "residual", [Series("residual", residuals)], log_y=True))
    shrink = (residuals[40][1] / residuals[20][1]) ** (1 / 20)

    below, above = (descend(np.array([params.steepness, 1.0]), limit * share, 300)[-1] for share in (0.99, 1.01))
    yield Value("limit", limit, "", 0)
    yield Value("end", float(losses[-1]), "loss", 2.0)
    yield Value("best_100", best[100.0], "", 0)
    yield Value("factor_10", 9 / 11, "a step", 0)
    yield Value("factor_100", 99 / 101, "a step", 0)
    yield Value("largest", float(value), "", 1e-6)
    yield Value("shrink", float(shrink), "a product", 0.01)
    yield Effect("one per cent below 2 / λ_max it converges", float(np.abs(below).max()) < 0.1)
    yield Effect("one per cent above it does not", float(np.abs(above).max()) > 10)
    yield Effect("power iteration finds the largest eigenvalue", abs(float(value) - 3.0) < 1e-6)
    yield Effect("its error shrinks by the ratio of the two largest", abs(shrink - 2.4 / 3.0) < 0.01)


def descend(scales, rate: float, steps: int):
    """(steps + 1, 2) the places of gradient descent on ½ Σ scale · x², from (1, 1)."""
    place = np.ones(2)
    places = [place]
    for _ in range(steps):
        place = place - rate * scales * place
        places.append(place)
    return np.array(places)
