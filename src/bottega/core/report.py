"""`report.html`: one self-contained page from the blocks that verbs show.

Inline style and inline SVG only: no script, no outside request, and a content security policy
that says so. Every chart has a table twin; everything that comes from outside is escaped.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottega.core.atomic import write_text
from bottega.core.chart import bar_chart, bar_twin, line_chart, line_twin
from bottega.core.heat import heat_map, heat_twin
from bottega.core.tree import tree_chart, tree_twin
from bottega.core.view import Bars, Block, Chart, Heat, Spans, Table, Text, Tree

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

# A number as text: 46.2 %, 46.2 ± 3.1, 46.2 [43.1, 49.3], [43.1, 49.3] %, +1.5 points. It stays on one line.
_NUMBER = r"[+\-−]?\d[\d,.\u202f]*(e[+-]?\d+)?"
FIGURE = re.compile(rf"{_NUMBER}( ± {_NUMBER})?( %| points)?|({_NUMBER} )?\[{_NUMBER}, {_NUMBER}\]( %)?")
FIGURE_CLASS = ' class="figure"'
MOST_WORD = 20  # characters of a word that is never broken


@dataclass(frozen=True)
class Fact:
    """One figure at the top of a report: what it is, its value, and what it is to be held against."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a report under its own heading."""

    heading: str
    blocks: Sequence[Block]


@dataclass
class Ids:
    """Ids that are unique on one page."""

    used: set[str] = field(default_factory=set)

    def take(self, wanted: str) -> str:
        """An id like `wanted` that was not taken before."""
        stem = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-") or "part"
        stem = stem if stem[0].isalpha() else f"part-{stem}"
        name, number = stem, 1
        while name in self.used:
            number += 1
            name = f"{stem}-{number}"
        self.used.add(name)
        return name


def write_report(
    path: Path, title: str, sections: Sequence[Section], *, subtitle: str = "", facts: Sequence[Fact] = ()
) -> None:
    """Write the page to `path`; it appears only when it is complete."""
    write_text(path, render_report(title, sections, subtitle=subtitle, facts=facts))


def render_report(title: str, sections: Sequence[Section], *, subtitle: str = "", facts: Sequence[Fact] = ()) -> str:
    """The whole page as HTML5 text."""
    ids = Ids()
    named = [(ids.take(section.heading), section) for section in sections]
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_text(POLICY)}">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{_text(title)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        f"<header><h1>{_text(title)}</h1>",
        f'<p class="subtitle">{_text(subtitle)}</p>' if subtitle else "",
        _facts(facts),
        _contents(named),
        "</header>",
        "<main>",
    ]
    for name, section in named:
        parts.append(f'<section aria-labelledby="{name}"><h2 id="{name}">{_text(section.heading)}</h2>')
        parts += [block_html(block, ids) for block in section.blocks]
        parts.append("</section>")
    return "\n".join(part for part in [*parts, "</main>", "</body>", "</html>"] if part) + "\n"


