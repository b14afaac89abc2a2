"""Texts as blocks of lines: the units that deduplication compares and drops.

Of Python source: every function, every docstring, and the paragraphs in between. Of any
other text: its paragraphs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """Lines first … last (both included, from 1) and their text."""

    first: int
    last: int
    text: str


def paragraphs(text: str) -> list[Block]:
    """Runs of lines between blank lines."""
    return list(_runs(list(enumerate(text.split("\n"), 1))))


def python_blocks(text: str, tree: ast.Module) -> list[Block]:
    """Functions (methods too, inner ones as part of theirs), docstrings, and paragraphs of what remains."""
    lines = text.split("\n")
    found: list[Block] = []

    def block(first: int, last: int) -> None:
        found.append(Block(first, last, "\n".join(lines[first - 1 : last])))

    def visit(body: Iterable[ast.stmt], inside_function: bool) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if not inside_function:
                    block(min([node.lineno, *(d.lineno for d in node.decorator_list)]), node.end_lineno or node.lineno)
                visit(node.body, True)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                if isinstance(node.value.value, str):
                    block(node.lineno, node.end_lineno or node.lineno)
            elif isinstance(node, ast.ClassDef):
                visit(node.body, inside_function)
            elif isinstance(node, ast.If | ast.Try):
                visit([*node.body, *node.orelse], inside_function)

    visit(tree.body, False)
    covered = {number for b in found for number in range(b.first, b.last + 1)}
    rest = [(number, "" if number in covered else line) for number, line in enumerate(lines, 1)]
    return found + list(_runs(rest))


def without(text: str, blocks: Iterable[Block]) -> str:
    """The text without the lines of the given blocks."""
    gone = {number for b in blocks for number in range(b.first, b.last + 1)}
    return "\n".join(line for number, line in enumerate(text.split("\n"), 1) if number not in gone)


def _runs(lines: list[tuple[int, str]]) -> Iterator[Block]:
    run: list[tuple[int, str]] = []
    for number, line in [*lines, (0, "")]:
        if line.strip():
            run.append((number, line))
        elif run:
            yield Block(run[0][0], run[-1][0], "\n".join(text for _, text in run))
            run = []
