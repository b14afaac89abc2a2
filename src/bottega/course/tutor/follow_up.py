"""What the tutor says beside an answer: the learner's last mistake on the subject, and a question to answer next.

A section's subject are the concepts that it asks about. A mistake is told until a question of its concept is answered
right; its explanation is the one that the learner was shown. Keys of open questions are told nowhere.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from bottega.course.learner.learner import Learner
from bottega.course.learner.questions import Question, complete
from bottega.course.library import Course
from bottega.course.schema import Item


def concepts_at(course: Course, anchor: str) -> list[str]:
    """The concepts that the section at an address (/course/CHAPTER#SECTION) teaches."""
    chapter, _, section = anchor.removeprefix("/course/").partition("#")
    if not anchor.startswith("/course/") or chapter not in course.chapters or not course.chapters[chapter].written:
        return []
    found = course.chapters[chapter].lesson().section(section)
    return [insert.name for insert in found.inserts if insert.kind == "quiz"] if found else []


def mistake_on(learner: Learner, concepts: Collection[str]) -> str:
    """The last wrong answer on these concepts, explained; empty if there is none, or a right one came after it."""
    state = learner.state()
    for event in reversed(state.mistakes):
        if event["concept"] in concepts and event["setting"] != "placement" and event["item"] in learner.course.items:
            if any(state.asked.get(event["item"], [])[-1:]):
                return ""
            return _explained(learner.course, event)
    return ""


def question_on(learner: Learner, concepts: Collection[str]) -> Question | None:
    """A question on the weakest of these concepts that is not mastered; of the learner's way, where none are given."""
    if not concepts:
        following = learner.next_item()
        return learner.question(following[0].id) if following else None
    state, now = learner.state(), learner.clock()
    weak = [concept for concept in concepts if concept in learner.course.concepts]
    weak = [concept for concept in weak if state.of(concept).status(now) != "mastered"]
    items = [item for concept in sorted(weak, key=lambda each: state.of(each).now(now))
             for item in learner.items_of(concept)[:1]]  # fmt: skip
    return learner.question(items[0].id) if items else None


def _explained(course: Course, event: dict[str, Any]) -> str:
    chapter, item = course.items[event["item"]]
    item = complete(chapter, item, event["seed"])
    stem, why = " ".join(item.stem.split()), _why(item, event["misconceptions"])
    return f"Last time, asked “{stem}”, you were wrong. {why}".strip()


def _why(item: Item, misconceptions: Collection[str]) -> str:
    """Why the chosen options are wrong."""
    return " ".join(
        option.why for option in item.options if option.misconception and option.misconception in misconceptions
    )
