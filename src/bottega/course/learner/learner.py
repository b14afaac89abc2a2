"""The learner: what they know, what to do next, and everything that they do. Terminal and pages call this alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from bottega.core.atomic import write_text
from bottega.core.errors import UserError, did_you_mean
from bottega.core.workspace import workspace_path
from bottega.course.grade import Verdict, grade
from bottega.course.graph import Goal, find_goal, load_goals, path_to, prerequisites
from bottega.course.learner.events import Events
from bottega.course.learner.memory import day_of
from bottega.course.learner.placement import QUESTIONS, Ability, next_item
from bottega.course.learner.questions import Given, Mark, Question, complete, mark, question
from bottega.course.learner.state import CHALLENGE, Knowledge, State, Status
from bottega.course.learner.tracing import MASTERY, READY
from bottega.course.library import Chapter, Course, load_course
from bottega.course.schema import Item

Setting = Literal["quiz", "review", "placement", "challenge"]
MOST_REVIEWS, AT_ONCE = 10, 2
"""Reviews at a time; questions that end a concept's lesson."""
HINT_SECONDS = (0, 30, 45, 60, 60)
"""How long after the last hint the next one may be seen."""


@dataclass(frozen=True)
class Task:
    """Something to do now. `name` is the item, section, lab or exercise; `why` says why now."""

    kind: Literal["placement", "review", "lesson", "lab", "exercise", "quiz"]
    chapter: str
    concept: str
    name: str
    why: str


@dataclass(frozen=True)
class Standing:
    """How a concept, a leaf or a chapter stands; of the latter two the means over their concepts."""

    known: float
    recall: float
    status: Status

    @property
    def proficiency(self) -> float:
        """The one number that is shown."""
        return self.known * self.recall


@dataclass(frozen=True)
class Overview:
    """Everything that a roadmap shows."""

    concepts: Mapping[str, Standing]
    leaves: Mapping[str, Standing]
    chapters: Mapping[str, Standing]
    due: int
    goal: Goal
    path: Sequence[str]
    mastered: int
    """Of the path's concepts."""


@dataclass(frozen=True)
class Outcome:
    """An answer, marked, and what followed from it."""

    mark: Mark
    concept: str
    chapter: str
    section: str | None
    before: float
    after: float
    next_review: datetime | None


@dataclass(frozen=True)
class Hint:
    """A step of the ladder; `text` is empty while `wait` seconds are still to pass, or where there is none left."""

    level: int
    of: int
    text: str
    wait: int = 0


