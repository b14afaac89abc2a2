"""Charts as inline SVG, drawn from `core.view` blocks; each has a table twin with the same numbers.

No script, no outside request, no style attribute: colours are classes that the page's style
sheet maps to variables, so that one drawing serves light and dark. Series differ by dash and
by the label at their end, not by colour alone; bars by label and pattern.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bottega.core.view import Bar, Bars, Chart, Series, Table

WIDTH = 720
LINE_HEIGHT = 340
TOP, BOTTOM = 14, 46
# Mean width of a character of the page's sans serif at the charts' 12 pixels.
CHARACTER = 6.4
MOST_LABEL = 26
COLOURS = 6
DASHES = ("", "7 4", "2 3", "10 3 2 3", "5 2 1 2 1 2")
MOST_POINTS = 700
DOTS_UP_TO = 30
TWIN_ROWS = 60
BAR_HEIGHT, BAR_GAP, GROUP_GAP = 18, 8, 26


def nice_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    if not low < high:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [_clean(index * step) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: powers of ten, with 2 and 5 between them where there is room."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 3 else (1, 2, 5)
    stride = max(1, (last - first) // 6)
    ticks = [_clean(f * 10.0**power) for power in range(first, last + 1, stride) for f in factors]
    inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    return inside if len(inside) >= 3 else nice_ticks(low, high)


def number(value: float) -> str:
    """A tick's number: up to six digits, from 10 000 in k, M or G."""
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(unit, 1e4):
            return f"{value / unit:.6g} {suffix}"
    return f"{value:.6g}"


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels: `low` at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, log: bool, pad: float) -> Axis:
        """The axis that holds `values` with a margin of the part `pad` on each side (none on a constant)."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1))
        elif log:
            factor = (high / low) ** pad
            low, high = low / factor, high * factor
        else:
            margin = (high - low) * pad
            low, high = low - margin, high + margin
        return cls(low, high, start, end, log)

    def at(self, value: float) -> float:
        """The pixel of `value`."""
        if self.log:
            part = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            part = (value - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Round numbers on this axis."""
        return log_ticks(self.low, self.high) if self.log else nice_ticks(self.low, self.high)


def line_chart(chart: Chart, identifier: str) -> str:
    """The SVG element of a line chart; `identifier` makes its ids unique on the page."""
    drawable = [_drawable(series, chart) for series in chart.series]
    points = [point for series in drawable for run in series for point in run]
    labels = [shorten(series.name) for series in chart.series]
    right = WIDTH - 16 - (max((len(label) for label in labels), default=0) * CHARACTER if len(labels) > 1 else 0)
    bottom = LINE_HEIGHT - BOTTOM
    ends = [end for series in chart.series for interval in series.intervals for end in interval]
    y_axis = Axis.over([*(y for _, y in points), *ends], bottom, TOP, log=chart.log_y, pad=0.06)
    left = 34 + max((len(number(tick)) for tick in y_axis.ticks()), default=0) * CHARACTER
    x_axis = Axis.over([x for x, _ in points], left, right, log=chart.log_x, pad=0.0)
    parts = [open_svg(identifier, chart.title, _line_summary(chart), LINE_HEIGHT)]
    for tick in y_axis.ticks():
        y = y_axis.at(tick)
        parts.append(f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    parts.append(f'<line class="axis" x1="{left:.1f}" x2="{right:.1f}" y1="{bottom}" y2="{bottom}"/>')
    for tick in x_axis.ticks():
        x = x_axis.at(tick)
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 19}" text-anchor="middle">{number(tick)}</text>')
    middle = (left + right) / 2
    parts.append(
        f'<text class="label" x="{middle:.1f}" y="{LINE_HEIGHT - 6}" text-anchor="middle">{safe(chart.x_label)}</text>'
    )
    parts.append(
        f'<text class="label" transform="translate(13 {(TOP + bottom) / 2:.1f}) rotate(-90)" '
        f'text-anchor="middle">{safe(chart.y_label)}</text>'
    )
    for index, runs in enumerate(drawable):
        parts += _line(index, runs, chart.series[index], x_axis, y_axis)
    if len(labels) > 1:
        ends = [y_axis.at(runs[-1][-1][1]) if runs else bottom for runs in drawable]
        for index, y in enumerate(_apart(ends, 15, TOP, bottom)):
            at = f'x="{right + 8:.1f}" y="{y + 4:.1f}"'
            parts.append(f'<text class="name {_colour(index, chart.series[index])}" {at}>{safe(labels[index])}</text>')
    return "".join([*parts, "</svg>"])


