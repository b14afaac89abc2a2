"""A lesson: Markdown in sections, with places where the course puts in what it measured.

A section begins with `## Title {#id leaf=LEAF}`; ids are what links, quiz items and translations hold on to. What is
put in stands in double braces:

    {{value:LAB.NAME}}  {{value:LAB.NAME|.3f}}   a recorded number, within a sentence
    {{figure:LAB.NAME}}                          a recorded chart or table, on a line of its own
    {{lab:LAB}} {{exercise:NAME}} {{quiz:CONCEPT}} {{view:NAME key=value …}} {{source:MODULE:NAME}}     likewise

Formulas are LaTeX between dollars, `$…$` or `$$…$$`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bottega.core.errors import UserError

HEADING = re.compile(r"^## (?P<title>.+?)\s*\{#(?P<id>[a-z0-9-]+)(?:\s+leaf=(?P<leaf>[a-z0-9-]+))?\}\s*$")
INSERT = re.compile(r"\{\{(?P<kind>value|figure|lab|exercise|quiz|view|source):(?P<what>[^{}\n]+)\}\}")
FENCE = re.compile(r"^(`{3,}|~{3,})")


@dataclass(frozen=True)
class Insert:
    """Something to be put into the text."""

    kind: str
    what: str

    @property
    def name(self) -> str:
        """What is put in, without settings or format."""
        return re.split(r"[ |]", self.what.strip(), maxsplit=1)[0]

    @property
    def settings(self) -> dict[str, str]:
        """key=value pairs after the name."""
        return dict(pair.split("=", 1) for pair in self.what.split()[1:] if "=" in pair)

    @property
    def format(self) -> str:
        """How a value is written (Python's format specification)."""
        return self.what.partition("|")[2].strip()


@dataclass(frozen=True)
class Section:
    """A part of a lesson under its own heading. `line` counts from 1; `text` is Markdown without the heading."""

    id: str
    title: str
    leaf: str | None
    text: str
    line: int

    @property
    def inserts(self) -> list[Insert]:
        """What is to be put in, in order."""
        return [Insert(found["kind"], found["what"]) for found in INSERT.finditer(self.text)]


@dataclass(frozen=True)
class Lesson:
    """A lesson: what stands before the first section, and the sections."""

    path: Path
    title: str
    opening: str
    sections: tuple[Section, ...]

    def section(self, name: str) -> Section | None:
        """The section with this id."""
        return next((section for section in self.sections if section.id == name), None)


def read_lesson(path: Path) -> Lesson:
    """Read a lesson; raises UserError with the line of a heading without an id, or of an id that occurs twice."""
    title, opening, sections = "", [], []
    current: list[str] = opening
    heads: list[tuple[re.Match[str], int, list[str]]] = []
    fence = ""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        mark = FENCE.match(line)
        if mark and (not fence or line.strip() == fence):
            fence = "" if fence else mark[1]
        if fence or not line.startswith(("# ", "## ")):
            current.append(line)
        elif line.startswith("# "):
            title = line[2:].strip()
        else:
            head = HEADING.match(line)
            if head is None:
                raise UserError(f"{path}:{number}: a section's heading ends with its id: ## Title {{#id leaf=LEAF}}")
            current = []
            heads.append((head, number, current))
    for head, number, lines in heads:
        if any(section.id == head["id"] for section in sections):
            raise UserError(f"{path}:{number}: two sections are called {head['id']!r}")
        sections.append(Section(head["id"], head["title"], head["leaf"], "\n".join(lines).strip(), number))
    return Lesson(path, title, "\n".join(opening).strip(), tuple(sections))
