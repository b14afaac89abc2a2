"""A matrix as inline SVG and as a table (`core.view.Heat`): attention maps, logit lenses, landscapes of a loss."""

from __future__ import annotations

from bottega.core.chart import CHARACTER, WIDTH, measured, open_svg, safe, shorten
from bottega.core.view import Heat, Table

TOP, LEAST, MOST = 8, 13.0, 34.0  # pixels: above the drawing; what a name needs; a cell's largest side
MOST_NAME, ANGLE = 18, 55  # characters of a row's or column's name; degrees at which columns' names stand
FAINTEST = 0.005  # a shade that nobody sees is not drawn
UNDER_TEXT = 0.6  # of the shade: what stands in a cell has to be read, on light and dark pages


def heat_map(heat: Heat, identifier: str) -> str:
    """The SVG element."""
    names = [shorten(name, MOST_NAME) for name in heat.rows]
    left = 14 + max((len(name) for name in names), default=0) * CHARACTER
    cell = min((WIDTH - left - 30) / max(len(heat.columns), 1), max(MOST, _text_width(heat)))
    high = max(min(cell, MOST), LEAST)
    bottom = TOP + high * len(heat.rows)
    columns = [shorten(name, MOST_NAME) for name in heat.columns]
    below = 40 + max((len(name) for name in columns), default=0) * CHARACTER * 0.85
    parts = [open_svg(identifier, heat.title, _summary(heat), bottom + below)]
    for row, (name, values) in enumerate(zip(names, heat.values, strict=True)):
        y = TOP + row * high
        parts.append(f'<text class="name" x="{left - 6:.1f}" y="{y + high / 2 + 4:.1f}" text-anchor="end">'
                     f"{safe(name)}</text>")  # fmt: skip
        for column, value in enumerate(values):
            if value is not None and (heat.texts or heat.shade(value) >= FAINTEST):
                parts.append(_cell(heat, row, column, value, (left + column * cell, y, cell, high)))
    stride = 1 if cell >= LEAST else int(LEAST / cell) + 1
    for column, name in enumerate(columns):
        if column % stride == 0:
            x, y = left + (column + 0.5) * cell, bottom + 14
            parts.append(f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="end" '
                         f'transform="rotate(-{ANGLE} {x:.1f} {y:.1f})">{safe(name)}</text>')  # fmt: skip
    label = f'x="{left:.1f}" y="{bottom + below - 4:.1f}"'
    parts.append(f'<text class="label" {label}>{safe(f"{heat.row_label} ↓  {heat.column_label} →")}</text>')
    return "".join([*parts, "</svg>"])


def _text_width(heat: Heat) -> float:
    return 8 + CHARACTER * max((len(shorten(text, 12)) for row in heat.texts for text in row), default=0)


def _cell(heat: Heat, row: int, column: int, value: float, place: tuple[float, float, float, float]) -> str:
    x, y, width, height = place
    shade = heat.shade(value)
    said = f"{heat.rows[row]}, {heat.columns[column]}: {measured(value, False)}"
    at = f'x="{x:.1f}" y="{y:.1f}" width="{width - 0.6:.2f}" height="{height - 0.6:.2f}"'
    text = heat.texts[row][column] if heat.texts else ""
    said = f"{said} “{text}”" if text else said
    opacity = UNDER_TEXT * shade if text else shade
    cell = f'<rect class="cell" {at} fill-opacity="{opacity:.2f}"><title>{safe(said)}</title></rect>'
    if text:
        middle = f'x="{x + width / 2:.1f}" y="{y + height / 2 + 4:.1f}" text-anchor="middle"'
        most = max(int((width - 2) / CHARACTER), 1)
        cell += f'<text class="value" {middle} pointer-events="none">{safe(shorten(text, most))}</text>'
    return cell


def heat_twin(heat: Heat) -> Table:
    """The values as a table, with the texts of the cells."""
    rows = []
    for row, (name, values) in enumerate(zip(heat.rows, heat.values, strict=True)):
        cells = [None if value is None else float(f"{value:.4g}") for value in values]
        if heat.texts:
            cells = [f"{text} {value}" for text, value in zip(heat.texts[row], cells, strict=True)]
        rows.append([name, *cells])
    return Table(heat.title, [f"{heat.row_label} \\ {heat.column_label}", *heat.columns], rows)


def _summary(heat: Heat) -> str:
    """The largest cell of each row, for few rows."""
    said = []
    for name, values in list(zip(heat.rows, heat.values, strict=True))[:40]:
        known = [(value, column) for column, value in enumerate(values) if value is not None]
        if known:
            value, column = (min if heat.inverted else max)(known)
            said.append(f"{name}: {heat.columns[column]} {measured(value, False)}")
    which = "smallest" if heat.inverted else "largest"
    return f"{heat.row_label} against {heat.column_label}; the {which} of each row: {'; '.join(said)}."