def bar_chart(bars: Bars, identifier: str) -> str:
    """The SVG element of a horizontal bar chart (points, where values have no zero), a whisker for each interval."""
    shown = [bar for bar in bars.bars if math.isfinite(bar.value)]
    names = [shorten(bar.name, 34) for bar in shown]
    left = 16 + max((len(name) for name in names), default=0) * CHARACTER
    ends = [end for bar in shown for end in (bar.value, bar.high, bar.low, bar.reference) if end is not None]
    if bars.from_zero:
        axis = Axis(min([0.0, *ends]), (max([0.0, *ends]) or 1) * 1.02, left, WIDTH - 74, False)
    else:
        axis = Axis.over(ends, left, WIDTH - 74, log=False, pad=0.04)
    rows, height = _bar_rows(shown)
    parts = [open_svg(identifier, bars.title, _bar_summary(bars), height + BOTTOM)]
    for tick in axis.ticks():
        x = axis.at(tick)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{height}"/>')
        parts.append(
            f'<text class="tick" x="{x}" y="{height + 18}" text-anchor="middle">{_value(tick, bars.percent)}</text>'
        )
    if bars.from_zero:
        zero = axis.at(0.0)
        parts.append(f'<line class="axis" x1="{zero}" x2="{zero}" y1="{TOP}" y2="{height}"/>')
    group = None
    for bar, name, y in zip(shown, names, rows, strict=True):
        if bar.group and bar.group != group:
            parts.append(f'<text class="group" x="0" y="{y - 7}">{safe(bar.group)}</text>')
        group = bar.group
        parts += _bar(bar, name, y, axis, bars)
    middle = (left + WIDTH - 74) / 2
    label = f'x="{middle:.1f}" y="{height + BOTTOM - 6}" text-anchor="middle"'
    parts.append(f'<text class="label" {label}>{safe(bars.value_label)}</text>')
    return "".join([*parts, "</svg>"])


