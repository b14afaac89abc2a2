"""The course as it lies in a folder: parts, chapters, lessons, labs, exercises and items, read once and checked.

    content/PART/CHAPTER/chapter.toml  lesson.en.md  lab.py  lab_NAME.py  recorded/LAB.json
                         quiz.toml  quiz.py  exercises/NAME/{exercise.toml,task.py,solution.py,grader.py}

Imports no torch, and runs nothing of a chapter.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from bottega.core.errors import UserError, did_you_mean
from bottega.core.schema import Config
from bottega.course.lesson import Lesson, read_lesson
from bottega.course.schema import PARTS, ChapterData, Concept, ExerciseData, Item, Language, Leaf, Quiz

CONTENT = Path(__file__).parent / "content"
Data = TypeVar("Data", bound=Config)


@dataclass(frozen=True)
class Exercise:
    """A function for the learner to write, with what judges it."""

    chapter: str
    name: str
    folder: Path
    data: ExerciseData

    @property
    def id(self) -> str:
        """CHAPTER/NAME."""
        return f"{self.chapter}/{self.name}"

    @property
    def task(self) -> str:
        """What the learner begins with."""
        return (self.folder / "task.py").read_text("utf-8")

    @property
    def solution(self) -> str:
        """The reference; shown to nobody before the exercise is solved."""
        return (self.folder / "solution.py").read_text("utf-8")

    @property
    def grader(self) -> str:
        """The checks."""
        return (self.folder / "grader.py").read_text("utf-8")


@dataclass(frozen=True)
class LabFile:
    """A lab: a program that shows something, and asserts that it showed it."""

    chapter: str
    name: str
    path: Path

    @property
    def id(self) -> str:
        """CHAPTER/NAME."""
        return f"{self.chapter}/{self.name}"


@dataclass
class Chapter:
    """One chapter; what is long is read when it is asked for."""

    folder: Path
    data: ChapterData
    _lessons: dict[Language, Lesson] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its id."""
        return self.data.id

    @property
    def written(self) -> bool:
        """Whether it has a lesson."""
        return self.data.written

    def languages(self) -> tuple[Language, ...]:
        """The languages that its lesson is written in."""
        found: tuple[Language, ...] = ("en", "zh")
        return tuple(language for language in found if (self.folder / f"lesson.{language}.md").is_file())

    def lesson(self, language: Language = "en") -> Lesson:
        """The lesson in `language`, or in English where there is none; raises UserError where there is no lesson."""
        language = language if language in self.languages() else "en"
        if language not in self._lessons:
            path = self.folder / f"lesson.{language}.md"
            if not path.is_file():
                raise UserError(f"the chapter {self.id} is not written yet")
            self._lessons[language] = read_lesson(path)
        return self._lessons[language]

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """Its questions."""
        path = self.folder / "quiz.toml"
        return _read(path, Quiz).items if path.is_file() else ()

    @cached_property
    def exercises(self) -> dict[str, Exercise]:
        """Its exercises by name, in the order of the lesson's sections."""
        found = [
            Exercise(self.id, path.parent.name, path.parent, _read(path, ExerciseData))
            for path in sorted(self.folder.glob("exercises/*/exercise.toml"))
        ]
        order = {name: index for index, name in enumerate(self._sections())}
        found.sort(key=lambda each: (order.get(each.data.section or "", len(order)), each.name))
        return {each.name: each for each in found}

    @cached_property
    def labs(self) -> dict[str, LabFile]:
        """Its labs by name: lab.py is `lab`, lab_NAME.py is `NAME`."""
        paths = sorted(self.folder.glob("lab*.py"))
        return {name: LabFile(self.id, name, path) for path in paths for name in (_lab_name(path),)}

    def _sections(self) -> list[str]:
        return [section.id for section in self.lesson().sections] if self.languages() else []


@dataclass(frozen=True)
class Course:
    """All chapters by id, in the order of the roadmaps."""

    chapters: dict[str, Chapter]

    def chapter(self, name: str) -> Chapter:
        """The chapter called `name`; raises UserError with the nearest one."""
        if name not in self.chapters:
            raise UserError(f"there is no chapter {name!r}", hint=did_you_mean(name, self.chapters))
        return self.chapters[name]

    def exercise(self, name: str) -> Exercise:
        """The exercise CHAPTER/NAME; raises UserError with the nearest one."""
        found = {each.id: each for chapter in self.chapters.values() for each in chapter.exercises.values()}
        if name not in found:
            raise UserError(f"there is no exercise {name!r}", hint=did_you_mean(name, found))
        return found[name]

    def lab(self, name: str) -> LabFile:
        """The lab CHAPTER/NAME; raises UserError with the nearest one."""
        found = {each.id: each for chapter in self.chapters.values() for each in chapter.labs.values()}
        if name not in found:
            raise UserError(f"there is no lab {name!r}", hint=did_you_mean(name, found))
        return found[name]

    def written(self) -> Iterator[Chapter]:
        """The chapters that have a lesson."""
        return (chapter for chapter in self.chapters.values() if chapter.written)

    @cached_property
    def leaves(self) -> dict[str, tuple[Chapter, Leaf]]:
        """Every leaf by id, with its chapter."""
        return {leaf.id: (chapter, leaf) for chapter in self.chapters.values() for leaf in chapter.data.leaves}

    @cached_property
    def concepts(self) -> dict[str, tuple[Chapter, Concept]]:
        """Every concept by id, with its chapter, in the order of the course."""
        return {each.id: (chapter, each) for chapter in self.chapters.values() for each in chapter.data.concepts}

    @cached_property
    def items(self) -> dict[str, tuple[Chapter, Item]]:
        """Every question by id, with its chapter."""
        return {item.id: (chapter, item) for chapter in self.written() for item in chapter.items}


@functools.cache
def load_course(folder: Path = CONTENT) -> Course:
    """Read every chapter.toml under `folder`; raises UserError with the place of what is wrong."""
    chapters = [Chapter(path.parent, _read(path, ChapterData)) for path in sorted(folder.glob("*/*/chapter.toml"))]
    chapters.sort(key=lambda each: (PARTS.index(each.data.part), each.data.number))
    found: dict[str, Chapter] = {}
    for chapter in chapters:
        if chapter.id in found:
            raise UserError(f"two chapters are called {chapter.id!r}")
        found[chapter.id] = chapter
    return Course(found)


def _read(path: Path, model: type[Data]) -> Data:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    return model.parse(values, where=str(path))


def _lab_name(path: Path) -> str:
    return path.stem.removeprefix("lab_")
