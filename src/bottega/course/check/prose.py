"""Reading Markdown as the pages do: formulas, links and what is not allowed, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from xml.etree import ElementTree

_CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "mroot": 2, "msubsup": 3, "munderover": 3}
PATHS = re.compile(r"(?<![\w.])/(home|root|Users|work|mnt)/\w+")


@dataclass(frozen=True)
class Part:
    """A piece of Markdown: `kind` is formula, link, image, html, code or text; `line` counts from 0."""

    kind: str
    content: str
    line: int


@cache
def _parser() -> Any:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    return MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin, double_inline=True)


def parts(text: str) -> Iterator[Part]:
    """The pieces of `text` in order."""
    for token in _parser().parse(text):
        line = token.map[0] if token.map else 0
        if token.type in ("math_block", "math_block_label"):
            yield Part("formula", token.content, line)
        elif token.type == "html_block":
            yield Part("html", token.content, line)
        elif token.type in ("fence", "code_block"):
            yield Part("code", token.content, line)
        elif token.type == "inline":
            yield from _inline(token.children or [], line)


def _inline(children: list[Any], line: int) -> Iterator[Part]:
    for token in children:
        if token.type in ("softbreak", "hardbreak"):
            line += 1
        elif token.type.startswith("math_inline"):
            yield Part("formula", token.content, line)
        elif token.type == "html_inline":
            yield Part("html", token.content, line)
        elif token.type == "code_inline":
            yield Part("code", token.content, line)
        elif token.type == "link_open":
            yield Part("link", token.attrs["href"], line)
        elif token.type == "image":
            yield Part("image", token.attrs["src"], line)
        elif token.type == "text":
            yield Part("text", token.content, line)


@cache
def formula_problem(latex: str) -> str:
    """What is wrong with a formula; empty if it becomes MathML without anything left over."""
    from latex2mathml.converter import convert

    if latex.strip(" ") != latex or not latex.strip():
        return "it begins or ends with a space: a dollar that is none of a formula is written \\$"
    if latex.count("{") != latex.count("}"):
        return "its braces do not match"
    try:
        mathml = convert(latex.strip())
        tree = ElementTree.fromstring(mathml)
    except Exception as error:
        return f"{type(error).__name__} {error}".strip()
    left = re.search(r"\\[A-Za-z]+", "".join(tree.itertext()))
    if left:
        return f"{left[0]} is not known"
    for node in tree.iter():
        tag = node.tag.rpartition("}")[2]
        if tag in _CHILDREN and len(node) != _CHILDREN[tag]:
            return f"a part of {tag} is missing"
        if tag in ("mi", "mn", "mo") and not (node.text or "").strip() and not len(node):
            return "a part of it comes out empty"
    return ""
