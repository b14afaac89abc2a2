"""Rules of a translation: the same sections, inserts, formulas and numbers as the English; the terms of the course."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from bottega.core.errors import UserError
from bottega.core.schema import Config
from bottega.course.check.lesson import section_text
from bottega.course.check.problem import Problem, line_of
from bottega.course.check.prose import parts
from bottega.course.lesson import Lesson, Section
from bottega.course.library import Chapter

_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(?![\w])")


class Term(Config):
    """How a term is called in both languages."""

    en: str
    """English."""
    zh: str
    """Chinese."""
    wrong_zh: tuple[str, ...] = ()
    """What it must not be called: mistranslations that are about."""
    also_en: tuple[str, ...] = ()
    """Other English names of the same thing."""


class Terminology(Config):
    """`content/terminology.toml`."""

    term: tuple[Term, ...] = Field(min_length=1)
    """The terms."""


def parity_problems(chapter: Chapter, terms: tuple[Term, ...]) -> Iterator[Problem]:
    """How the Chinese lesson differs from the English one; nothing where there is none."""
    yield from _term_problems(chapter.folder / "chapter.toml", terms)
    if "zh" not in chapter.languages():
        return
    english, chinese = chapter.lesson("en"), chapter.lesson("zh")
    yield from _term_problems(chinese.path, terms)
    ids = [section.id for section in english.sections]
    theirs = [section.id for section in chinese.sections]
    if ids != theirs:
        yield from _sections(chinese, ids, theirs)
    for ours in english.sections:
        section = chinese.section(ours.id)
        if section is not None:
            yield from _section(chinese.path, ours, section)


def _sections(chinese: Lesson, ids: list[str], theirs: list[str]) -> Iterator[Problem]:
    for name in ids:
        if name not in theirs:
            yield Problem(chinese.path, 0, "parity-sections", f"the section {name} is missing")
    for name in theirs:
        if name not in ids:
            line = line_of(chinese.path, f"{{#{name}")
            yield Problem(chinese.path, line, "parity-sections", f"the section {name} is not in the English lesson")
    if sorted(ids) == sorted(theirs):
        yield Problem(chinese.path, 0, "parity-sections", "the sections are in another order")


def _section(path: Path, english: Section, chinese: Section) -> Iterator[Problem]:
    if english.leaf != chinese.leaf:
        message = f"{english.id}: its leaf is {chinese.leaf}, in English {english.leaf}"
        yield Problem(path, chinese.line, "parity-leaf", message)
    compared = {
        "inserts": ([f"{{{{{each.kind}:{each.what}}}}}" for each in section.inserts] for section in (english, chinese)),
        "formulas": (_pieces(section, "formula") for section in (english, chinese)),
        "links": (_pieces(section, "link") for section in (english, chinese)),
        "numbers": (_NUMBER.findall(section_text(section)) for section in (english, chinese)),
        "blocks of code": ([str(section.text.count("```"))] for section in (english, chinese)),
    }
    for what, (ours, theirs) in compared.items():
        missing, more = Counter(ours) - Counter(theirs), Counter(theirs) - Counter(ours)
        if missing or more:
            lacks = [f"without {', '.join(missing.elements())}"] if missing else []
            has = [f"with {', '.join(more.elements())}"] if more else []
            message = f"{english.id}: other {what} than in English: {' and '.join([*lacks, *has])}"
            yield Problem(path, chinese.line, f"parity-{what.split()[0]}", message)


def _pieces(section: Section, kind: str) -> list[str]:
    return ["".join(part.content.split()) for part in parts(section.text) if part.kind == kind]


def _term_problems(path: Path, terms: tuple[Term, ...]) -> Iterator[Problem]:
    text = path.read_text("utf-8")
    for term in terms:
        for wrong in term.wrong_zh:
            if wrong in text:
                message = f"{term.en} is not {wrong}"
                yield Problem(path, line_of(path, wrong), "terminology", message, f"Write {term.zh}.")


def read_terms(folder: Path) -> tuple[Term, ...]:
    """The terms of the course under `folder`; () where there is no file."""
    path = folder / "terminology.toml"
    if not path.is_file():
        return ()
    try:
        return Terminology.parse(tomllib.loads(path.read_text("utf-8")), where=path.name).term
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path.name}: {error}") from None
