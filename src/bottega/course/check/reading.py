"""Files of a chapter that cannot be read at all: said once, and the rest of the chapter is left alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bottega.core.errors import UserError
from bottega.course.check.problem import Problem
from bottega.course.library import Chapter
from bottega.course.schema import Item


def unreadable(chapter: Chapter) -> Iterator[Problem]:
    """What keeps the chapter's lessons, questions and exercises from being read."""
    if "en" not in chapter.languages():
        yield Problem(chapter.folder / "lesson.en.md", 0, "lesson-exists", "there is no lesson")
        return
    parts: list[Callable[[], object]] = [lambda: chapter.items, lambda: chapter.exercises]
    parts += [partial(chapter.lesson, language) for language in chapter.languages()]
    told: set[str] = set()
    for part in parts:
        try:
            part()
        except UserError as error:
            if error.message not in told:
                yield _problem(chapter, error)
            told.add(error.message)


def _problem(chapter: Chapter, error: UserError) -> Problem:
    """The message of a reader begins with FILE: or FILE:LINE:."""
    found = re.match(r"(?P<path>.+?\.(?:md|toml))(?::(?P<line>\d+))?: (?P<message>.*)", error.message, re.DOTALL)
    if found is None:
        return Problem(chapter.folder, 0, "reads", error.message, error.hint)
    return Problem(Path(found["path"]), int(found["line"] or 0), "reads", found["message"], error.hint)


def items_of(chapter: Chapter) -> tuple[Item, ...]:
    """The chapter's questions; none where they cannot be read."""
    try:
        return chapter.items
    except UserError:
        return ()
