"""Blocks in the terminal, through rich. The one place that decides how output for people looks."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from bottega.core.atomic import json_text
from bottega.core.errors import BottegaError
from bottega.core.report import cell_text
from bottega.core.view import Bars, Block, Chart, Spans, Table, Text

STYLES = {
    "plain": "",
    "muted": "dim",
    "good": "green",
    "bad": "red",
    "special": "bold magenta",
    "trained": "bold green",
    "even": "black on bright_cyan",
    "odd": "black on bright_yellow",
}
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 60


def show(blocks: Sequence[Block], console: Console) -> None:
    """Print blocks one below the other."""
    for block in blocks:
        if isinstance(block, Text):
            console.print(block.text, markup=False, highlight=False, soft_wrap=True)
        elif isinstance(block, Table):
            _table(block, console)
        elif isinstance(block, Spans):
            _spans(block, console)
        elif isinstance(block, Bars):
            rows = [(bar.name, bar.value, _range(bar.low, bar.high)) for bar in block.bars]
            _table(Table(block.title, ("", block.value_label, "interval"), rows, block.note), console)
        else:
            _chart(block, console)


def show_json(data: Any) -> None:
    """The same as data, on standard output."""
    sys.stdout.write(json_text(data))


def show_error(error: BottegaError, console: Console) -> None:
    """What was wrong, and what to do."""
    console.print(RichText.assemble(("error: ", "bold red"), error.message), soft_wrap=True, highlight=False)
    if error.hint:
        console.print(error.hint, style="dim", markup=False, highlight=False, soft_wrap=True)


def _table(block: Table, console: Console) -> None:
    table = RichTable(title=block.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, name in enumerate(block.columns):
        numeric = bool(block.rows) and all(isinstance(row[index], (int, float)) for row in block.rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", header_style="dim")
    table.show_header = any(block.columns)
    for row in block.rows:
        table.add_row(*(RichText(cell_text(cell)) for cell in row))
    console.print(table)
    if block.note:
        console.print(block.note, style="dim", markup=False, highlight=False)


def _spans(block: Spans, console: Console) -> None:
    console.print(block.title, style="bold", markup=False, highlight=False)
    text = RichText()
    for content, style in block.spans:
        text.append(content, STYLES[style])
    console.print(text, soft_wrap=True)
    if block.legend:
        legend = RichText()
        for style, meaning in block.legend.items():
            legend.append(f" {meaning} ", STYLES[style]).append("  ")
        console.print(legend)


def _chart(block: Chart, console: Console) -> None:
    """A line of small bars per series, with its first and last value."""
    console.print(f"{block.title} ({block.y_label} by {block.x_label})", style="bold", markup=False, highlight=False)
    for series in block.series:
        values = [y for _, y in series.points if math.isfinite(y)]
        if values:
            console.print(
                f"  {series.name:12} {values[0]:8.3f} {_sparkline(values)} {values[-1]:.3f}",
                markup=False,
                highlight=False,
            )


def _sparkline(values: Sequence[float]) -> str:
    step = max(1, math.ceil(len(values) / SPARK_WIDTH))
    means = [sum(part) / len(part) for start in range(0, len(values), step) if (part := values[start : start + step])]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1))] for value in means)


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    return " to ".join("open" if end is None else f"{end:.3f}" for end in (low, high))
