"""Rules of a lesson: every leaf has a section, what is put in exists, formulas convert, links lead somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bottega.core.errors import UserError, did_you_mean
from bottega.course.check.problem import Problem
from bottega.course.check.prose import PATHS, formula_problem, parts
from bottega.course.lesson import INSERT, Insert, Lesson, Section
from bottega.course.library import Chapter, Course
from bottega.course.recorded import cited, format_value, recording_path
from bottega.course.schema import PARTS, Language
from bottega.retrieve.chunks import markdown_chunks

PACKAGE = Path(__file__).resolve().parents[2]
DOCS = PACKAGE.parents[1] / "docs"
_PAGES = ("", "review", "placement", "ask", "progress", "certificate", "chat", "arena")
_CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$|(`+)(?!`).+?(?<!`)\2(?!`)", re.MULTILINE | re.DOTALL)


def lesson_problems(chapter: Chapter, course: Course) -> Iterator[Problem]:
    """Everything about the lesson in every language that it is written in."""
    lessons: dict[Language, Lesson] = {language: chapter.lesson(language) for language in chapter.languages()}
    for lesson in lessons.values():
        yield from _structure(lesson, chapter)
        yield from _inserts(lesson, chapter)
        yield from _texts(lesson, chapter, course)
    yield from _all_put_in(lessons["en"], chapter)


def _structure(lesson: Lesson, chapter: Chapter) -> Iterator[Problem]:
    if not lesson.title:
        yield Problem(lesson.path, 1, "title", "the lesson has no title", "Begin with # Title.")
    leaves = [leaf.id for leaf in chapter.data.leaves]
    for section in lesson.sections:
        if section.leaf is not None and section.leaf not in leaves:
            message = f"there is no leaf {section.leaf!r} in this chapter"
            yield Problem(lesson.path, section.line, "leaf-exists", message, did_you_mean(section.leaf, leaves))
        if not section.text:
            yield Problem(lesson.path, section.line, "section-full", f"the section {section.id} is empty")
    for leaf in leaves:
        if leaf not in {section.leaf for section in lesson.sections}:
            yield Problem(
                lesson.path, 0, "leaf-section", f"no section teaches the leaf {leaf}", f"## Title {{#id leaf={leaf}}}"
            )


def _inserts(lesson: Lesson, chapter: Chapter) -> Iterator[Problem]:
    for text, first in texts_of(lesson):
        bare = without_code(text)
        for number, line in enumerate(bare.splitlines(), start=first):
            found = list(INSERT.finditer(line))
            if line.count("{{") != len(found):
                message = "what stands in double braces is no insert"
                yield Problem(
                    lesson.path, number, "insert-form", message, "{{KIND:NAME}} with one of the kinds of lesson.py"
                )
            for match in found:
                insert = Insert(match["kind"], match["what"])
                if insert.kind != "value" and line.strip() != match[0]:
                    yield Problem(lesson.path, number, "insert-line", f"{match[0]} does not stand on a line of its own")
                problem = insert_problem(insert, chapter)
                if problem:
                    yield Problem(lesson.path, number, f"{insert.kind}-exists", *problem)


def insert_problem(insert: Insert, chapter: Chapter) -> tuple[str, str] | None:
    """What is wrong with an insert, and what to do; None if it can be put in."""
    known = {
        "lab": list(chapter.labs),
        "exercise": list(chapter.exercises),
        "quiz": [concept.id for concept in chapter.data.concepts],
        "view": list(views()),
    }
    if insert.kind in known:
        if insert.name in known[insert.kind] or (insert.kind == "view" and not known["view"]):
            return None
        return f"there is no {insert.kind} {insert.name!r}", did_you_mean(insert.name, known[insert.kind])
    if insert.kind == "source":
        module, _, symbol = insert.name.partition(":")
        return None if has_symbol(module, symbol) else (f"there is no {symbol!r} in {module}", "{{source:MODULE:NAME}}")
    lab = chapter.labs.get(insert.name.partition(".")[0])
    if lab is not None and not recording_path(lab).is_file():
        return None  # said once, of the lab
    try:
        recording, name = cited(chapter, insert.name)
        if insert.kind == "figure":
            recording.figure(name)
        else:
            format_value(recording.value(name), insert.format)
    except UserError as error:
        return error.message, error.hint
    except ValueError as error:
        return f"{insert.format!r} is no format of a number: {error}", "{{value:LAB.NAME|.3f}}"
    return None


def _all_put_in(lesson: Lesson, chapter: Chapter) -> Iterator[Problem]:
    used = {(insert.kind, insert.name) for section in lesson.sections for insert in section.inserts}
    used |= {(match["kind"], Insert(match["kind"], match["what"]).name) for match in INSERT.finditer(lesson.opening)}
    for kind, names in (("lab", chapter.labs), ("exercise", chapter.exercises)):
        for name in names:
            if (kind, name) not in used:
                message = f"the {kind} {name} is nowhere in the lesson"
                yield Problem(lesson.path, 0, f"{kind}-used", message, f"{{{{{kind}:{name}}}}} on a line of its own")


def _texts(lesson: Lesson, chapter: Chapter, course: Course) -> Iterator[Problem]:
    for text, first in texts_of(lesson):
        yield from text_problems(text, lesson.path, first, chapter, course)


def text_problems(text: str, path: Path, first: int, chapter: Chapter, course: Course) -> Iterator[Problem]:
    """What is wrong with a piece of Markdown whose first line is line `first` of `path`."""
    for part in parts(text):
        line = first + part.line
        if part.kind == "formula":
            problem = formula_problem(part.content.strip("\n"))
            if problem:
                yield Problem(path, line, "formula", f"${part.content.strip()}$: {problem}")
        elif part.kind == "link":
            problem = link_problem(part.content, chapter, course)
            if problem:
                yield Problem(path, line, "link", *problem)
        elif part.kind == "image":
            yield Problem(
                path, line, "image", f"an image {part.content!r}", "Let a lab show a figure, and put that in."
            )
        elif part.kind == "html":
            yield Problem(path, line, "html", f"HTML in a text: {part.content.strip()[:40]!r}", "Write Markdown.")
        if part.kind in ("text", "code") and PATHS.search(part.content):
            yield Problem(path, line, "machine-path", f"a path of a machine: {PATHS.search(part.content)[0]!r}")  # type: ignore[index]


def link_problem(target: str, chapter: Chapter, course: Course) -> tuple[str, str] | None:
    """What is wrong with a link, and what to do."""
    if target.startswith(("http://", "https://")):
        if target in {source.url for source in chapter.data.sources}:
            return None
        return f"{target} is none of the chapter's sources", "Add it to [[sources]]: links are never needed to learn."
    path, _, anchor = target.partition("#")
    if not path:
        path = f"/course/{chapter.id}"
    try:
        known = path.startswith("/") and _is_page(path.strip("/").split("/"), anchor, course)
    except UserError as error:
        return error.message, error.hint
    return None if known else (f"nothing is at {target}", "")


def _is_page(words: list[str], anchor: str, course: Course) -> bool:
    match words:
        case ["course", name]:
            chapter = course.chapter(name)
            return chapter.written and (not anchor or chapter.lesson().section(anchor) is not None)
        case ["course", name, "quiz"]:
            return bool(course.chapter(name).items)
        case ["course", name, "lab", lab]:
            return lab in course.chapter(name).labs
        case ["course", name, "exercise", exercise]:
            return exercise in course.chapter(name).exercises
        case ["roadmap", part]:
            return part in PARTS
        case ["challenge", concept]:
            return concept in course.concepts
        case ["view", name]:
            return name in views() or not views()
        case ["docs", name]:
            return not DOCS.is_dir() or _has_heading(DOCS / f"{name}.md", anchor)
        case ["reference", module]:
            return has_symbol(module, anchor)
        case [page]:
            return page in _PAGES
    return False


def _has_heading(path: Path, anchor: str) -> bool:
    if not path.is_file():
        return False
    return not anchor or anchor in {chunk.anchor for chunk in markdown_chunks(path.read_text("utf-8"), path.stem)}


@cache
def has_symbol(module: str, symbol: str) -> bool:
    """Whether a module of bottega defines `symbol` (NAME or CLASS.NAME), read from its source."""
    parts_ = module.split(".")
    if parts_[0] != "bottega":
        return False
    base = PACKAGE.joinpath(*parts_[1:])
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if not path.is_file():
        return False
    body = ast.parse(path.read_text("utf-8")).body
    for name in symbol.split(".") if symbol else []:
        node = next((each for each in body if name in _names(each)), None)
        if node is None:
            return False
        body = getattr(node, "body", [])
    return True


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@cache
def views() -> tuple[str, ...]:
    """The names of the interactive views, as the package `course.views` lists them in VIEWS; () where there is none."""
    for path in sorted((PACKAGE / "course" / "views").glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            value = getattr(node, "value", None)
            if "VIEWS" in _names(node) and isinstance(value, ast.Dict):
                return tuple(str(key.value) for key in value.keys if isinstance(key, ast.Constant))
    return ()


def texts_of(lesson: Lesson) -> Iterator[tuple[str, int]]:
    """The opening and every section's text, each with the line on which it begins."""
    lines = lesson.path.read_text("utf-8").splitlines()
    yield lesson.opening, _first_line(lines, 0)
    for section in lesson.sections:
        yield section.text, _first_line(lines, section.line)


def _first_line(lines: list[str], at: int) -> int:
    """The line, from 1, of the first text behind line `at`."""
    while at < len(lines) and (not lines[at].strip() or lines[at].startswith("# ")):
        at += 1
    return at + 1


def without_code(text: str) -> str:
    """The text with code blanked out, line by line."""
    return _CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def section_text(section: Section) -> str:
    """A section's words: without code, formulas and inserts."""
    text = INSERT.sub(" ", without_code(section.text))
    return re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", " ", text, flags=re.DOTALL)
