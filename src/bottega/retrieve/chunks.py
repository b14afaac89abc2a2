"""Passages of documents with exact offsets: `source[chunk.start : chunk.end] == chunk.text`, always.

Markdown is cut at its headings, and long sections at paragraphs; a fenced block is never cut in two unless it alone is
too long. Python is cut into the docstrings of its public modules, classes and functions, read with `ast` and never
imported. An anchor is an explicit `{#id}` of a heading, else the heading in the manner of GitHub.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bottega.core.errors import UserError

HEADING = re.compile(r"^(?P<marks>#{1,6})[ \t]+(?P<title>.*?)[ \t]*(?:\{#(?P<id>[\w-]+)[^}]*\})?[ \t]*#*$")
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
LONGEST = 1600  # characters of a chunk


@dataclass(frozen=True)
class Chunk:
    """A passage: where it stands (`source`, characters `start` to `end`), under which headings, at which anchor."""

    source: str
    start: int
    end: int
    text: str
    headings: tuple[str, ...] = ()
    anchor: str = ""

    @property
    def title(self) -> str:
        """The nearest heading."""
        return self.headings[-1] if self.headings else self.source


def markdown_chunks(text: str, source: str, *, longest: int = LONGEST) -> list[Chunk]:
    """The passages of a Markdown document, in order; together they cover everything but headings and blank lines."""
    chunks: list[Chunk] = []
    anchors: dict[str, int] = {}
    headings: list[tuple[int, str]] = []
    anchor, begin = "", 0
    for start, end, head in (*_headings(text), (len(text), len(text), None)):
        path = tuple(title for _, title in headings)
        chunks += [Chunk(source, a, b, text[a:b], path, anchor) for a, b in _passages(text, begin, start, longest)]
        begin = end
        if head is not None:
            level = len(head["marks"])
            headings = [each for each in headings if each[0] < level] + [(level, _plain(head["title"]))]
            anchor = head["id"] or unique_anchor(slug(head["title"]), anchors)
    return chunks


def text_chunks(text: str, source: str, *, longest: int = LONGEST) -> list[Chunk]:
    """The passages of a plain text: paragraphs, joined up to `longest` characters."""
    return [Chunk(source, a, b, text[a:b]) for a, b in _passages(text, 0, len(text), longest)]


def python_chunks(text: str, source: str, module: str, *, longest: int = LONGEST) -> list[Chunk]:
    """Docstrings of a module and of its public classes and functions; the anchor is the name within the module.

    Raises UserError where the text is not Python.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f"{source} is not Python: {error}") from None
    starts = _line_starts(text)
    found: list[Chunk] = []
    for name, node in _documented(tree, ""):
        constant = _docstring(node)
        if constant is None or constant.end_lineno is None or constant.end_col_offset is None:
            continue
        begin = starts[constant.lineno - 1] + _characters(text, starts, constant.lineno, constant.col_offset)
        end = starts[constant.end_lineno - 1] + _characters(text, starts, constant.end_lineno, constant.end_col_offset)
        quotes = re.match(r"[A-Za-z]*(\"\"\"|'''|\"|')", text[begin:end])
        begin, end = (begin + quotes.end(), end - len(quotes[1])) if quotes else (begin, end)
        headings = (module, name) if name else (module,)
        found += [Chunk(source, a, b, text[a:b], headings, name) for a, b in _passages(text, begin, end, longest)]
    return found


def slug(title: str) -> str:
    """The anchor of a heading as GitHub makes it: lower case, spaces to hyphens, punctuation dropped."""
    return re.sub(r"[^\w\- ]", "", _plain(title).lower()).strip().replace(" ", "-")


def _plain(title: str) -> str:
    """A heading without its Markdown: emphasis, code, links."""
    return re.sub(r"[*`]|\[|\]\([^)]*\)", "", title).strip()


def unique_anchor(name: str, taken: dict[str, int]) -> str:
    """The anchor `name`, with a number behind it if a heading before had the same."""
    count = taken.get(name, 0)
    taken[name] = count + 1
    return f"{name}-{count}" if count else name


def _headings(text: str) -> Iterator[tuple[int, int, re.Match[str]]]:
    """Start and end of each heading's line, outside fenced blocks."""
    fence, at = "", 0
    for line in text.splitlines(keepends=True):
        mark = FENCE.match(line)
        if mark and (not fence or (line.strip().startswith(fence) and not line.strip().strip(fence[0]))):
            fence = "" if fence else mark[1]
        head = None if fence or mark else HEADING.match(line.rstrip("\r\n"))
        if head:
            yield at, at + len(line), head
        at += len(line)


def _passages(text: str, start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """Paragraphs from `start` to `end`, joined up to `longest`; longer ones are cut at a line, sentence or space."""
    current: tuple[int, int] | None = None
    for a, b in _paragraphs(text, start, end):
        if current and b - current[0] <= longest:
            current = (current[0], b)
            continue
        if current:
            yield current
        while b - a > longest:
            cut = _cut(text, a, a + longest)
            yield from _trimmed(text, a, cut)
            a = next((start for start, _ in _trimmed(text, cut, b)), b)
        current = (a, b) if a < b else None
    if current:
        yield current


def _paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """What stands between blank lines, without white space around it; a fenced block is one paragraph."""
    fence, begin, at = "", -1, start
    for line in text[start:end].splitlines(keepends=True):
        mark = FENCE.match(line)
        blank = not line.strip() and not fence
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark[1]
        if blank and begin >= 0:
            yield from _trimmed(text, begin, at)
            begin = -1
        elif not blank and begin < 0:
            begin = at
        at += len(line)
    if begin >= 0:
        yield from _trimmed(text, begin, end)


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    end -= len(piece) - len(piece.rstrip())
    if start < end:
        yield start, end


def _cut(text: str, start: int, end: int) -> int:
    """The best place before `end` to cut a long paragraph, at least half-way."""
    for mark in ("\n", ". ", "。", " "):
        at = text.rfind(mark, start + (end - start) // 2, end)
        if at > start:
            return at + len(mark.rstrip(" \n"))
    return end


def _documented(tree: ast.Module, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """The module and every public class and function in it, by name."""
    yield prefix, tree
    stack: list[tuple[str, ast.AST]] = [(prefix, tree)]
    while stack:
        name, node = stack.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
                inner = f"{name}.{child.name}" if name else child.name
                yield inner, child
                if isinstance(child, ast.ClassDef):
                    stack.append((inner, child))


def _docstring(node: ast.AST) -> ast.Constant | None:
    body = getattr(node, "body", [])
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        constant = body[0].value
        return constant if isinstance(constant.value, str) else None
    return None


def _line_starts(text: str) -> list[int]:
    """Offset of each line as Python's parser counts them."""
    return [0, *(found.end() for found in re.finditer(r"\r\n|\r|\n", text))]


def _characters(text: str, starts: list[int], line: int, column: int) -> int:
    """How many characters the first `column` bytes of a line are."""
    begin = starts[line - 1]
    return len(text[begin : begin + column].encode("utf-8")[:column].decode("utf-8", "ignore"))