def cell_text(value: Any) -> str:
    """A table cell for people: numbers to six digits, large integers grouped, nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return "not finite"
        return cell_text(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    return str(value)


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _facts(facts: Sequence[Fact]) -> str:
    if not facts:
        return ""
    each = "".join(
        f"<div><dt>{_text(fact.name)}</dt><dd><strong>{_text(fact.value)}</strong>"
        + (f" <span>{_text(fact.note)}</span>" if fact.note else "")
        + "</dd></div>"
        for fact in facts
    )
    return f'<dl class="facts">{each}</dl>'


def _contents(named: Sequence[tuple[str, Section]]) -> str:
    if len(named) < 4:
        return ""
    items = "".join(f'<li><a href="#{name}">{_text(section.heading)}</a></li>' for name, section in named)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def block_html(block: Block, ids: Ids) -> str:
    """A block as HTML; `ids` are those of the page that it stands on."""
    if isinstance(block, Text):
        return f"<p>{_text(block.text)}</p>"
    if isinstance(block, Table):
        return _table(block, ids)
    if isinstance(block, Spans):
        return _spans(block, ids)
    return _figure(block, ids)


def twin_of(block: Chart | Bars | Heat | Tree) -> Table:
    """The numbers of a drawing as a table."""
    match block:
        case Chart():
            return line_twin(block)
        case Bars():
            return bar_twin(block)
        case Heat():
            return heat_twin(block)
        case Tree():
            return tree_twin(block)


def _drawing(block: Chart | Bars | Heat | Tree, name: str) -> str:
    match block:
        case Chart():
            return line_chart(block, name)
        case Bars():
            return bar_chart(block, name)
        case Heat():
            return heat_map(block, name)
        case Tree():
            return tree_chart(block, name)


def _figure(block: Chart | Bars | Heat | Tree, ids: Ids) -> str:
    name = ids.take(f"chart {block.title}")
    # The title and description inside the SVG get ids built from the figure's own.
    ids.used.update({f"{name}-title", f"{name}-desc"})
    drawing, twin = _drawing(block, name), twin_of(block)
    note = f'<p class="note">{_text(block.note)}</p>' if block.note else ""
    return (
        f'<figure id="{name}"><figcaption>{_text(block.title)}</figcaption>'
        f'<div class="drawing" role="region" aria-labelledby="{name}-title" tabindex="0">{drawing}</div>{note}'
        f"<details><summary>The numbers as a table</summary>{_table(twin, ids)}</details></figure>"
    )


def _table(table: Table, ids: Ids) -> str:
    name = ids.take(f"table {table.title}")
    numeric = [is_numeric(column) for column in zip(*table.rows, strict=False)]
    numeric += [False] * (len(table.columns) - len(numeric))
    kind = [' class="number"' if is_number else "" for is_number in numeric]
    for index, column in enumerate(zip(*table.rows, strict=False)):
        if not numeric[index] and all(len(word) <= MOST_WORD for cell in column for word in cell_text(cell).split()):
            kind[index] = ' class="words"'
    head = ""
    if any(table.columns):
        cells = "".join(f'<th scope="col"{k}>{_text(c)}</th>' for c, k in zip(table.columns, kind, strict=False))
        head = f"<thead><tr>{cells}</tr></thead>"
    rows = []
    for row in table.rows:
        first, *rest = [_text(cell_text(value)) for value in row] or [""]
        others = "".join(
            f"<td{FIGURE_CLASS if 'number' not in k and FIGURE.fullmatch(cell) else k}>{cell}</td>"
            for cell, k in zip(rest, kind[1:], strict=False)
        )
        rows.append(f'<tr><th scope="row"{kind[0]}>{first}</th>{others}</tr>')
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0"><table>'
        f'<caption id="{name}">{_text(table.title)}</caption>{head}<tbody>{"".join(rows)}</tbody></table></div>{note}'
    )


def is_numeric(column: Sequence[Any]) -> bool:
    """Whether a column holds numbers, or numbers with their error or unit as text, and nothing else."""
    filled = [value for value in column if value is not None and value != ""]
    return bool(filled) and all(
        not isinstance(value, bool) and (isinstance(value, int | float) or bool(FIGURE.fullmatch(str(value))))
        for value in filled
    )


def _spans(block: Spans, ids: Ids) -> str:
    name = ids.take(f"text {block.title}")
    pieces = "".join(f'<span class="s-{style}">{_text(text)}</span>' for text, style in block.spans)
    legend = "".join(
        f'<li><span class="s-{style}">{style}</span> {_text(meaning)}</li>' for style, meaning in block.legend.items()
    )
    return (
        f'<figure class="spans"><figcaption id="{name}">{_text(block.title)}</figcaption>'
        f'<div class="tokens" role="region" aria-labelledby="{name}" tabindex="0">{pieces}</div>'
        + (f'<ul class="legend">{legend}</ul>' if legend else "")
        + "</figure>"
    )


LIGHT = {
    "paper": "#fcfaf6", "card": "#ffffff", "ink": "#231f1b", "soft": "#655c52", "rule": "#e4ddd1", "accent": "#9c4221",
    "bar": "#b2552d", "base": "#8b8378", "c0": "#9c4221", "c1": "#1f5fa8", "c2": "#2b6f51", "c3": "#7a4599",
    "c4": "#7d5a00", "c5": "#4a5a69", "even": "#f3e3d3", "odd": "#dde9f5", "good": "#d9efdf", "bad": "#f9dcd8",
}  # fmt: skip
DARK = {
    "paper": "#1b1815", "card": "#24201c", "ink": "#efe8de", "soft": "#b3a899", "rule": "#3b352f", "accent": "#f0976a",
    "bar": "#d77b4f", "base": "#8f867a", "c0": "#f0976a", "c1": "#7fb6f0", "c2": "#7fcaa3", "c3": "#c9a0e4",
    "c4": "#dcb653", "c5": "#a9bac8", "even": "#4a3524", "odd": "#23394f", "good": "#1f4630", "bad": "#5a2721",
}  # fmt: skip


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


# How blocks look: the course's pages use the same.
FIGURES = (
    """
figure{margin:1.5rem 0;padding:1.1rem 1.25rem .9rem;background:var(--card);border:1px solid var(--rule);
 border-radius:.5rem}
