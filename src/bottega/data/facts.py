"""Facts that a text states about named things: what a question asks, and its answer.

From the standard library: what something does (docstring), which module has it, what its
parameters are. From documents with headings: what a section says. An answer is whole
sentences of at most MAX_ANSWER characters, in the words of the text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bottega.data.symbols import Symbol

Kind = Literal["what", "module", "parameters", "section"]

MAX_ANSWER = 300
_ENOUGH = 160
"""Characters after which no further sentence is added to an answer."""
_CONSIDERED = 2_000
"""Characters of a paragraph or a heading that are looked at: the patterns take the square of it in time."""
_MIN_ANSWER = 20
_MAX_PARAMETERS = 8
_SIGNATURE = re.compile(r"^[\w.]+\s*\([^\n]*\)(\s*-+>.*)?$|^[\w.]+\(.*?\)\s*-+>|^[\w.]+\([^)]*\)\s*(--?|:)\s")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]?\s+(?=[A-Z`\"'(\[*])")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|cf|vs|approx|resp|incl|no|fig|eq|[A-Z]|\d{1,2})\.$", re.IGNORECASE)
_ROLE = re.compile(r":[a-z:]+:`[~!]?([^`<]+)(?:\s*<[^`>]*>)?`")
_ATTRIBUTES = re.compile(r"\s*\{[#.:][^}]*\}")
_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
_NAME_DASH = re.compile(r"^[\w.]+\s+-{1,2}\s+")
# What says nothing that could be known: pointers, boilerplate, notes of the authors.
_EMPTY_WORDS = re.compile(
    r"^(see |same as |like |todo|xxx|internal|deprecated|inherited|alias |overrid|helper |abstract method|for internal"
    r"|initiali[sz]e self|constructor|\$id|copyright|used internally)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Fact:
    """A question's subject and its answer. `noun` says what the subject is; `place` where it stands (a title)."""

    kind: Kind
    subject: str
    answer: str
    noun: str = ""
    place: str = ""

    @property
    def id(self) -> str:
        """Unique among the facts of one corpus."""
        return f"{self.kind}:{self.place}:{self.subject}" if self.place else f"{self.kind}:{self.subject}"


def symbol_facts(symbols: Sequence[Symbol], ambiguous: Counter[str]) -> Iterator[Fact]:
    """The facts about the standard library's symbols.

    `ambiguous` counts in how many modules a short name stands; one that stands in several is
    not asked for by that name.
    """
    for symbol in symbols:
        summary = summarize(symbol.doc)
        if summary:
            yield Fact("what", symbol.name, summary, symbol.noun)
        is_importable = symbol.noun in ("function", "class") and "." not in symbol.path and symbol.module != "builtins"
        if is_importable and symbol.doc and len(symbol.path) > 2 and ambiguous[symbol.path] == 1:
            yield Fact("module", symbol.path, f"It is in the {symbol.module} module.", symbol.noun)
        if symbol.parameters and len(symbol.parameters) <= _MAX_PARAMETERS and symbol.doc:
            yield Fact("parameters", symbol.name, _parameters(symbol.parameters), symbol.noun)


def short_names(symbols: Sequence[Symbol]) -> Counter[str]:
    """In how many modules each top-level name stands."""
    return Counter(symbol.path for symbol in symbols if symbol.path and "." not in symbol.path)


def section_facts(text: str, name: str, *, is_row: bool = False) -> Iterator[Fact]:
    """One fact for each heading (Markdown, or underlined) that a paragraph of prose follows.

    `name` is the file's; a row of a file is called by the heading that it begins with, and
    has no facts without one. A heading that stands twice in the document names no one section
    and is left out.
    """
    place = re.sub(r"\.\w+$", "", name.rpartition("/")[2]).replace("_", " ")
    if is_row:
        title = _HEADING.match(_mark_headings(text).strip().partition("\n")[0])
        if title is None:
            return
        place = _plain(title[2])
    found: dict[str, str] = {}
    twice: set[str] = set()
    heading = ""
    for paragraph in re.split(r"\n\s*\n", _mark_headings(text)):
        lines = paragraph.strip("\n").split("\n")
        while lines and (match := _HEADING.match(lines[0])):
            heading = _plain(_ATTRIBUTES.sub("", match[2]))
            twice |= {heading} & found.keys()
            lines = lines[1:]
        if lines and heading:
            summary = summarize("\n".join(lines))
            if summary and len(heading) <= 100 and heading not in found and heading not in twice:
                found[heading] = summary
            # Only the first paragraph speaks for the section.
            heading = ""
    for heading, summary in found.items():
        if heading not in twice:
            yield Fact("section", heading, summary, "section", place)


