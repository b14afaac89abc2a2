"""What the tutor may answer from: lessons, the toolchain's docstrings, the project's documentation, the learner's runs.

Exercises and the answers of questions are not part of it, so that nothing of them can be told.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bottega.core.atomic import write_text
from bottega.core.errors import UserError
from bottega.core.hashing import digest_data
from bottega.course.lesson import Section
from bottega.course.library import CONTENT, Chapter, Course
from bottega.course.render import module_path, plain_section
from bottega.course.schema import Language
from bottega.retrieve.bm25 import Bm25
from bottega.retrieve.chunks import markdown_chunks, python_chunks

Kind = Literal["lesson", "documentation", "reference", "run", "exercise"]
# Lessons explain; documentation and docstrings tell how a thing is called. Of equals the first is wanted.
WEIGHTS: dict[Kind, float] = {"lesson": 5.0, "run": 2.0, "documentation": 1.2, "reference": 0.4}
# How often a passage's heading counts: a section's says what it is about, a docstring's is a name.
TITLES: dict[Kind, int] = {"lesson": 2, "run": 2, "documentation": 2, "reference": 1}
VERSION = 6  # of how passages are made
MOST_RUNS, MOST_VALUES = 200, 60
LONGEST = 4000
NO_ANSWERS = ("roadmap", "log")  # lists of what is planned, and of what was tried


@dataclass(frozen=True)
class Passage:
    """A text, its title, and the address of the page and section where it stands."""

    text: str
    title: str
    anchor: str
    kind: Kind
    heading: str = ""
    """The part of the title that is its own."""
    also: str = ""
    """Lines that it is found by beside its own words: concepts, terms, what is asked about it. Never shown."""
    language: Language = "en"


def documentation_folder() -> Path | None:
    """The project's docs, where the package runs from a checkout."""
    folder = CONTENT.parents[3] / "docs"
    return folder if (folder / "architecture.md").is_file() else None


def lesson_passages(course: Course) -> Iterator[Passage]:
    """Every section of every lesson that teaches a leaf; the questions at a lesson's end teach none."""
    for chapter in course.written():
        for language in chapter.languages():
            for section in (each for each in chapter.lesson(language).sections if each.leaf):
                title = f"{chapter.data.title.of(language)}: {section.title}"
                also = "\n".join(_also(chapter, section, language))
                text, anchor = plain_section(chapter, section), f"/course/{chapter.id}#{section.id}"
                yield Passage(text, title, anchor, "lesson", section.title, also, language)


def _also(chapter: Chapter, section: Section, language: Language) -> Iterator[str]:
    """What a section is about: its concepts and exercises, its terms once more, and what questions on it ask."""
    asked = {insert.name for insert in section.inserts if insert.kind == "quiz"}
    exercises = [each for each in chapter.exercises.values() if each.data.section == section.id]
    yield from (concept.title.of(language) for concept in chapter.data.concepts if concept.id in asked)
    yield from (each.data.title.of(language) for each in exercises)
    yield from (name.replace("-", " ") for name in (section.id, *sorted(asked), *(each.name for each in exercises)))
    yield from (leaf.title.of(language) for leaf in chapter.data.leaves if leaf.id == section.leaf)
    yield from emphasised(section.text)
    if language == "en":
        yield from (item.stem for item in chapter.items if item.section == section.id)


def emphasised(text: str) -> list[str]:
    """The terms that a text emphasises, which is where it says what they mean."""
    found = re.findall(r"(?<![*\w])\*{1,2}(?! )([^*\n]{2,60})(?<! )\*{1,2}(?![*\w])", text)
    return [each for each in found if each != "The common mistake"]


def indexed(own: list[Passage], cache: Path) -> tuple[list[Passage], Bm25]:
    """`own` with documentation and docstrings, and the index of all; kept in `cache` until a file changes."""
    files = [*_documents(), *_modules()]
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = digest_data([VERSION, stamps, [vars(each) for each in own]])[:16]
    place, index_place = cache / f"passages-{key}.json", cache / f"index-{key}.json"
    with contextlib.suppress(UserError, OSError, ValueError, TypeError):
        passages = [Passage(*row) for row in json.loads(place.read_text("utf-8"))]
        return passages, Bm25.load(index_place)
    passages = [*own, *_documentation(), *_reference()]
    index = Bm25.build(f"{(each.heading + ' ') * TITLES[each.kind]}{each.also} {each.text}" for each in passages)
    with contextlib.suppress(OSError):  # without a cache it takes a second longer
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.iterdir():
            old.unlink()
        index.save(index_place)
        write_text(place, json.dumps([list(vars(each).values()) for each in passages]))
    return passages, index


def _documents() -> list[Path]:
    folder = documentation_folder()
    return [path for path in sorted(folder.glob("*.md")) if path.stem not in NO_ANSWERS] if folder else []


def _modules() -> list[Path]:
    package = module_path("bottega")
    assert package is not None
    paths = (path for path in sorted(package.parent.rglob("*.py")) if "content" not in path.parts)
    return [path for path in paths if path.name == "__init__.py" or not path.name.startswith("_")]


def _documentation() -> Iterator[Passage]:
    for path in _documents():
        for chunk in markdown_chunks(path.read_text("utf-8"), path.name, longest=LONGEST):
            title = " › ".join(chunk.headings) or path.stem
            anchor = f"/docs/{path.stem}#{chunk.anchor}"
            yield Passage(chunk.text, title, anchor, "documentation", f"{path.stem} {title}")


def _reference() -> Iterator[Passage]:
    package = module_path("bottega")
    assert package is not None
    root = package.parent
    for path in _modules():
        parts = path.relative_to(root.parent).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        for chunk in python_chunks(path.read_text("utf-8"), str(path), module, longest=LONGEST):
            title = f"{module}.{chunk.anchor}" if chunk.anchor else module
            anchor = f"/reference/{module}#{chunk.anchor or 'module'}"
            yield Passage(chunk.text, title, anchor, "reference", chunk.anchor or module.rpartition(".")[2])


def run_passages(workspace: Path) -> Iterator[Passage]:
    """What the learner's own runs recorded: settings and figures, a sentence each."""
    records = sorted(workspace.glob("**/record.json"), key=lambda path: -path.stat().st_mtime)[:MOST_RUNS]
    for path in records:
        try:
            record = json.loads(path.read_text("utf-8"))
            values = {**_scalars(record["metrics"]), **_scalars(record["config"]), **_scalars(record["metrics"])}
            verb, started = str(record["verb"]), str(record["started"])[:16].replace("T", " ")
        except (OSError, ValueError, KeyError, TypeError):
            continue
        name = path.parent.relative_to(workspace).as_posix()
        facts = " ".join(f"Its {key} was {value}." for key, value in list(values.items())[:MOST_VALUES])
        text = f"Your run {name} is a {verb} of {started}. {facts}"
        yield Passage(text, f"Your run {name}", f"/runs#{run_id(name)}", "run", name)


def run_id(name: str) -> str:
    """The id of a run on the page of runs."""
    return "run-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _scalars(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError("a record's settings are no mapping")
    plain = {key.replace("_", " "): value for key, value in values.items()}
    return {key: value for key, value in plain.items() if isinstance(value, int | float | str) and value != ""}
