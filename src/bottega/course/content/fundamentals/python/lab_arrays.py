"""The same distances, without a loop.

All distances between the rows of two tables, computed in three ways: with loops, by broadcasting, and with one matrix
product. The results agree; the times and the memory do not. Then a shape that is wrong, and that nothing complains of.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value

BUDGET = 8


class Params(Config):
    """What can be changed."""

    rows: int = Field(default=400, ge=50, le=1000)
    """Rows of the larger table."""
    columns: int = Field(default=16, ge=1, le=64)
    """Columns of both tables. Try 1, and 64."""


def run(params: Params) -> Iterator[Event]:
    """Time the three ways at growing sizes, then make the classic mistake of shapes."""
    draw = np.random.default_rng(0)
    ways: dict[str, Callable] = {"loops": by_loops, "broadcasting": by_broadcasting, "matrix product": by_product}
    sizes = sorted({max(params.rows // 8, 10), max(params.rows // 4, 10), max(params.rows // 2, 10), params.rows})
    yield Axes("time", "Time for all distances", "rows", "milliseconds", log_x=True, log_y=True)
    took: dict[str, float] = {}
    results: dict[str, np.ndarray] = {}
    for done, size in enumerate(sizes):
        a, b = draw.normal(size=(size, params.columns)), draw.normal(size=(100, params.columns))
        for way, function in ways.items():
            times = []
            for _ in range(2 if way == "loops" else 7):
                start = time.perf_counter()
                results[way] = function(a, b)
                times.append(time.perf_counter() - start)
            took[way] = min(times)
            yield Point("time", way, size, 1000 * took[way])
        yield Step(done + 1, len(sizes), f"{size} rows")
    largest = {way: float(np.abs(found - results["loops"]).max()) for way, found in results.items()}
    memory = {
        "loops": 8 * params.rows * 100,
        "broadcasting": 8 * params.rows * 100 * params.columns,
        "matrix product": 8 * params.rows * 100,
    }
    yield Show("ways", Table(
        f"{params.rows} × 100 distances of {params.columns} columns",
        ["way", "times as fast as loops", "largest array, bytes", "largest difference"],
        [(way, f"{took['loops'] / took[way]:.0f}", f"{memory[way]:,}", f"{largest[way]:.0e}") for way in ways],
        note="The fastest of several runs of each.",
    ))  # fmt: skip

    truth = draw.normal(size=200)
    guess = truth + 0.1 * draw.normal(size=200)
    right = float(((truth - guess) ** 2).mean())
    column = guess[:, None]
    wrong = float(((truth - column) ** 2).mean())
    yield Say(f"(200,) minus (200,) has shape {(truth - guess).shape}; (200,) minus (200, 1) has {(truth - column).shape}.")
    yield Show("shapes", Table(
        "The mean squared error of the same predictions", ["shape of the predictions", "shape of the difference", "error"],
        [(str(guess.shape), str((truth - guess).shape), f"{right:.4f}"), (str(column.shape), str((truth - column).shape), f"{wrong:.4f}")],
    ))  # fmt: skip
    yield Value("speed_broadcasting", took["loops"] / took["broadcasting"], "times", 3)
    yield Value("speed_product", took["loops"] / took["matrix product"], "times", 5)
    yield Value("difference", max(largest.values()), "", 1000)
    yield Value("rows", params.rows, "rows", 0)
    yield Value("columns", params.columns, "columns", 0)
    yield Value("memory", memory["broadcasting"] / 1e6, "MB", 0)
    yield Value("memory_product", memory["matrix product"] / 1e6, "MB", 0)
    yield Value("error_right", right, "", 1e-6)
    yield Value("error_wrong", wrong, "", 1e-6)
    yield Effect("all three ways agree to 1e-10", max(largest.values()) < 1e-10)
    yield Effect("broadcasting is at least five times as fast as loops", took["loops"] > 5 * took["broadcasting"])
    yield Effect("so is a matrix product", took["loops"] > 5 * took["matrix product"])
    yield Effect("a wrong shape gives no error and an error a hundred times too large", wrong > 100 * right)


def by_loops(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (n, m) of the rows of (n, d) and (m, d), number by number."""
    found = np.zeros((len(a), len(b)))
    for i, row in enumerate(a.tolist()):
        for j, other in enumerate(b.tolist()):
            found[i, j] = sum((x - y) ** 2 for x, y in zip(row, other, strict=True))
    return found


def by_broadcasting(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same: (n, 1, d) minus (1, m, d) is (n, m, d)."""
    return ((a[:, None, :] - b[None, :, :]) ** 2).sum(-1)


def by_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same, as |a - b|² = |a|² - 2ab + |b|²."""
    return (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)