class Learner:
    """One learner's state on one course. Safe to use from several threads; several processes may share the file."""

    def __init__(
        self, course: Course, folder: Path, clock: Callable[[], datetime], events: Events | None = None
    ) -> None:
        self.course, self.folder, self.clock = course, folder, clock
        self.events = Events(folder / "learner.sqlite") if events is None else events
        self.graph = prerequisites(course)
        self._state, self._lock = State(), threading.RLock()
        self._paths: dict[str, list[str]] = {}

    @classmethod
    def open(
        cls,
        course: Course | None = None,
        folder: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> Learner:
        """The learner whose state lies in `folder` (default: the workspace's course folder)."""
        return cls(course or load_course(), folder or workspace_path() / "course", clock)

    def state(self) -> State:
        """What follows from all events so far."""
        with self._lock:
            for event in self.events.after(self._state.last):
                self._state.apply(event, self.graph)
            return self._state

    def _add(self, kind: str, **data: object) -> None:
        self.events.add(self.clock(), kind, data)

    # What to do

    def overview(self) -> Overview:
        """Where the learner stands."""
        state, now, goal = self.state(), self.clock(), self.goal()
        concepts = {name: _standing([state.of(name)], now) for name in self.course.concepts}
        leaves = {
            leaf: _standing([state.of(c.id) for c in chapter.data.concepts if c.leaf == leaf], now)
            for leaf, (chapter, _) in self.course.leaves.items()
        }
        chapters = {
            chapter.id: _standing([state.of(c.id) for c in chapter.data.concepts], now)
            for chapter in self.course.chapters.values()
        }
        path = self.path()
        mastered = sum(state.of(concept).known >= MASTERY for concept in path)
        return Overview(concepts, leaves, chapters, len(self.due()), goal, path, mastered)

    def goal(self) -> Goal:
        """What the learner wants."""
        goals = load_goals()
        return goals.get(self.state().goal) or next(iter(goals.values()))

    def set_goal(self, name: str) -> None:
        """Choose a goal; raises UserError if there is none of this name."""
        self._add("goal", goal=find_goal(name).id)

    def path(self) -> list[str]:
        """The concepts on the way to the goal, each behind what it builds on."""
        goal = self.goal()
        if goal.id not in self._paths:
            self._paths[goal.id] = path_to(self.course, goal)
        return self._paths[goal.id]

    def due(self) -> list[str]:
        """The concepts to be asked again, the most likely forgotten first, chapters mixed where that can be."""
        state, now = self.state(), self.clock()
        found = [name for name in self.graph if state.of(name).status(now) == "due"]
        found.sort(key=lambda name: state.of(name).recall(now))
        return _interleaved(found[:MOST_REVIEWS], lambda name: self.course.concepts[name][0].id)

    def open_concepts(self) -> list[str]:
        """What can be learned today: on the path, not mastered, and built on what was answered right before."""
        state = self.state()
        return [concept for concept in self._in_turn() if state.of(concept).known < MASTERY]

    def _in_turn(self) -> list[str]:
        """The concepts on the path that can be asked about, in the order of their turns.

        Practice that is spread over days lasts longer than the same practice in one sitting (Cepeda et al. 2006), and
        what was shown in one sitting says little of the next day. So the fewest questions today come first, then the
        least evidence, whether or not a concept counts as mastered.
        """
        state, now = self.state(), self.clock()
        ready = [c for c in self.path() if all(_begun(state.of(before)) for before in self.graph[c])]
        return sorted(ready, key=lambda name: (state.of(name).asked_today(now), state.of(name).evidence))

    def session(self) -> list[Task]:
        """What to do now: reviews that are due, then the next concept from its lesson to its questions."""
        tasks = [self._review_task(concept) for concept in self.due()]
        state = self.state()
        if not state.last:
            start = "Twelve questions find out where you can begin."
            tasks.append(Task("placement", "", "", "placement", start))
        for concept in self.open_concepts()[:1]:
            tasks += self._steps(concept)
        return tasks

    def _review_task(self, concept: str) -> Task:
        chapter, item = self._sibling(concept)
        return Task("review", chapter.id, concept, item.id, "It is due: asked now, it is kept for longer.")

    def _steps(self, concept: str) -> list[Task]:
        """The lesson of a concept, labs and exercises that are new, and questions."""
        chapter, data = self.course.concepts[concept]
        state = self.state()
        known = state.of(concept)
        section = self.section_of(concept)
        tasks = []
        if not known.answers and section:
            tasks.append(Task("lesson", chapter.id, concept, section, f"{data.title.en} is the next on your way."))
        found = chapter.lesson().section(section) if section else None
        for insert in found.inserts if found else ():
            if insert.kind == "lab" and f"{chapter.id}/{insert.name}" not in state.labs:
                tasks.append(Task("lab", chapter.id, concept, insert.name, "See it happen."))
        for name, exercise in chapter.exercises.items():
            if concept in exercise.data.concepts and exercise.id not in state.solved:
                tasks.append(Task("exercise", chapter.id, concept, name, "Write it yourself."))
        for item in self.items_of(concept)[:AT_ONCE]:
            tasks.append(Task("quiz", chapter.id, concept, item.id, "Show that you know it."))
        return tasks

    def section_of(self, concept: str) -> str | None:
        """The section that teaches a concept: the one that asks about it, else the first of its leaf."""
        chapter, data = self.course.concepts[concept]
        if not chapter.written:
            return None
        sections = chapter.lesson().sections
        asked = [s.id for s in sections if any(i.kind == "quiz" and i.name == concept for i in s.inserts)]
        return next(iter([*asked, *(section.id for section in sections if section.leaf == data.leaf)]), None)

    def items_of(self, concept: str) -> list[Item]:
        """Its questions: first those on a mistake that was not put right yet, then those asked least.

        What was asked today comes after what was not, and what was answered wrong before what was answered right.
        """
        chapter, _ = self.course.concepts[concept]
        state, today, wrong = self.state(), day_of(self.clock()), self.misconceptions(concept)

        def order(item: Item) -> tuple[bool, bool, int, int, float]:
            answers, tags = state.asked.get(item.id, []), {option.misconception for option in item.options}
            asked_today = state.asked_on.get(item.id) == today
            return asked_today, not wrong & tags, len(answers), sum(answers), item.difficulty

        return sorted((item for item in chapter.items if item.concept == concept), key=order)

    def misconceptions(self, concept: str) -> set[str]:
        """What was got wrong about a concept, by the chosen options, and not put right since."""
        state = self.state()
        wrong = [row for row in state.mistakes if row["concept"] == concept and not state.asked[row["item"]][-1]]
        return {tag for row in wrong for tag in row["misconceptions"]}

    def fresh_items(self, concept: str) -> list[Item]:
        """Those of them whose answer would count now: all but what was answered today, generated ones always."""
        asked_on, today = self.state().asked_on, day_of(self.clock())
        return [item for item in self.items_of(concept) if item.generator or asked_on.get(item.id) != today]

    def weakest(self, concepts: Sequence[str]) -> str:
        """The one of these concepts of which least is known."""
        state = self.state()
        return min(concepts, key=lambda name: (state.of(name).known, state.of(name).answers))

    def next_item(self) -> tuple[Item, Setting] | None:
        """The question to ask now: on what is due, else on what comes next; None where nothing would count today."""
        for concept in self.due():
            return self.items_of(concept)[0], "review"
        for concept in self._in_turn():
            for item in self.fresh_items(concept)[:1]:
                return item, "quiz"
        return None

    # Questions

    def question(self, item: str, seed: int | None = None) -> Question:
        """An item as a question; without a seed, another one each time that it is asked."""
        chapter, found = self._item(item)
        seed = len(self.state().asked.get(item, [])) if seed is None else seed
        return question(chapter, found, seed)

    def answer(self, item: str, seed: int, given: Given, setting: Setting = "quiz", *, unsure: bool = False) -> Outcome:
        """Mark an answer and remember it; raises UserError where it is no answer to such a question."""
        chapter, found = self._item(item)
        marked = mark(chapter, found, seed, given)
        before = self.state().of(found.concept).known
        guess, mistakes = complete(chapter, found, seed).guess, marked.misconceptions
        self.record(found, seed, setting, right=marked.right, unsure=unsure, guess=guess, misconceptions=mistakes)
        known = self.state().of(found.concept)
        section = found.section or self.section_of(found.concept)
        review = known.memory.due() if known.memory else None
        return Outcome(marked, found.concept, chapter.id, section, before, known.known, review)

    def record(
        self, item: Item, seed: int, setting: Setting, *, right: bool, guess: float, unsure: bool = False,
        misconceptions: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Remember an answer that was marked."""
        self._add(
            "answer", item=item.id, concept=item.concept, seed=seed, setting=setting, right=right, unsure=unsure,
            guess=guess, misconceptions=list(misconceptions), made=bool(item.generator),
        )  # fmt: skip

    def _item(self, name: str) -> tuple[Chapter, Item]:
        if name not in self.course.items:
            raise UserError(f"there is no question {name!r}", hint=did_you_mean(name, self.course.items))
        return self.course.items[name]

    def _sibling(self, concept: str) -> tuple[Chapter, Item]:
        """A question on a concept that was asked least."""
        chapter, _ = self.course.concepts[concept]
        return chapter, self.items_of(concept)[0]

    def challenge(self, concept: str) -> Question | None:
        """'I know this': the hardest question not answered right in this challenge; None once three in a row were."""
        if concept not in self.course.concepts:
            raise UserError(f"there is no concept {concept!r}", hint=did_you_mean(concept, self.course.concepts))
        won = self.state().won.get(concept, [])
        items = self.items_of(concept)
        if len(won) >= CHALLENGE or not items:
            return None
        return self.question(min(items, key=lambda item: (won.count(item.id), -item.difficulty)).id)

    # Placement

    def placement_question(self, answered: Sequence[tuple[str, bool]]) -> Question | None:
        """The next question of a placement after those answered; None at its end."""
        found = self.placement_item(answered)
        return None if found is None else self.question(found.id, random.Random(str(answered)).randrange(1000))

    def placement_item(self, answered: Sequence[tuple[str, bool]]) -> Item | None:
        """The item of that question."""
        if len(answered) >= QUESTIONS:
            return None
        path = set(self.path())
        items = [item for _, item in self.course.items.values() if item.concept in path]
        asked = {self._item(name)[1].concept for name, _ in answered}
        return next_item(items, asked, self._ability(answered))

    def finish_placement(self, answered: Sequence[tuple[str, bool]]) -> float:
        """Take a placement in; returns the ability, in logits."""
        ability = self._ability(answered).mean
        concepts = [(self._item(name)[1].concept, right) for name, right in answered]
        passed, failed = ([c for c, right in concepts if right is wanted] for wanted in (True, False))
        self._add("placed", ability=ability, passed=passed, failed=failed)
        return ability

    def _ability(self, answered: Sequence[tuple[str, bool]]) -> Ability:
        ability = Ability()
        for name, right in answered:
            ability.observe(self._item(name)[1], right)
        return ability

    # Exercises and labs

    def file_of(self, exercise: str) -> Path:
        """The learner's file of an exercise; the task is written into it if it is not there."""
        found = self.course.exercise(exercise)
        path = self.folder / "exercises" / found.chapter / f"{found.name}.py"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, found.task)
        return path

    def grade(self, exercise: str, code: str) -> Verdict:
        """Run the checks on `code`, and remember what came of it."""
        found = self.course.exercise(exercise)
        verdict = grade(found, code, self.folder)
        failed = verdict.failed
        self._add(
            "grade", exercise=exercise, concepts=list(found.data.concepts), passed=verdict.passed,
            code=code if verdict.passed else "", check=failed.name if failed else "", mistake=verdict.mistake,
        )  # fmt: skip
        return verdict

    def hint(self, exercise: str) -> Hint:
        """The next hint, if its time has come; help counts as not having known."""
        hints = self.course.exercise(exercise).data.hints
        level, last = self.state().hints.get(exercise, (0, None))
        if level >= len(hints):
            return Hint(level, len(hints), "")
        ready = (last or self.clock()) + timedelta(seconds=HINT_SECONDS[min(level, len(HINT_SECONDS) - 1)])
        wait = (ready - self.clock()).total_seconds() if last else 0.0
        if wait > 0:
            return Hint(level, len(hints), "", int(wait) + 1)
        self._add("hint", exercise=exercise, level=level + 1)
        return Hint(level + 1, len(hints), hints[level].text)

    def hints_seen(self, exercise: str) -> list[str]:
        """The hints so far."""
        level, _ = self.state().hints.get(exercise, (0, None))
        return [hint.text for hint in self.course.exercise(exercise).data.hints[:level]]

    def solution(self, exercise: str) -> str | None:
        """The reference, once the exercise is solved."""
        return self.course.exercise(exercise).solution if exercise in self.state().solved else None

    def lab_done(self, lab: str, *, effects: bool) -> None:
        """A lab ran to its end."""
        self._add("lab", lab=lab, effects=effects)


def _begun(known: Knowledge) -> bool:
    """Whether what builds on a concept can begin: something of it was right, or the placement took it as known."""
    return known.evidence > 0 or known.known >= READY


def _standing(found: Sequence[Knowledge], now: datetime) -> Standing:
    if not found:
        return Standing(0.0, 1.0, "new")
    states = [each.status(now) for each in found]
    status: Status = "due" if "due" in states else "mastered" if set(states) == {"mastered"} else (
        "new" if set(states) == {"new"} else "learning"
    )  # fmt: skip
    known, recall = ([f(each) for each in found] for f in (lambda k: k.known if k.answers or k.known > 0.5 else 0.0,
                                                           lambda k: k.recall(now)))  # fmt: skip
    return Standing(sum(known) / len(known), sum(recall) / len(recall), status)


def _interleaved(names: Sequence[str], group: Callable[[str], str]) -> list[str]:
    """The names, with neighbours of different groups where that is possible; else in their order."""
    left, found = list(names), []
    while left:
        last = group(found[-1]) if found else None
        place = next((i for i, name in enumerate(left) if group(name) != last), 0)
        found.append(left.pop(place))
    return found