def line_twin(chart: Chart, most: int = TWIN_ROWS) -> Table:
    """The chart's numbers as a table of at most `most` rows; thinned evenly, each series' first and last kept."""
    drawn = [series for series in chart.series if not series.baseline]
    everything = {x for series in drawn for x, _ in series.points}
    kept = everything
    if len(everything) > most:
        share = max(2, most // max(1, len(drawn)))
        kept = {x for series in drawn for x in _evenly([x for x, _ in series.points], share)}
    columns = [(series.name, dict(series.points)) for series in chart.series if not series.baseline]
    for series in chart.series:
        ends = dict(zip((x for x, _ in series.points), series.intervals, strict=bool(series.intervals)))
        for place, said in enumerate(("low", "high") if ends else ()):
            columns.append((f"{series.name}, {said}", {x: interval[place] for x, interval in ends.items()}))
    rows = [[x, *(column.get(x) for _, column in columns)] for x in sorted(kept)]
    note = f"{len(kept)} of {len(everything)} points, evenly thinned." if len(kept) < len(everything) else ""
    return Table(chart.title, [chart.x_label, *(name for name, _ in columns)], rows, note)


def bar_twin(bars: Bars) -> Table:
    """The bars' numbers as a table."""
    grouped = any(bar.group for bar in bars.bars)
    marked = any(bar.reference is not None for bar in bars.bars)
    rows = []
    for bar in bars.bars:
        row = [*([bar.group] if grouped else []), bar.name, bar.value, bar.low, bar.high]
        rows.append([*row, bar.reference] if marked else row)
    columns = [*(["group"] if grouped else []), "name", bars.value_label, "low", "high"]
    return Table(bars.title, [*columns, bars.reference_label] if marked else columns, rows)


def _clean(value: float) -> float:
    return float(f"{value:.12g}")


def safe(value: str) -> str:
    """Escaped."""
    return html.escape(value, quote=True)


def shorten(name: str, most: int = MOST_LABEL) -> str:
    """At most so many characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _value(value: float, percent: bool) -> str:
    return f"{100 * value:.4g} %" if percent else number(value)


def measured(value: float, percent: bool) -> str:
    """A bar's value for people."""
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def open_svg(identifier: str, title: str, description: str, height: float, *, width: float = WIDTH) -> str:
    """The beginning of an SVG element that is read out by its title and description."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-labelledby="{identifier}-title {identifier}-desc" xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{identifier}-title">{safe(title)}</title>'
        f'<desc id="{identifier}-desc">{safe(description)}</desc>'
    )


def _line_summary(chart: Chart) -> str:
    lines = [f"Line chart of {chart.y_label} against {chart.x_label}."]
    for series in chart.series:
        finite = [(x, y) for x, y in series.points if math.isfinite(x) and math.isfinite(y)]
        if finite:
            (first_x, first), (last_x, last) = finite[0], finite[-1]
            lines.append(f"{series.name}: {first:.4g} at {number(first_x)}, {last:.4g} at {number(last_x)}.")
    return " ".join([*lines, "All numbers are in the table below it."])


def _bar_summary(bars: Bars) -> str:
    each = []
    for bar in bars.bars:
        name = f"{bar.group}, {bar.name}" if bar.group else bar.name
        each.append(f"{name}: {measured(bar.value, bars.percent)}")
    return f"{'Bar' if bars.from_zero else 'Point'} chart of {bars.value_label}. " + "; ".join(each) + "."


def _drawable(series: Series, chart: Chart) -> list[list[tuple[float, float]]]:
    """The series as unbroken runs: a point that cannot be drawn (not finite, ≤ 0 on a log axis) breaks the line."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in series.points:
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not chart.log_x) and (y > 0 or not chart.log_y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _line(index: int, runs: list[list[tuple[float, float]]], series: Series, x_axis: Axis, y_axis: Axis) -> list[str]:
    dash, colour = "" if series.baseline else DASHES[index % len(DASHES)], _colour(index, series)
    dense = " dense" if sum(len(run) for run in runs) > 10 * DOTS_UP_TO else ""
    style = f'class="line{dense} {colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
    parts = []
    for run in runs:
        if len(run) > 1:
            path = " ".join(f"{x_axis.at(x)},{y_axis.at(y)}" for x, y in _extremes(run))
            parts.append(f'<polyline {style} points="{path}"/>')
    for (x, _), (low, high) in zip(series.points, series.intervals, strict=bool(series.intervals)):
        at = x_axis.at(x)
        parts.append(f'<path class="line interval {colour}" d="M{at} {y_axis.at(low)}V{y_axis.at(high)}"/>')
    few = sum(len(run) for run in runs) <= DOTS_UP_TO
    dots = [point for run in runs if (few and not series.baseline) or len(run) == 1 for point in run]
    for x, y in dots:
        parts.append(
            f'<circle class="dot {colour}" cx="{x_axis.at(x)}" cy="{y_axis.at(y)}" r="2.6">'
            f"<title>{safe(series.name)}: {y:.4g} at {number(x)}</title></circle>"
        )
    return parts


def _colour(index: int, series: Series) -> str:
    return "base" if series.baseline else f"c{index % COLOURS}"


def _extremes(run: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A long run thinned without losing a spike: of each stretch its lowest and highest point."""
    if len(run) <= MOST_POINTS:
        return run
    stretch = math.ceil(2 * len(run) / MOST_POINTS)
    kept = [run[0]]
    for start in range(0, len(run), stretch):
        part = run[start : start + stretch]
        pair = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(pair)
    return [*kept, run[-1]]


def _evenly(values: Sequence[float], most: int) -> list[float]:
    if len(values) <= most:
        return list(values)
    return [values[round(index * (len(values) - 1) / (most - 1))] for index in range(most)]


def _apart(wanted: Sequence[float], distance: float, top: float, bottom: float) -> list[float]:
    """Positions near the `wanted` ones, at least `distance` apart, and within [top, bottom] where they fit."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [0.0] * len(wanted)
    above = top - distance
    for index in order:
        above = placed[index] = max(wanted[index], above + distance)
    below = bottom + distance
    for index in reversed(order):
        below = placed[index] = min(placed[index], below - distance)
    return placed


def _bar_rows(bars: Sequence[Bar]) -> tuple[list[int], int]:
    """The top of each bar in pixels, and the bottom of the last."""
    rows, y, group = [], TOP, None
    for bar in bars:
        if bar.group and bar.group != group:
            y += GROUP_GAP
        group = bar.group
        rows.append(y)
        y += BAR_HEIGHT + BAR_GAP
    return rows, y


def _bar(bar: Bar, name: str, y: float, axis: Axis, bars: Bars) -> list[str]:
    end, middle, percent = axis.at(bar.value), y + BAR_HEIGHT / 2, bars.percent
    rightmost = end
    kind = " baseline" if bar.baseline else ""
    label_at = axis.start - 10
    title = f"<title>{safe(_spoken(bar, percent))}</title>"
    parts = [f'<text class="name" x="{label_at:.1f}" y="{middle + 4:.1f}" text-anchor="end">{safe(name)}</text>']
    if bars.from_zero:
        zero = axis.at(0.0)
        at = f'x="{min(zero, end)}" y="{y}" width="{abs(end - zero):.1f}" height="{BAR_HEIGHT}"'
        parts.append(f'<rect class="bar{kind}" {at} rx="2">{title}</rect>')
    if bar.reference is not None:
        # As high as a row, so that one reference of neighbouring bars is one line.
        x, half = axis.at(bar.reference), BAR_GAP / 2
        line = f'<line class="reference" x1="{x}" x2="{x}" y1="{y - half}" y2="{y + BAR_HEIGHT + half}">'
        parts.append(f"{line}<title>{safe(bars.reference_label)}: {measured(bar.reference, percent)}</title></line>")
    if bar.low is not None or bar.high is not None:
        low = axis.start if bar.low is None else axis.at(bar.low)
        high = axis.end if bar.high is None else axis.at(bar.high)
        # An open end has an arrow's head, a closed one a stop.
        left = f"M{low + 5} {middle - 4}L{low} {middle}l5 4" if bar.low is None else f"M{low} {middle - 4}v8"
        right = f"M{high - 5} {middle - 4}L{high} {middle}l-5 4" if bar.high is None else f"M{high} {middle - 4}v8"
        parts.append(f'<path class="whisker" d="M{low} {middle}H{high}{left}{right}"/>')
        rightmost = max(end, high)
    if not bars.from_zero:
        parts.append(f'<circle class="bar{kind}" cx="{end}" cy="{middle}" r="4.5">{title}</circle>')
    value = measured(bar.value, percent)
    parts.append(f'<text class="value" x="{rightmost + 7:.1f}" y="{middle + 4:.1f}">{value}</text>')
    return parts


def _spoken(bar: Bar, percent: bool) -> str:
    spoken = f"{bar.name}: {measured(bar.value, percent)}"
    if bar.low is None and bar.high is None:
        return spoken
    low, high = ("open" if end is None else measured(end, percent) for end in (bar.low, bar.high))
    return f"{spoken} ({low} to {high})"
