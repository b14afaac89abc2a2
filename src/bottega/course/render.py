"""Lessons as HTML: Markdown by markdown-it, formulas as MathML, and what the course puts in.

HTML within a lesson is shown as text, never taken over; links go to pages of the app or are left as text. A formula
that cannot be converted is shown as it was written.
"""

from __future__ import annotations

import ast
import html
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import latex2mathml.converter
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from bottega.core.errors import UserError
from bottega.core.report import Ids, block_html
from bottega.course.lesson import INSERT, Insert, Section
from bottega.course.library import Chapter
from bottega.course.recorded import cited, format_value
from bottega.retrieve.chunks import slug, unique_anchor

ALONE = re.compile(r"^\s*\{\{(?P<kind>figure|lab|exercise|quiz|view|source):(?P<what>[^{}\n]+)\}\}\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Piece:
    """A part of a section: HTML of its text, or something to be put in (lab, exercise, quiz, view)."""

    html: str = ""
    insert: Insert | None = None


def mathml(latex: str, *, display: bool = False) -> str:
    """LaTeX as MathML; what cannot be converted stays as it was written."""
    try:
        return latex2mathml.converter.convert(latex, display="block" if display else "inline")
    except Exception:  # the converter raises errors of many kinds, for formulas that authors are told of by the check
        return f"<code>{html.escape(latex)}</code>"


def _math(content: str, options: dict) -> str:
    return mathml(content, display=bool(options.get("display_mode")))


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    return parser.use(dollarmath_plugin, renderer=_math, allow_digits=True, double_inline=True)


def markdown_html(text: str) -> str:
    """Markdown as HTML."""
    shown = _markdown().render(text)
    # Tables and formulas may be wider than a phone: they scroll by themselves, and can be reached by keyboard.
    opened = '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>'
    formula = '<div class="math block" tabindex="0" role="group" aria-label="Formula">'
    shown = shown.replace('<div class="math block">', formula)
    return shown.replace("<table>", opened).replace("</table>", "</table></div>")


def document_html(text: str) -> str:
    """A document of the project as HTML, its headings with the anchors that search gives them."""
    anchors: dict[str, int] = {}

    def with_id(found: re.Match[str]) -> str:
        title = html.unescape(re.sub(r"<[^>]+>", "", found[2]))
        return f'<h{found[1]} id="{html.escape(unique_anchor(slug(title), anchors))}">{found[2]}</h{found[1]}>'

    return re.sub(r"<h([1-6])>(.*?)</h\1>", with_id, markdown_html(text))


def inline_html(text: str) -> str:
    """A short Markdown text without a paragraph around it."""
    return _markdown().renderInline(text)


def section_pieces(chapter: Chapter, section: Section, ids: Ids) -> list[Piece]:
    """A section's text with its recorded numbers and figures, cut at what the page itself puts in."""
    text = _with_values(chapter, section.text)
    pieces: list[Piece] = []
    at = 0
    for found in ALONE.finditer(text):
        pieces.append(Piece(markdown_html(text[at : found.start()])))
        insert = Insert(found["kind"], found["what"])
        maker = _MAKERS.get(insert.kind)
        pieces.append(Piece(insert=insert) if maker is None else Piece(maker(chapter, insert, ids)))
        at = found.end()
    pieces.append(Piece(markdown_html(text[at:])))
    return [piece for piece in pieces if piece.insert or piece.html.strip()]


def opening_html(chapter: Chapter, text: str) -> str:
    """What stands before the first section, with its recorded numbers."""
    return markdown_html(_with_values(chapter, text))


def plain_section(chapter: Chapter, section: Section) -> str:
    """A section as text for search and for the tutor: numbers in, everything else that is put in left out."""
    return re.sub(r"\n{3,}", "\n\n", ALONE.sub("", _with_values(chapter, section.text))).strip()


def _with_values(chapter: Chapter, text: str) -> str:
    def value(found: re.Match[str]) -> str:
        if found["kind"] != "value":
            return found[0]
        insert = Insert(found["kind"], found["what"])
        try:
            recording, name = cited(chapter, insert.name)
            return format_value(recording.value(name), insert.format)
        except UserError:
            return "…"  # the authors' check says what is missing

    return INSERT.sub(value, text)


def _figure(chapter: Chapter, insert: Insert, ids: Ids) -> str:
    try:
        recording, name = cited(chapter, insert.name)
        return block_html(recording.figure(name), ids)
    except UserError as error:
        return f'<p class="missing">{html.escape(error.message)}</p>'


def _source(chapter: Chapter, insert: Insert, ids: Ids) -> str:  # noqa: ARG001 (a maker has this form)
    module, _, name = insert.name.partition(":")
    found = source_of(module, name)
    if found is None:
        return f'<p class="missing">there is no {html.escape(insert.name)}</p>'
    code, line = found
    link = f"/reference/{module}#{name}"
    return (
        f'<figure class="source"><figcaption><a href="{html.escape(link)}">{html.escape(module)}</a>, line {line}'
        f'</figcaption><pre tabindex="0"><code>{html.escape(code)}</code></pre></figure>'
    )


_MAKERS: dict[str, Callable[[Chapter, Insert, Ids], str]] = {"figure": _figure, "source": _source}


@lru_cache(maxsize=64)
def source_of(module: str, name: str) -> tuple[str, int] | None:
    """The source text of a function or class of the toolchain and its line, read and never imported."""
    path = module_path(module)
    if path is None:
        return None
    text = path.read_text("utf-8")
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        children = [each for each in ast.iter_child_nodes(node) if getattr(each, "name", None) == part]
        if not children:
            return None
        node = children[0]
    lines = text.splitlines()[node.lineno - 1 : node.end_lineno]  # type: ignore[attr-defined]
    indent = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[indent:] for line in lines), node.lineno  # type: ignore[attr-defined]


def module_path(module: str) -> Path | None:
    """The file of a module of the toolchain; None for any other."""
    if not re.fullmatch(r"bottega(\.[a-z_0-9]+)*", module):
        return None
    root = importlib.util.find_spec("bottega")
    assert root is not None and root.submodule_search_locations
    path = Path(next(iter(root.submodule_search_locations))).joinpath(*module.split(".")[1:])
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)
