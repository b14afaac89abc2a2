"""Blocks as GitHub Markdown: the same sections that `report.html` has, for a repository or an issue.

What comes from outside (names, error texts) is escaped: it becomes neither markup nor HTML nor a link's text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bottega.core.report import Fact, Section, cell_text, twin_of
from bottega.core.view import Bars, Block, Chart, Heat, Spans, Table, Text, Tree


def render_markdown(title: str, sections: Sequence[Section], *, subtitle: str = "", facts: Sequence[Fact] = ()) -> str:
    """The whole document."""
    parts = [f"# {escaped(title)}", paragraph(subtitle)]
    if facts:
        parts.append(
            "\n".join(f"- {escaped(each.name)}: **{escaped(each.value)}** {escaped(each.note)}" for each in facts)
        )
    for section in sections:
        parts += [f"## {escaped(section.heading)}", *map(block_markdown, section.blocks)]
    return "\n\n".join(part.rstrip() for part in parts if part.strip()) + "\n"


def block_markdown(block: Block) -> str:
    """One block; a chart is the table of its numbers."""
    if isinstance(block, Text):
        return paragraph(block.text)
    if isinstance(block, Spans):
        text = "".join(piece for piece, _ in block.spans)
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        return f"**{escaped(block.title)}**\n\n{fence}text\n{text}\n{fence}"
    if isinstance(block, Chart | Bars | Heat | Tree):
        twin = twin_of(block)
        return table_markdown(Table(twin.title, twin.columns, twin.rows, block.note or twin.note))
    return table_markdown(block)


def table_markdown(table: Table) -> str:
    """A table under its title, numbers to the right."""
    numeric = [
        bool(table.rows) and all(row[index] is None or isinstance(row[index], int | float) for row in table.rows)
        for index in range(len(table.columns))
    ]
    lines = [
        [escaped(name) for name in table.columns],
        ["---:" if each else "---" for each in numeric],
        *([escaped(cell_text(cell)) for cell in row] for row in table.rows),
    ]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join(part for part in (f"**{escaped(table.title)}**", body, paragraph(table.note)) if part)


def paragraph(text: str) -> str:
    """Text whose lines begin no list, heading, quotation or definition, and keep apart."""
    lines = (re.sub(r"^\s*(?=[#>+=\-\[]|~~~)|^\s*(\d+)(?=[.)])", r"\1\\", escaped(line)) for line in text.splitlines())
    return "  \n".join(lines)


def escaped(text: str) -> str:
    """Text on one line, in which no character is markup."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\\`*|~]|(?<!\w)_|_(?!\w)|(?<=\])\(|!(?=\[)", r"\\\g<0>", text)