figcaption,caption{font-weight:600;text-align:left;margin-bottom:.6rem}
caption{padding-bottom:.5rem;margin:0}
svg{display:block;width:100%;height:auto;font-size:12px;font-variant-numeric:tabular-nums}
svg text{fill:var(--soft)}
svg .label{font-size:12px}
svg .name,svg .value{fill:var(--ink)}
svg .group{fill:var(--ink);font-weight:600;paint-order:stroke;stroke:var(--card);stroke-width:6px}
svg .grid{stroke:var(--rule);stroke-width:1}
svg .axis{stroke:var(--soft);stroke-width:1}
svg .line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
svg .line.dense,svg .line.base,svg .line.interval{stroke-width:1.3}
svg .line.base{stroke:var(--base)}
svg .line.interval{opacity:.6}
svg .bar{fill:var(--bar)}
svg .baseline{fill:var(--card);stroke:var(--base);stroke-width:1.5;stroke-dasharray:4 2}
svg .reference{stroke:var(--c1);stroke-width:2;stroke-dasharray:3 2}
svg .cell{fill:var(--bar);stroke:var(--rule);stroke-width:.5}
svg .edge{fill:none;stroke:var(--bar);stroke-width:1.6}
svg .edge.dropped{stroke:var(--base);stroke-width:1;stroke-dasharray:3 3}
svg .name.dropped{fill:var(--soft);text-decoration:line-through}
svg tspan.value{fill:var(--soft)}
svg .whisker{fill:none;stroke:var(--ink);stroke-width:1.3}
svg .dot{stroke:var(--card);stroke-width:1}
"""
    + "".join(f"svg .line.c{i}{{stroke:var(--c{i})}}svg .dot.c{i},svg .name.c{i}{{fill:var(--c{i})}}" for i in range(6))
    + """
details{margin-top:.5rem}
summary{cursor:pointer;color:var(--soft);font-size:.875rem;padding:.25rem 0}
.note{color:var(--soft);font-size:.875rem;margin:.4rem 0}
.scroll{overflow-x:auto;margin:1.25rem 0 .5rem}
details .scroll{margin:.5rem 0 0;max-height:24rem;overflow-y:auto}
details caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
table{border-collapse:collapse;min-width:min(100%,24rem);font-size:.9375rem;position:relative}
th,td{padding:.4rem 1.1rem .4rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
th:last-child,td:last-child{padding-right:.25rem}
thead th{color:var(--soft);font-size:.8125rem;font-weight:600;border-bottom-color:var(--soft);white-space:nowrap}
tbody th{font-weight:500;position:sticky;left:0;background:var(--paper);overflow-wrap:anywhere;min-width:6rem}
figure tbody th{background:var(--card)}
tbody tr:last-child>*{border-bottom:0}
.number{text-align:right}
tbody .words{overflow-wrap:normal}
.number,.figure{font-variant-numeric:tabular-nums;white-space:nowrap}
.tokens{white-space:pre-wrap;overflow-wrap:anywhere;font:.9rem/1.9 ui-monospace,SFMono-Regular,Menlo,
 "Liberation Mono",monospace;max-height:30rem;overflow-y:auto}
.tokens span,.legend span{padding:.1em 0;border-radius:.15em;-webkit-box-decoration-break:clone;
 box-decoration-break:clone}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.25rem;margin:.75rem 0 0;padding:0;list-style:none;font-size:.875rem}
.legend span{padding:.1em .4em}
.s-muted{color:var(--soft)}
.s-even{background:var(--even)}
.s-odd{background:var(--odd)}
.s-good,.s-trained{background:var(--good);border-bottom:2px solid var(--c2)}
.s-bad{background:var(--bad);text-decoration:underline wavy var(--accent)}
.s-special{border:1px solid var(--c3);color:var(--c3);font-weight:600}
.drawing{overflow-x:auto}
@media (max-width:40rem){body{padding-top:1.5rem}h1{font-size:1.9rem}figure{padding:.9rem .75rem}
 .drawing svg{min-width:36rem}}
@media print{body{max-width:none;background:none}.tokens,details .scroll{max-height:none}figure{break-inside:avoid}}
"""
)

STYLE = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    + """
*{box-sizing:border-box}
body{margin:0 auto;max-width:53rem;padding:3rem 1.25rem 5rem;background:var(--paper);color:var(--ink);
 font:1rem/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif}
h1,h2{font-family:"Iowan Old Style",Palatino,"Palatino Linotype","Book Antiqua",Georgia,"Liberation Serif",serif;
 font-weight:600;line-height:1.2;text-wrap:balance}
h1{font-size:2.4rem;margin:0 0 .4rem;letter-spacing:-.01em}
h2{font-size:1.55rem;margin:3.25rem 0 .75rem;padding-top:1.25rem;border-top:1px solid var(--rule)}
td{overflow-wrap:anywhere;min-width:4rem}
p{margin:.75rem 0;max-width:44rem;white-space:pre-line;overflow-wrap:anywhere}
.subtitle{color:var(--soft);font-size:1.1rem}
a{color:var(--accent)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin:1.5rem 0 0;padding:0;list-style:none}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:1px;margin:2rem 0 0;
 background:var(--rule);border:1px solid var(--rule);border-radius:.5rem;overflow:hidden}
.facts div{background:var(--card);padding:1rem 1.1rem}
.facts dt{color:var(--soft);font-size:.875rem}
.facts dd{margin:.15rem 0 0}
.facts strong{display:block;font-size:1.7rem;font-weight:600;line-height:1.25;font-variant-numeric:tabular-nums}
.facts span{color:var(--soft);font-size:.875rem}
"""
    + FIGURES
)