def summarize(doc: str) -> str:
    """The first sentences of a text's first paragraph, or '' if they are no prose, too short or too long."""
    paragraphs = [p for p in re.split(r"\n\s*\n", doc.strip()) if p.strip()]
    if paragraphs and _SIGNATURE.match(paragraphs[0].strip().split("\n")[0]):
        rest = paragraphs[0].strip().split("\n")[1:]
        paragraphs = ["\n".join(rest), *paragraphs[1:]] if "".join(rest).strip() else paragraphs[1:]
    if not paragraphs:
        return ""
    lines = _plain(paragraphs[0].strip()).split("\n")
    if len(lines) > 1 and len(lines[0]) < 50 and lines[0][-1] not in ".,;:" and lines[1].lstrip()[:1].isupper():
        # A title or a usage line above the sentence.
        lines = lines[1:]
    if not _is_prose("\n".join(lines)):
        return ""
    text = _NAME_DASH.sub("", " ".join(" ".join(lines).split()))
    answer = ""
    for sentence in _sentences(text):
        longer = f"{answer} {sentence}".strip()
        if len(longer) > MAX_ANSWER or (answer and len(longer) > _ENOUGH) or sentence.endswith(":"):
            break
        answer = longer
    if len(answer) < _MIN_ANSWER or len(answer.split()) < 3 or _EMPTY_WORDS.match(answer):
        return ""
    if not answer[0].isalnum() and answer[0] not in "\"'([":
        return ""
    answer = answer[0].upper() + answer[1:] if answer.split()[0].isalpha() else answer
    return answer if answer[-1] in ".!?" else answer.rstrip(",;") + "."


def _is_prose(paragraph: str) -> bool:
    lines = paragraph.strip().split("\n")
    first = lines[0].lstrip()
    if first.startswith((">>>", "- ", "* ", "+ ", "|", "```", "~~~", ".. ", "<", "![", "@", "usage", "Usage")):
        return False
    if re.match(r"\d+[.)]\s", first) or any(line.lstrip().startswith((">>>", "- ", "* ")) for line in lines):
        return False
    if any(re.search(r"\S {3,}\S", line.strip()) for line in lines) or _SIGNATURE.match(first):
        return False
    letters = sum(character.isalpha() or character.isspace() for character in paragraph)
    return letters >= 0.8 * len(paragraph) and "=" not in first.split(" ")[0]


def _sentences(text: str) -> Iterator[str]:
    begin = 0
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[: match.start()]):
            yield text[begin : match.end()].strip()
            begin = match.end()
    yield text[begin:].strip()


def _plain(text: str) -> str:
    """Its beginning, without the markup of reStructuredText and Markdown."""
    text = _ROLE.sub(r"\1", text[:_CONSIDERED])
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"(`{1,2}|\*\*)(?=\S)(.+?)(?<=\S)\1", r"\2", text)


def _mark_headings(text: str) -> str:
    """Underlined headings as # ones, each in a paragraph of its own; fenced code is taken out."""
    text = re.sub(r"^(```|~~~).*?^\1[^\n]*$", "", text.replace("\r\n", "\n"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^([^\s#\n>-][^\n]{0,99})\n([=\-~^])\2{2,}[ \t]*$", r"\n# \1\n", text, flags=re.MULTILINE)
    return re.sub(r"^(#{1,6} [^\n]+)$", r"\n\1", text, flags=re.MULTILINE)


def _parameters(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"Its only parameter is {names[0]}."
    return f"Its parameters are {', '.join(names[:-1])} and {names[-1]}."
