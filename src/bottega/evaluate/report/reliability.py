"""Calibration of the models: reliability diagrams, and a table of their expected calibration errors.

Over every multiple-choice item of a model, all its tasks together. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bottega.core.view import Block, Chart, Series, Table
from bottega.evaluate.analysis.calibration import calibration
from bottega.evaluate.report.read import Measured

MOST_LINES = 4  # of models in one diagram
IDEAL = Series("right as often as sure", [(0.0, 0.0), (1.0, 1.0)], baseline=True)


def reliability_blocks(models: Sequence[Measured]) -> list[Block]:
    """A table over all models that chose among choices, and a diagram for every few; [] if none did."""
    found: list[tuple[Measured, dict[str, Any]]] = []
    for model in models:
        items = (item for of_task in model.items.values() for _, item in of_task.values())
        if (data := calibration(items)) is not None:
            found.append((model, data))
    if not found:
        return []
    starts = range(0, len(found), MOST_LINES)
    diagrams = [_diagram(found[start : start + MOST_LINES], start // MOST_LINES + 1, len(starts)) for start in starts]
    return [*diagrams, _table(found)]


def _diagram(found: Sequence[tuple[Measured, dict[str, Any]]], number: int, count: int) -> Chart:
    lines = [
        Series(
            model.name,
            [(each["confidence"], each["accuracy"]) for each in data["bins"]],
            [tuple(each["interval"]) for each in data["bins"]],
        )
        for model, data in found
    ]
    part = f", part {number} of {count}" if count > 1 else ""
    note = "Below the straight line a model is surer than it is right, above it less sure. Bars: 95 % intervals."
    return Chart(f"Reliability{part}", "confidence", "share right", [*lines, IDEAL], note=note)


def _table(found: Sequence[tuple[Measured, dict[str, Any]]]) -> Table:
    rows = []
    for model, data in found:
        low, high = data["interval"]
        gap = data["confidence"] - data["accuracy"]
        rows.append(
            (
                model.name,
                f"{100 * data['ece']:.1f} %",
                f"[{100 * low:.1f}, {100 * high:.1f}] %",
                f"{100 * data['if_calibrated']:.1f} %",
                f"{100 * data['confidence']:.1f} %",
                f"{100 * data['accuracy']:.1f} %",
                f"{100 * gap:+.1f} points",
                data["count"],
            )
        )
    columns = ("model", "ECE", "95 % interval", "if calibrated", "confidence", "right", "surer by", "items")
    note = (
        "ECE: how far confidence and accuracy lie apart, on average over items, in ten bins of confidence (the "
        "probability of the likeliest choice among the choices). Of few items it comes out too high: “if calibrated” "
        "is what it would be of a model that is exactly as often right as it is sure."
    )
    return Table("Expected calibration error", columns, rows, note)
