"""The leaderboard: a cell for each model and task (or section of a suite), and averages that leave nothing out.

A cell without a figure says why. An average is over columns in which every model was asked the same, and a model that
lacks one of them has no average, and says why. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottega.evaluate.figures import Figure, half_width, higher_is_better, is_share, shown_metric
from bottega.evaluate.report.read import TEXT, Measured, is_finite
from bottega.evaluate.statistics import Estimate, normal_quantile
from bottega.evaluate.tasks.suites import Suite, SuiteEntry
from bottega.evaluate.tasks_view import OF_CHOICES, unique

Z = normal_quantile(0.95)
# What has to be the same for two models, if their figures are to be held against each other.
CONDITIONS = {"num_fewshot": "examples before each question", "version": "version of the task", "items": "items"}


@dataclass(frozen=True)
class Part:
    """One figure within a cell, with its weight; `leaves` are the tasks (and their shares) whose items it averages."""

    task: str
    metric: str
    figure: Figure
    weight: float
    leaves: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Cell:
    """A figure, or why there is none. `parts` is what it is made of."""

    figure: Figure | None
    cause: str = ""
    metric: str = ""
    share: bool = False
    higher: bool = True
    chance: float | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Column:
    """A task or a section; `left_out` says why it enters no average, if it does not."""

    name: str
    left_out: str = ""


@dataclass
class Row:
    """A model: its cells by column, its average or why it has none.

    Once models were compared, its rank, and by how much the best model's average is higher.
    """

    model: Measured
    cells: dict[str, Cell]
    average: Figure | None = None
    why: str = ""
    parts: tuple[Part, ...] = ()
    rank: int | None = None
    behind_best: Estimate | None = None


@dataclass
class Leaderboard:
    """Rows from the best average down, those without one last."""

    columns: list[Column]
    rows: list[Row]


def leaderboard(models: Sequence[Measured], suite: Suite | None) -> Leaderboard:
    """The rows of `models`; columns are the suite's sections, or every task (without those that a group averages)."""
    if suite is not None:
        names = suite.sections
        rows = [Row(model, {name: section_cell(model, suite, name) for name in names}) for model in models]
    else:
        names = _tasks_and_groups(models)
        rows = [Row(model, {name: task_cell(model, name) for name in names}) for model in models]
    columns = [Column(name, _left_out(rows, name, is_section=suite is not None)) for name in names]
    averaged = [column.name for column in columns if not column.left_out]
    for row in rows:
        _average(row, averaged)
    rows.sort(key=lambda row: (row.average is None, -row.average["value"] if row.average else 0.0, row.model.name))
    return Leaderboard(columns, rows)


def task_cell(model: Measured, task: str, wanted: str | None = None, num_fewshot: int | None = None) -> Cell:
    """The cell of a task or a group: its metric `wanted`, or the one that stands for it."""
    data = model.data
    results = data["results"].get(task) or data["groups"].get(task)
    if task in data["errors"]:
        return Cell(None, f"failed: {data['errors'][task]}")
    members = data["group_tasks"].get(task, [])
    if not results:
        failed = [name for name in members if name in data["errors"]]
        return Cell(None, f"failed: {failed[0]}: {data['errors'][failed[0]]}" if failed else "not measured")
    for name in members or [task]:
        shots = data["tasks"].get(name, {}).get("num_fewshot")
        if num_fewshot is not None and shots is not None and shots != num_fewshot:
            return Cell(None, f"not comparable: asked with {shots} examples, not {num_fewshot}")
    facts = data["tasks"].get(task, {})
    if wanted is not None and wanted not in results:
        return Cell(None, f"not measured: no {wanted}")
    metric = shown_metric(results, facts, wanted)
    figure = results[metric]
    if not is_finite(figure):
        return Cell(None, f"failed: {metric} is not finite")
    higher = higher_is_better(facts, metric)
    share = is_share(metric, figure, higher_is_better=higher)
    chance = facts.get("chance") if metric.startswith(OF_CHOICES) else None
    part = Part(task, metric, figure, 1.0, _leaves(model, task, members, metric, figure))
    return Cell(figure, "", metric, share, higher, chance, (part,))


def section_cell(model: Measured, suite: Suite, section: str) -> Cell:
    """The mean of a section's tasks; without a figure if one of them has none."""
    entries = [entry for entry in suite.entries if entry.section == section and entry.metric is not None]
    cells = [_entry_cell(model, entry) for entry in entries]
    causes = [f"{entry.task} {cell.cause}" for entry, cell in zip(entries, cells, strict=True) if cell.figure is None]
    if causes or not cells:
        more = f" (and {len(causes) - 1} more)" if len(causes) > 1 else ""
        return Cell(None, f"{causes[0]}{more}" if causes else "no task of it enters a mean")
    parts = tuple(replace(part, weight=part.weight / len(cells)) for cell in cells for part in cell.parts)
    metric = cells[0].metric if len(cells) == 1 else f"mean of {len(cells)} tasks"
    chances = [cell.chance for cell in cells if cell.chance is not None]
    chance = sum(chances) / len(chances) if len(chances) == len(cells) else None
    figure = cells[0].figure if len(cells) == 1 else combined(parts)
    return Cell(figure, "", metric, all(cell.share for cell in cells), True, chance, parts)


