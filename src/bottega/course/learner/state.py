"""What a learner knows, as it follows from the events: a fold over them, one event after another."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from bottega.course.learner.events import Event
from bottega.course.learner.memory import Memory, day_of, rating_of, remembered
from bottega.course.learner.tracing import GUESS_CODE, MASTERY, SLIP, SLIP_CODE, START, after_answer

Status = Literal["new", "learning", "mastered", "due"]
PASSED_AT_LEAST, FAILED_AT_MOST, CHALLENGED = 0.85, 0.3, 0.97
CHALLENGE = 3
"""Right answers in a row that a challenge takes."""


@dataclass
class Knowledge:
    """Of one concept: the probability that it is known, what is remembered, and the answers that counted."""

    known: float = START
    memory: Memory | None = None
    answers: int = 0
    right: int = 0
    evidence: float = 0.0
    """Right answers, each less its chance of a guess."""
    day: datetime | None = None
    """The day of the last answer."""
    on_day: int = 0
    """Answers on that day."""

    def observe(self, at: datetime, right: bool, *, guess: float) -> None:
        """Count an answer; what it says of the probability is another matter."""
        day = day_of(at)
        self.on_day = self.on_day + 1 if self.day == day else 1
        self.day = day
        self.evidence += (1 - guess) * right

    def asked_today(self, now: datetime) -> int:
        """Answers on the day of `now`."""
        return self.on_day if self.day == day_of(now) else 0

    def status(self, now: datetime) -> Status:
        """In a word."""
        if self.memory is not None and self.memory.due() <= now and self.known >= MASTERY:
            return "due"
        if self.known >= MASTERY:
            return "mastered"
        return "learning" if self.answers else "new"

    def recall(self, now: datetime) -> float:
        """The probability that it is remembered, 1 where nothing was to be remembered yet."""
        return 1.0 if self.memory is None else self.memory.recall(now)

    def now(self, now: datetime) -> float:
        """The one number that is shown: known, and still remembered."""
        return self.known * self.recall(now)


@dataclass
class State:
    """Everything that follows from the events up to number `last`."""

    concepts: dict[str, Knowledge] = field(default_factory=dict)
    asked: dict[str, list[bool]] = field(default_factory=dict)
    """Item → its answers so far."""
    asked_on: dict[str, datetime] = field(default_factory=dict)
    """Item → the day of its last answer."""
    won: dict[str, list[str]] = field(default_factory=dict)
    """Concept → items of its challenge answered right since the last wrong one."""
    solved: dict[str, str] = field(default_factory=dict)
    """Exercise → the code that passed first."""
    tries: dict[str, int] = field(default_factory=dict)
    hints: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    """Exercise → hints seen, and when the last one was."""
    labs: set[str] = field(default_factory=set)
    mistakes: list[dict[str, Any]] = field(default_factory=list)
    """Wrong answers with a known misconception, the newest last."""
    goal: str = ""
    ability: float | None = None
    """From the placement, in logits."""
    last: int = 0

    def of(self, concept: str) -> Knowledge:
        """What is known of a concept."""
        return self.concepts.setdefault(concept, Knowledge())

    def apply(self, event: Event, graph: Mapping[str, Collection[str]]) -> None:
        """Take an event in. `graph` is what each concept builds on."""
        getattr(self, f"_{event.kind}", self._unknown)(event, graph)
        self.last = event.id

    def _answer(self, event: Event, graph: Mapping[str, Collection[str]]) -> None:  # noqa: ARG002
        data = event.data
        item, known, day = data["item"], self.of(data["concept"]), day_of(event.at)
        # A question that was explained a moment ago tells little; with other numbers, or on another day, it does.
        counts = data["setting"] != "quiz" or data.get("made", False) or self.asked_on.get(item) != day
        self.asked.setdefault(item, []).append(data["right"])
        self.asked_on[item] = day
        if not data["right"]:
            self.mistakes.append({**data, "at": event.at})
        if not counts:
            return
        known.observe(event.at, data["right"], guess=data["guess"])
        if data["setting"] == "placement":
            return
        known.known = after_answer(known.now(event.at), data["right"], guess=data["guess"], slip=SLIP)
        known.answers += 1
        known.right += data["right"]
        known.memory = remembered(known.memory, event.at, rating_of(data["right"], unsure=data.get("unsure", False)))
        if data["setting"] == "challenge":
            self._challenged(data["concept"], item, data["right"])

    def _challenged(self, concept: str, item: str, right: bool) -> None:
        """Three hard questions in a row were right: it was known before."""
        won = self.won.setdefault(concept, [])
        won[:] = [*won, item] if right else []
        if len(won) >= CHALLENGE:
            self.of(concept).known = max(self.of(concept).known, CHALLENGED)

    def _grade(self, event: Event, graph: Mapping[str, Collection[str]]) -> None:  # noqa: ARG002
        data = event.data
        name = data["exercise"]
        self.tries[name] = self.tries.get(name, 0) + 1
        if name in self.solved:
            return
        helped = self.hints.get(name, (0, event.at))[0] > 0
        first = self.tries[name] == 1
        if data["passed"]:
            self.solved[name] = data["code"]
        elif not first:
            return  # only the first attempt says something about what was known
        right = data["passed"] and not helped
        for concept in data["concepts"]:
            known = self.of(concept)
            known.observe(event.at, right, guess=GUESS_CODE)
            known.known = after_answer(known.now(event.at), right, guess=GUESS_CODE, slip=SLIP_CODE)
            known.answers += 1
            known.right += right
            rating = rating_of(data["passed"], helped=helped, code=first)
            known.memory = remembered(known.memory, event.at, rating)

    def _hint(self, event: Event, graph: Mapping[str, Collection[str]]) -> None:  # noqa: ARG002
        self.hints[event.data["exercise"]] = (event.data["level"], event.at)

    def _lab(self, event: Event, graph: Mapping[str, Collection[str]]) -> None:  # noqa: ARG002
        self.labs.add(event.data["lab"])

    def _goal(self, event: Event, graph: Mapping[str, Collection[str]]) -> None:  # noqa: ARG002
        self.goal = event.data["goal"]

    def _placed(self, event: Event, graph: Mapping[str, Collection[str]]) -> None:
        """The end of a placement: what was right is known with what it builds on, what was wrong opens all above it."""
        self.ability = event.data["ability"]
        above: dict[str, set[str]] = {}
        for concept, before in graph.items():
            for each in before:
                above.setdefault(each, set()).add(concept)
        for concept in event.data["passed"]:
            for each in _closure(concept, graph):
                self.of(each).known = max(self.of(each).known, PASSED_AT_LEAST)
        for concept in event.data["failed"]:
            for each in _closure(concept, above):
                if not self.of(each).answers:
                    self.of(each).known = min(self.of(each).known, FAILED_AT_MOST)

    def _unknown(self, event: Event, graph: Mapping[str, Collection[str]]) -> None:
        """An event of a newer version: kept, and not counted."""


def _closure(concept: str, edges: Mapping[str, Collection[str]]) -> set[str]:
    found, waiting = set(), [concept]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += edges.get(each, ())
    return found
