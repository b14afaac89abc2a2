"""What a verb shows, as plain data: the terminal, `report.html` and the pages render the same blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Style = Literal["plain", "muted", "good", "bad", "special", "trained", "even", "odd"]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns; numbers are aligned right by the renderer."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


@dataclass(frozen=True)
class Spans:
    """A text in coloured pieces (tokens, masks), with a legend of what each style means."""

    title: str
    spans: Sequence[tuple[str, Style]]
    legend: dict[Style, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    """One line of a chart: points (x, y), and for each the interval of its y if there are any.

    `baseline` marks what the others are held against: it is drawn thin, without points.
    """

    name: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float]] = ()
    baseline: bool = False


@dataclass(frozen=True)
class Chart:
    """A line chart; every renderer gives it a table twin."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar: a value, its interval if it has one (open if it has one end only).

    `baseline` marks what the others are held against; `reference` is a value marked across this bar (chance, a target).
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    group: str = ""
    baseline: bool = False
    reference: float | None = None


@dataclass(frozen=True)
class Bars:
    """A bar chart with intervals; bars of one group stand together. It has a table twin too.

    Bars begin at zero. Values that have no zero (ratings) are drawn as points: `from_zero` is False.
    `reference_label` says what the bars' `reference` is.
    """

    title: str
    value_label: str
    bars: Sequence[Bar]
    percent: bool = False
    note: str = ""
    from_zero: bool = True
    reference_label: str = ""


@dataclass(frozen=True)
class Heat:
    """A matrix drawn as cells, the larger the darker (the smaller, where `inverted`); it has a table twin.

    A value that is None has no cell. `texts` are written into the cells, where given; `low` and `high` are the ends of
    the shades (default: the smallest and the largest value).
    """

    title: str
    row_label: str
    column_label: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    texts: Sequence[Sequence[str]] = ()
    low: float | None = None
    high: float | None = None
    inverted: bool = False
    note: str = ""

    def shade(self, value: float) -> float:
        """How dark a value is, from 0 to 1."""
        known = [each for row in self.values for each in row if each is not None]
        low = min(known) if self.low is None else self.low
        high = max(known) if self.high is None else self.high
        share = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 1.0
        return 1 - share if self.inverted else share


@dataclass(frozen=True)
class Branch:
    """A node of a tree: what it says, the place of its parent in the list (-1: none), a value, whether it was kept."""

    text: str
    parent: int
    value: float
    kept: bool = True


@dataclass(frozen=True)
class Tree:
    """A tree, drawn from left to right: parents stand before their children. It has a table twin."""

    title: str
    value_label: str
    branches: Sequence[Branch]
    note: str = ""


Block = Text | Table | Spans | Chart | Bars | Heat | Tree


def human_bytes(count: float) -> str:
    """1536 → '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def human_count(count: float) -> str:
    """1234567 → '1.23 M'."""
    for unit in ("", " k", " M", " G", " T"):
        if abs(count) < 999.5:  # what rounds to 1000 belongs to the next unit
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} P"


def human_seconds(seconds: float) -> str:
    """95 → '1 min 35 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
