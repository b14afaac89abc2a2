"""HTML to plain text with Markdown headings, through the standard library's parser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SILENT = frozenset({"script", "style", "noscript", "template", "svg", "nav", "head", "title"})
_PARAGRAPHS = frozenset({"blockquote", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "table", "ul"})
_LINES = frozenset(
    {"address", "article", "aside", "body", "dd", "details", "div", "dt", "figcaption", "figure", "footer", "form"}
    | {"header", "hr", "html", "li", "main", "section", "summary", "tbody", "thead", "tr"}
)
_BLOCKS = _PARAGRAPHS | _LINES


class _Text(HTMLParser):
    """Collects text: blocks on lines of their own, h1 … h6 as # … ######, list items with a dash."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.silent: list[str] = []
        self.verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag == "body":
            # A head may be left unclosed; the body ends it.
            self.silent.clear()
        if self.silent or tag in _SILENT:
            if tag in _SILENT:
                self.silent.append(tag)
            return
        if tag in _BLOCKS or tag == "br":
            self.parts.append("\n\n" if tag in _PARAGRAPHS else "\n")
        if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456":
            self.parts.append("#" * int(tag[1]) + " ")
        elif tag == "li":
            self.parts.append("- ")
        elif tag in ("td", "th"):
            self.parts.append(" ")
        self.verbatim += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if self.silent:
            if tag in self.silent:
                del self.silent[self.silent.index(tag) :]
            return
        if tag in _BLOCKS:
            self.parts.append("\n\n" if tag in _PARAGRAPHS else "\n")
        if tag == "pre":
            self.verbatim = max(0, self.verbatim - 1)

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.parts.append(data if self.verbatim else re.sub(r"\s+", " ", data))

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """`<![if …]>`, which word processors write: to a browser a comment, to the base class an error."""
        return self.parse_bogus_comment(i, report)


def html_to_text(html: str) -> str:
    """The readable text of an HTML page; broken markup is read as browsers do, never refused."""
    parser = _Text()
    parser.feed(html)
    parser.close()
    text = "\n".join(line.rstrip() for line in "".join(parser.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()
