"""The prerequisite graph, and the shortest way through it to a goal.

Concepts build on concepts. A chapter that is not written yet stands on the roadmap and locks nothing: what builds on it
is open, and what it would give is introduced where it is needed.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from bottega.core.errors import UserError, did_you_mean
from bottega.core.schema import Config
from bottega.course.library import CONTENT, Course
from bottega.course.schema import Name, Titles

ALL = "*"


class Goal(Config):
    """Something that a learner may want."""

    id: Name
    """Its id."""
    title: Titles
    """What it is called."""
    chapters: tuple[str, ...]
    """The chapters that it ends with; `*` is all."""


class Goals(Config):
    """`goals.toml`."""

    goals: tuple[Goal, ...]
    """The goals, the first one being what is taken where none was chosen."""


@functools.cache
def load_goals(folder: Path = CONTENT) -> dict[str, Goal]:
    """The goals by id; a course without a file of them has one, everything."""
    path = folder / "goals.toml"
    if not path.is_file():
        everything = Goal(id="everything", title=Titles(en="The whole course"), chapters=(ALL,))
        return {everything.id: everything}
    return {goal.id: goal for goal in Goals.parse(tomllib.loads(path.read_text("utf-8")), where=str(path)).goals}


def find_goal(name: str, folder: Path = CONTENT) -> Goal:
    """The goal called `name`; raises UserError with the nearest one."""
    goals = load_goals(folder)
    if name not in goals:
        raise UserError(f"there is no goal {name!r}", hint=did_you_mean(name, goals))
    return goals[name]


def prerequisites(course: Course) -> dict[str, tuple[str, ...]]:
    """What each concept of a written chapter builds on, of concepts that can be learned here."""
    taught = {each for chapter in course.written() for each in (concept.id for concept in chapter.data.concepts)}
    return {
        concept.id: tuple(each for each in concept.prerequisites if each in taught)
        for chapter in course.written()
        for concept in chapter.data.concepts
    }


def needed(graph: Mapping[str, Iterable[str]], wanted: Iterable[str]) -> set[str]:
    """`wanted`, and everything that it builds on."""
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        concept = waiting.pop()
        if concept in graph and concept not in found:
            found.add(concept)
            waiting += graph[concept]
    return found


def builds_on(graph: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """The other way round: what builds directly on each concept."""
    found: dict[str, set[str]] = {concept: set() for concept in graph}
    for concept, before in graph.items():
        for each in before:
            found[each].add(concept)
    return found


def in_order(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """The concepts, each behind what it builds on, else in the order given; raises UserError for a circle."""
    done: dict[str, bool] = {}
    order: list[str] = []

    def visit(concept: str) -> None:
        if done.get(concept):
            return
        if concept in done:
            raise UserError(f"the concept {concept!r} builds on itself")
        done[concept] = False
        for each in graph[concept]:
            visit(each)
        done[concept] = True
        order.append(concept)

    for concept in graph:
        visit(concept)
    return order


def path_to(course: Course, goal: Goal) -> list[str]:
    """The concepts of a goal's chapters with all that they build on, in an order in which they can be learned.

    Where a chapter of the goal is not written, what it asks for first stands for it.
    """
    graph = prerequisites(course)
    wanted: set[str] = set()
    for name in course.chapters if ALL in goal.chapters else goal.chapters:
        wanted |= _concepts_of(course, name, set())
    keep = needed(graph, wanted)
    return [concept for concept in in_order(graph) if concept in keep]


def _concepts_of(course: Course, name: str, seen: set[str]) -> set[str]:
    if name in seen or name not in course.chapters:
        return set()
    chapter = course.chapters[name]
    if chapter.written:
        return {concept.id for concept in chapter.data.concepts}
    before = (_concepts_of(course, each, seen | {name}) for each in chapter.data.prerequisites)
    return set().union(*before)
