"""LLM AutoEval's two-level table, character for character, so that it can stand beside the tables that it made.

Source: `llm_autoeval/table.py` and `main.py` of mlabonne/llm-autoeval for what the table holds, and pytablewriter's
Markdown for how it is laid out: titles centred, numbers to the right with as many decimals as the column needs. Where a
task failed, the cause stands in words: there is no average of it, and none of what it is part of.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottega.checkpoint.hub_repository import parse_name
from bottega.evaluate.figures import higher_is_better, is_share
from bottega.evaluate.report.leaderboard import section_cell
from bottega.evaluate.report.read import Measured
from bottega.evaluate.tasks.suites import Suite
from bottega.evaluate.tasks_view import unique

COLUMNS = ("Task", "Version", "Metric", "Value", "", "Stderr")
NUMBER = re.compile(r"-?\d+(\.\d+)?")
CAUSES = ("failed", "not comparable", "not measured")


def autoeval_table(model: Measured, suite: Suite) -> str:
    """The model's table: a row of sections and their average, then each section's tasks."""
    averages: dict[str, float | str] = {}
    parts = []
    for section in suite.sections:
        cell = section_cell(model, suite, section)
        tasks = unique(entry.task for entry in suite.entries if entry.section == section)
        table = markdown_table(COLUMNS, _task_rows(model, tasks))
        if cell.figure is None:
            averages[section] = next((word for word in CAUSES if word in cell.cause), "not available")
            parts.append(f"### {section}\n{table}\nAverage: not available ({one_line(cell.cause)})\n\n")
        else:
            averages[section] = round((100 if cell.share else 1) * cell.figure["value"], 2)
            parts.append(f"### {section}\n{table}\nAverage: {averages[section]}%\n\n")
    scores = [value for value in averages.values() if isinstance(value, float)]
    if len(scores) == len(averages):
        averages["Average"] = round(sum(scores) / len(scores), 2)
        parts.append(f"Average score: {averages['Average']}%")
    else:
        parts.append("Average score: Not available due to errors")
    elapsed = time.strftime("%H:%M:%S", time.gmtime(model.data["cost"].get("seconds", 0)))
    first = markdown_table(["Model", *averages], [[_linked(model), *averages.values()]])
    return f"{first}\n{''.join(parts)}\n\nElapsed time: {elapsed}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table as pytablewriter lays it out, with the newline at its end."""
    texts = [[one_line(str(cell)) for cell in row] for row in rows]
    numeric = []
    for place in range(len(columns)):
        filled = [row[place] for row in texts if row[place]]
        numeric.append(bool(filled) and all(NUMBER.fullmatch(text) for text in filled))
        decimals = max((len(_decimals(text)) for text in filled if NUMBER.fullmatch(text)), default=0)
        for row in texts:
            if NUMBER.fullmatch(row[place]):  # beside words a whole number stays one
                kept = decimals if numeric[-1] or _decimals(row[place]) else 0
                row[place] = f"{float(row[place]):.{kept}f}"
    widths = [max(3, len(name), *(len(row[place]) for row in texts)) for place, name in enumerate(columns)]
    head = "|".join(f"{name:^{width}}" for name, width in zip(columns, widths, strict=True))
    rule = "|".join("-" * (w - 1) + ":" if is_number else "-" * w for w, is_number in zip(widths, numeric, strict=True))
    body = [
        "|".join(f"{text:{'>' if NUMBER.fullmatch(text) else '<'}{w}}" for text, w in zip(row, widths, strict=True))
        for row in texts
    ]
    return "".join(f"|{line}|\n" for line in (head, rule, *body))


def one_line(text: str) -> str:
    """Text that stays in its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _decimals(number: str) -> str:
    return number.partition(".")[2].rstrip("0")


def _task_rows(model: Measured, tasks: Sequence[str]) -> list[list[Any]]:
    """A row per metric of each task by name; groups with the tasks in them."""
    data = model.data
    names = {*tasks, *(member for task in tasks for member in data["group_tasks"].get(task, ()))}
    rows: list[list[Any]] = []
    for name in sorted(names):
        facts = data["tasks"].get(name, {})
        figures = data["results"].get(name) or data["groups"].get(name) or {}
        label: Any = name
        version: Any = facts.get("version", "")
        for metric, figure in figures.items():
            share = is_share(metric, figure, higher_is_better=higher_is_better(facts, metric))
            scale, error = 100 if share else 1, figure.get("stderr")
            value = f"{scale * figure['value']:.2f}"
            rows.append(
                [label, version, metric, value, *(["", ""] if error is None else ["±", f"{scale * error:.2f}"])]
            )
            label, version = "", ""
        if not figures:
            cause = data["errors"].get(name)
            rows.append([name, version, f"failed: {cause}" if cause else "not measured", "", "", ""])
    return rows


def _linked(model: Measured) -> str:
    """The model's name; a link to the hub, where it came from there."""
    folder = Path(model.data.get("folder") or model.name)
    parsed = parse_name(str(folder))
    if parsed is None or folder.exists() or folder.parent.is_dir():
        return model.name
    return f"[{parsed[0].split('/')[-1]}](https://huggingface.co/{parsed[0]})"