def combined(parts: Sequence[Part]) -> dict[str, Any]:
    """The weighted mean of figures; its error adds up as of independent tasks, within a task as of the same items.

    So do the arms of the intervals, which near 0 and 1 are not of one length.
    """
    value = sum(part.weight * part.figure["value"] for part in parts)
    errors: dict[str, NDArray[np.float64]] = {}
    for part in parts:
        error = standard_error(part.figure)
        if error is None:
            return {"value": value, "stderr": None, "ci95": None}
        own, interval = part.figure["value"], part.figure.get("ci95")
        down, up = (own - interval[0], interval[1] - own) if interval else (Z * error, Z * error)
        errors[part.task] = errors.get(part.task, np.zeros(3)) + part.weight * np.array([error, down, up])
    error, down, up = np.sqrt(sum(each * each for each in errors.values())).tolist()
    return {"value": value, "stderr": error, "ci95": [value - down, value + up]}


def standard_error(figure: Figure) -> float | None:
    """The figure's standard error, or what its interval comes to if that is more; None if neither says anything.

    Where all items are right, or none, the standard error is 0 and Wilson's interval is not.
    """
    return max(figure.get("stderr") or 0.0, (half_width(figure) or 0.0) / Z) or None


def _entry_cell(model: Measured, entry: SuiteEntry) -> Cell:
    return task_cell(model, entry.task, entry.metric, entry.num_fewshot)


def _tasks_and_groups(models: Sequence[Measured]) -> list[str]:
    groups = unique(group for model in models for group in model.data["groups"])
    inside = {task for model in models for group in groups for task in model.data["group_tasks"].get(group, ())}
    # Of groups within groups the outer ones.
    members = {group: {task for m in models for task in m.data["group_tasks"].get(group, ())} for group in groups}
    outer = [group for group in groups if not any(members[group] < members[other] for other in groups)]
    return [*outer, *(task for task in unique(t for m in models for t in m.tasks) if task not in inside)]


def _leaves(
    model: Measured, task: str, members: Sequence[str], metric: str, figure: Figure
) -> tuple[tuple[str, float], ...]:
    """The tasks whose items' mean the figure is, with their shares; () if it is no such mean."""
    if not members or task in model.data["results"]:
        return ((task, 1.0),)
    results, tasks = model.data["results"], model.data["tasks"]
    sizes = [tasks.get(name, {}).get("items") or 0 for name in members]
    values = [results.get(name, {}).get(metric, {}).get("value", math.nan) for name in members]
    for weights in (sizes, [1] * len(members)):
        total = sum(weights)
        if total and math.isclose(sum(w * v for w, v in zip(weights, values, strict=True)) / total, figure["value"]):
            return tuple((name, weight / total) for name, weight in zip(members, weights, strict=True))
    return ()


def _left_out(rows: Sequence[Row], name: str, *, is_section: bool) -> str:
    """Why a column enters no average; '' if it does."""
    cells = [row.cells[name] for row in rows]
    measured = [cell for cell in cells if cell.figure is not None]
    if not is_section and any(cell.cause.startswith("not measured") for cell in cells):
        return _failed(rows, name) or "not every model was asked"
    if measured and not all(cell.share for cell in measured):
        return f"{measured[0].metric} is no share of items" + ("" if measured[0].higher else " (lower is better)")
    if len({cell.metric for cell in measured}) > 1:
        return "its metric is not the same for all models"
    return _differences(rows, name)


def _failed(rows: Sequence[Row], name: str) -> str:
    """For whom a column has no figure because it, or a task of it, failed; '' if someone was not asked at all."""
    members = unique(task for row in rows for task in row.model.data["group_tasks"].get(name, ())) or [name]
    found = []
    for row in (row for row in rows if row.cells[name].figure is None):
        failed = [task for task in (name, *members) if task in row.model.data["errors"]]
        if not failed:
            return ""
        found.append(f"{row.model.name} ({failed[0]})" if failed[0] != name else row.model.name)
    return f"failed for {', '.join(found)}"


def _differences(rows: Sequence[Row], name: str) -> str:
    """In what a column was not the same for all models that have a figure in it."""
    facts: dict[str, set[Any]] = {key: set() for key in CONDITIONS}
    tasks = unique(leaf for row in rows for part in row.cells[name].parts for leaf, _ in part.leaves)
    for task in tasks:
        for key, said in CONDITIONS.items():
            having = [row for row in rows if any(task in dict(part.leaves) for part in row.cells[name].parts)]
            facts[key] = {str(row.model.data["tasks"].get(task, {}).get(key)) for row in having}
            if len(facts[key]) > 1:
                return f"{said}: {' and '.join(sorted(facts[key]))}" + ("" if task in (name, TEXT) else f" in {task}")
    return ""


def _average(row: Row, columns: Sequence[str]) -> None:
    """The row's average over `columns`, or why it has none."""
    missing = [f"{name}: {row.cells[name].cause}" for name in columns if row.cells[name].figure is None]
    if not columns or missing:
        row.why = "; ".join(missing) or "no column can be averaged"
        return
    row.parts = tuple(
        replace(part, weight=part.weight / len(columns)) for name in columns for part in row.cells[name].parts
    )
    row.average = combined(row.parts)
