"""Blocks in the terminal, through rich. The one place that decides how output for people looks."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from bottega.core.atomic import json_text
from bottega.core.chart import measured
from bottega.core.errors import BottegaError
from bottega.core.report import cell_text, is_numeric, twin_of
from bottega.core.view import Bar, Bars, Block, Chart, Spans, Table, Text

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
BAR_WIDTH, LEAST_BAR = 32, 12  # of a wide terminal, and of one that words fill
INTERVAL = "interval"  # in a column's name: its cells are not broken
LEAST_WIDTH, GAP = 9, 2  # of a column that still can be read, where it has more to say; between two


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
            _bars(block, console)
        elif isinstance(block, Chart):
            _chart(block, console)
        else:
            _table(twin_of(block), console)


def show_json(data: Any) -> None:
    """The same as data, on standard output."""
    sys.stdout.write(json_text(data))


def show_error(error: BottegaError, console: Console) -> None:
    """What was wrong, and what to do."""
    console.print(RichText.assemble(("error: ", "bold red"), error.message), soft_wrap=True, highlight=False)
    if error.hint:
        console.print(error.hint, style="dim", markup=False, highlight=False, soft_wrap=True)


def _table(block: Table, console: Console, *, whole: str | None = None) -> None:
    """The table; the column `whole` is never folded. Columns that do not fit beside each other become rows."""
    if whole is None and len(block.rows) > 0 and _least_width(block) > console.width:
        for part in _turned(block, console.width):
            _table(part, console, whole="")
        return
    widths = _widths(block, console.width, whole)
    table = RichTable(title=block.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, name in enumerate(block.columns):
        justify = "right" if is_numeric([row[index] for row in block.rows]) else "left"
        width = widths[index] if widths else None
        unbroken = widths is None and name == whole
        name = name if width is None else _folded(name, width)
        table.add_column(name, justify=justify, overflow="fold", header_style="dim", no_wrap=unbroken, width=width)
    table.show_header = any(block.columns)
    for row in block.rows:
        cells = map(cell_text, row)
        if widths:
            cells = (
                cell if name == whole else _folded(cell, width)
                for name, cell, width in zip(block.columns, cells, widths, strict=True)
            )
        table.add_row(*map(RichText, cells))
    console.print(table)
    if block.note:
        console.print(block.note, style="dim", markup=False, highlight=False)


def _cells(block: Table) -> list[list[str]]:
    """What stands in each column, its name first."""
    return [[str(name), *(cell_text(row[at]) for row in block.rows)] for at, name in enumerate(block.columns)]


def _least_width(block: Table) -> int:
    widths = [
        max(map(len, cells[1:])) if INTERVAL in name else min(LEAST_WIDTH, max(map(len, cells)))
        for name, cells in zip(block.columns, _cells(block), strict=True)
    ]
    return sum(width + GAP for width in widths) - GAP


def _widths(block: Table, width: int, whole: str | None) -> list[int] | None:
    """Widths of columns that break no word, else no part of one; None where all fits, or there is no such way."""
    columns = _cells(block)
    widths = [max(map(cell_len, cells)) for cells in columns]
    room = width - GAP * (len(columns) - 1)
    if sum(widths) <= room:
        return None
    for split in (str.split, _parts):
        least = [
            max((cell_len(part.rstrip()) for cell in cells for part in split(cell)), default=0) for cells in columns
        ]
        for at, (name, *cells) in enumerate(columns):
            if name == whole or INTERVAL in name:
                least[at] = max(least[at], *map(cell_len, cells), 0)
        if sum(least) <= room:
            return _narrowed(widths, least, room)
    return None


def _narrowed(widths: list[int], least: Sequence[int], room: int) -> list[int]:
    """The widest gives way, cell by cell, as long as it has more than it needs."""
    while sum(widths) > room:
        widths[max((at for at in range(len(widths)) if widths[at] > least[at]), key=widths.__getitem__)] -= 1
    return widths


def _parts(text: str) -> list[str]:
    """Where a text may be broken: after spaces, and within names (smoke_choice, first-number)."""
    return re.split(r"(?<=\s)(?=\S)|(?<=[^\W\d]{2}[,_/-])(?=\w)", text)


def _folded(text: str, width: int) -> str:
    lines = [""]
    for part in _parts(text):
        if lines[-1] and cell_len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip(" ") for line in lines)


def _turned(block: Table, width: int) -> list[Table]:
    """The table with its columns as rows, in as many parts as its rows need to stand beside each other."""
    named = min(2 * LEAST_WIDTH, max(map(len, block.columns)))
    widest = max(len(cell_text(cell)) for row in block.rows for cell in row)
    at_a_time = max(1, (width - named) // (min(2 * LEAST_WIDTH, widest) + GAP))
    parts = [block.rows[first : first + at_a_time] for first in range(0, len(block.rows), at_a_time)]
    tables = []
    for number, rows in enumerate(parts, 1):
        title = f"{block.title} ({number} of {len(parts)})" if len(parts) > 1 else block.title
        first, *names = zip(block.columns, *([cell_text(cell) for cell in row] for row in rows), strict=True)
        tables.append(Table(title, first, names, block.note if number == len(parts) else ""))
    return tables


def _bars(block: Bars, console: Console) -> None:
    """A table with a column of drawn bars."""
    shown = [bar for bar in block.bars if math.isfinite(bar.value)]
    ends = [end for bar in shown for end in (bar.value, bar.low, bar.high, bar.reference) if end is not None]
    low, high = min([0.0, *ends] if block.from_zero else ends, default=0.0), max(ends, default=1.0)
    parts: dict[str, list[Any]] = {"": [bar.name for bar in block.bars]}
    if any(bar.group for bar in block.bars):
        parts = {" ": [bar.group for bar in block.bars], **parts}
    parts[block.value_label] = [measured(bar.value, block.percent) for bar in block.bars]
    if any(bar.low is not None or bar.high is not None for bar in block.bars):
        parts["interval"] = [_range(bar, block.percent) for bar in block.bars]
    if any(bar.reference is not None for bar in block.bars):
        marks = [bar.reference for bar in block.bars]
        parts[f"┊ {block.reference_label}"] = ["" if mark is None else measured(mark, block.percent) for mark in marks]
    # Bars take what the names beside them leave.
    beside = [[name, *cells] for name, cells in parts.items()]
    taken = sum(GAP + max(cell_len(word) for cell in cells for word in [*cell.split(), ""]) for cells in beside)
    width = max(LEAST_BAR, min(BAR_WIDTH, console.width - taken))
    drawn = {id(bar): _drawn(bar, low, (high - low) or 1.0, width, from_zero=block.from_zero) for bar in shown}
    parts["  "] = [drawn.get(id(bar), "") for bar in block.bars]
    table = Table(block.title, list(parts), list(zip(*parts.values(), strict=True)), block.note)
    _table(table, console, whole="  ")


def _drawn(bar: Bar, low: float, span: float, width: int, *, from_zero: bool) -> str:
    """The bar in characters: filled up to its value, its interval as ├─┤, its reference as ┊."""

    def at(value: float) -> int:
        return round((value - low) / span * (width - 1))

    cells = [" "] * width
    if from_zero:
        first, last = sorted((at(0.0), at(bar.value)))
        cells[first : last + 1] = "█" * (last + 1 - first)
    if bar.low is not None or bar.high is not None:
        first, last = 0 if bar.low is None else at(bar.low), width - 1 if bar.high is None else at(bar.high)
        cells[first : last + 1] = "─" * (last + 1 - first)
        cells[first], cells[last] = "├" if bar.low is not None else "◂", "┤" if bar.high is not None else "▸"
    cells[at(bar.value)] = "█" if from_zero and bar.low is None and bar.high is None else "●"
    if bar.reference is not None:
        cells[at(bar.reference)] = "┊"
    return "".join(cells).rstrip()


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


def _range(bar: Bar, percent: bool) -> str:
    if bar.low is None and bar.high is None:
        return ""
    low, high = ("open" if end is None else measured(end, percent) for end in (bar.low, bar.high))
    return f"{low.removesuffix(' %')} to {high}"
