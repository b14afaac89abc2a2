"""Rules of `chapter.toml`: ids are unique, what is named exists, prerequisites have no circle, titles are complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from bottega.core.errors import did_you_mean
from bottega.course.check.problem import Problem, line_of
from bottega.course.check.reading import items_of
from bottega.course.library import Chapter, Course


def course_problems(course: Course) -> Iterator[Problem]:
    """What can only be seen over all chapters."""
    yield from _unique(course)
    chapters = {chapter.id: chapter.data.prerequisites for chapter in course.chapters.values()}
    yield from _acyclic(chapters, "chapters", lambda name: _file(course.chapters[name]))
    concepts = {each.id: each.prerequisites for _, each in course.concepts.values()}
    yield from _acyclic(concepts, "concepts", lambda name: _file(course.concepts[name][0]))


def chapter_problems(chapter: Chapter, course: Course) -> Iterator[Problem]:
    """What one chapter.toml gets wrong."""
    path = _file(chapter)
    place = (chapter.folder.name, chapter.folder.parent.name)
    if place != (chapter.id, chapter.data.part):
        yield Problem(
            path, line_of(path, "id ="), "place", f"{chapter.id} of {chapter.data.part} lies in {place[1]}/{place[0]}"
        )
    for name in chapter.data.prerequisites:
        if name not in course.chapters:
            yield _unknown(path, name, "prerequisite-exists", "chapter", course.chapters)
    leaves = [leaf.id for leaf in chapter.data.leaves]
    for concept in chapter.data.concepts:
        if concept.leaf not in leaves:
            yield _unknown(path, concept.leaf, "leaf-exists", "leaf of this chapter", leaves)
        for name in concept.prerequisites:
            if name not in course.concepts:
                yield _unknown(path, name, "prerequisite-exists", "concept", course.concepts)
    for each in (chapter.data, *chapter.data.leaves, *chapter.data.concepts):
        if not each.title.zh:
            line = line_of(path, f'id = "{each.id}"')
            yield Problem(path, line, "title-zh", f"{each.id} has no Chinese title", 'title = { en = "…", zh = "…" }')


def written_problems(chapter: Chapter) -> Iterator[Problem]:
    """What a chapter with a lesson has beside."""
    path = _file(chapter)
    for name in ("minutes", "objectives", "out_of_scope", "sources"):
        if not getattr(chapter.data, name):
            yield Problem(path, 0, "complete", f"{name} is missing")
    taught = {concept.leaf for concept in chapter.data.concepts}
    for leaf in chapter.data.leaves:
        if leaf.id not in taught:
            line = line_of(path, f'id = "{leaf.id}"')
            yield Problem(
                path, line, "leaf-teaches", f"the leaf {leaf.id} has no concept", "Add a [[concepts]] with this leaf."
            )


def _unique(course: Course) -> Iterator[Problem]:
    chapters = course.chapters.values()
    kinds = {
        "leaf": [(leaf.id, chapter) for chapter in chapters for leaf in chapter.data.leaves],
        "concept": [(concept.id, chapter) for chapter in chapters for concept in chapter.data.concepts],
        "item": [(item.id, chapter) for chapter in course.written() for item in items_of(chapter)],
        "number": [(f"{chapter.data.part} {chapter.data.number}", chapter) for chapter in chapters],
    }
    for kind, found in kinds.items():
        counts = Counter(name for name, _ in found)
        seen: set[str] = set()
        for name, chapter in found:
            if counts[name] > 1 and name in seen:
                path = chapter.folder / ("quiz.toml" if kind == "item" else "chapter.toml")
                lines = line_of(path, f'id = "{name}"')
                yield Problem(
                    path, lines, "unique", f"the {kind} {name!r} is there {counts[name]} times", "Rename one."
                )
            seen.add(name)


def _acyclic(graph: Mapping[str, Iterable[str]], what: str, file: Callable[[str], Path]) -> Iterator[Problem]:
    known = {name: [each for each in needed if each in graph] for name, needed in graph.items()}
    try:
        TopologicalSorter(known).prepare()
    except CycleError as error:
        circle = error.args[1]
        path = file(circle[0])
        message = f"{what} need each other: {' → '.join(reversed(circle))}"
        yield Problem(path, line_of(path, f'id = "{circle[0]}"'), "acyclic", message, "Remove one prerequisite.")


def _unknown(path: Path, name: str, rule: str, what: str, known: Iterable[str]) -> Problem:
    return Problem(path, line_of(path, f'"{name}"'), rule, f"there is no {what} {name!r}", did_you_mean(name, known))


def _file(chapter: Chapter) -> Path:
    return chapter.folder / "chapter.toml"
