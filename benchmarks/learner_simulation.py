"""How many questions until everything is known: the course's choice against random and prerequisite order.

    python benchmarks/learner_simulation.py [--quick] [--learners N] [--worlds]

Learners are simulated, and of another law than the tutor's. The tutor believes in concepts that are known or not
(Bayesian knowledge tracing, with guess and slip by the kind of question). Here a concept is an ability that grows and
fades, answers follow a three-parameter logistic law with a slip, and the tutor has every parameter of it wrong:

    P(right) = g + (1 − g − s) σ(a (θ − b))      θ(t) = start + gained (1 + t/τ)^−ψ

The graph, the questions and their stated difficulties are the course's; true difficulties, guesses, slips and slopes
are drawn around them. Before the course a learner knows some concepts and others not, the deeper ones less. Each
question with its explanation adds to the ability, little where the prerequisites are not known. A concept fades
between days, more slowly each time that it is practised on another day. The count ends when the true ability of every
concept is above the threshold at the same time; no policy sees it. Questions of placements and reviews count.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bottega.course.graph import in_order, prerequisites
from bottega.course.learner.events import Event, Events
from bottega.course.learner.learner import Learner, Setting
from bottega.course.learner.questions import complete
from bottega.course.learner.tracing import MASTERY
from bottega.course.library import Course, load_course
from bottega.course.schema import Item

MOST = 4000
"""Questions after which a run is given up; it counts as so many."""


@dataclass(frozen=True)
class World:
    """The constants of the learners' law, in logits where nothing else is said. The tutor knows none of them."""

    threshold: float = 1.5
    """What an ability must reach: four of five questions of the course's mean difficulty, guesses aside."""
    level: float = -0.5
    """Mean ability before the course, of concepts without prerequisites."""
    levels: float = 0.8
    """Its deviation from learner to learner."""
    depth: float = 0.1
    """How much less is known one step deeper in the graph."""
    apart: float = 0.7
    """Deviation from concept to concept."""
    gain: float = 0.7
    """What a question with its explanation adds at ability 0 and below, on the average; less towards the ceiling."""
    gains: float = 0.2
    """The deviation of its logarithm from learner to learner."""
    ceiling: float = 3.5
    """Where nothing is added any more."""
    lesson: float = 2.0
    """What reading the lesson adds, before the first question on a concept, in questions."""
    unready: float = 0.3
    """What is left of a practice where the prerequisites are not known at all."""
    fading: tuple[float, float] = (0.2, 0.4)
    """Bounds of ψ, one for each learner."""
    lasting: float = 2.0
    """τ after the first day of practice, in days; twice as long after each other day."""
    misjudged: float = 0.6
    """Deviation of the true difficulties from those stated."""
    slopes: tuple[float, float] = (0.7, 1.7)
    """Bounds of a."""
    guesses: tuple[float, float] = (0.6, 1.8)
    """Bounds of the true guess as a multiple of that stated."""
    slips: tuple[float, float] = (0.02, 0.15)
    """Bounds of s, one for each learner; the tutor believes 0.1."""
    a_day: int = 20
    """Questions a day."""


WORLDS = {
    "as stated": World(),
    "beginners": World(level=-1.5, levels=0.5),
    "they know much": World(level=1.0),
    "concepts hang together little": World(apart=1.2, depth=0.0),
    "they forget fast": World(fading=(0.4, 0.7)),
    "they learn fast": World(gain=1.2),
    "they learn slowly": World(gain=0.45),
    "prerequisites hardly matter": World(unready=0.9),
    "difficulties are stated at random": World(misjudged=1.5),
    "a lower threshold": World(threshold=1.0),
    "five questions a day": World(a_day=5),
}


@dataclass
class Skill:
    """A learner's ability in a concept: the start, what was gained, how long it lasts, the last day of practice."""

    start: float
    gained: float = 0.0
    lasts: float = 0.0
    day: int = -1


@dataclass(frozen=True)
class Truth:
    """A question as it really is."""

    difficulty: float
    slope: float
    guess: float


class Person:
    """A simulated learner."""

    def __init__(self, world: World, graph: Mapping[str, Sequence[str]], items: Sequence[Item], seed: int) -> None:
        self.world, self.graph, self.draw = world, graph, random.Random(seed)
        draw, level, depth = self.draw, self.draw.gauss(world.level, world.levels), depths(graph)
        self.slip, self.fading = draw.uniform(*world.slips), draw.uniform(*world.fading)
        self.gain = world.gain * math.exp(draw.gauss(0, world.gains))
        self.skills = {
            concept: Skill(level - world.depth * depth[concept] + draw.gauss(0, world.apart)) for concept in graph
        }
        self.truth = {
            item.id: Truth(
                item.difficulty + draw.gauss(0, world.misjudged), draw.uniform(*world.slopes),
                min(GUESSES[item.id] * draw.uniform(*world.guesses), 0.6),
            )
            for item in items
        }  # fmt: skip

    def ability(self, concept: str, day: int) -> float:
        """The ability in a concept on a day."""
        skill = self.skills[concept]
        left = (1 + (day - skill.day) / skill.lasts) ** -self.fading if skill.lasts else 0.0
        return skill.start + skill.gained * left

    def answer(self, item: Item, day: int) -> bool:
        """Answer, and learn from the explanation; before the first question on a concept its lesson is read."""
        concept = item.concept
        if not self.skills[concept].lasts:
            self._practise(concept, day, self.world.lesson)
        true = self.truth[item.id]
        known = _logistic(true.slope * (self.ability(concept, day) - true.difficulty))
        right = self.draw.random() < true.guess + (1 - true.guess - self.slip) * known
        self._practise(concept, day, 1.0)
        return right

    def _practise(self, concept: str, day: int, questions: float) -> None:
        skill, ability, world = self.skills[concept], self.ability(concept, day), self.world
        room = min(max(1 - ability / world.ceiling, 0.0), 1.0)
        gain = self.gain * questions * self._ready(concept, day) * room
        lasts = skill.lasts if skill.day == day else (2 * skill.lasts or world.lasting)
        self.skills[concept] = Skill(skill.start, ability - skill.start + gain, lasts, day)

    def _ready(self, concept: str, day: int) -> float:
        """How much a practice of a concept is worth, by the ability in what it builds on."""
        base = min((self.ability(each, day) for each in self.graph[concept]), default=math.inf)
        return self.world.unready + (1 - self.world.unready) * _logistic(3 * (base - self.world.threshold + 0.5))

    def done(self, day: int) -> bool:
        """Whether everything is known now."""
        return all(self.ability(concept, day) >= self.world.threshold for concept in self.graph)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def depths(graph: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many steps each concept stands above those without prerequisites."""
    found: dict[str, int] = {}
    for concept in in_order(graph):
        found[concept] = 1 + max((found[each] for each in graph[concept]), default=-1)
    return found


class Transient(Events):
    """Events that are in memory, and gone with it."""

    def __init__(self) -> None:
        self.rows: list[Event] = []

    def add(self, at: datetime, kind: str, data: Mapping[str, object]) -> Event:
        """Add one event."""
        self.rows.append(Event(at, kind, data, "", len(self.rows) + 1))
        return self.rows[-1]

    def after(self, last: int):
        """The events behind number `last`."""
        return iter(self.rows[last:])


Asked = tuple[Item, Setting]
Policy = Callable[["Run"], Asked | None]


@dataclass
class Run:
    """One learner with one way to choose questions."""

    learner: Learner
    draw: random.Random
    placed: list[tuple[str, bool]] = field(default_factory=list)
    placing: bool = False
    asked: int = 0
    at: datetime = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


def the_course(run: Run) -> Asked | None:
    """What the course asks: a placement, then what its pages and its terminal ask next."""
    if run.placing:
        item = run.learner.placement_item(run.placed)
        if item is not None:
            return item, "placement"
        run.learner.finish_placement(run.placed)
        run.placing = False
    return run.learner.next_item()


def the_course_at_once(run: Run) -> Asked | None:
    """The same, begun without a placement."""
    return run.learner.next_item()


def prerequisite_order(run: Run) -> Asked | None:
    """Concepts from the first to the last, each until it counts as mastered; what is due before it."""
    return _gated(run, run.learner.path())


def random_mastery(run: Run) -> Asked | None:
    """Concepts in random order, each until it counts as mastered; what is due before it."""
    path = run.learner.path()
    return _gated(run, run.draw.sample(path, len(path)))


def _gated(run: Run, concepts: Sequence[str]) -> Asked | None:
    learner, state = run.learner, run.learner.state()
    if due := learner.due():
        return learner.items_of(due[0])[0], "review"
    for concept in concepts:
        if state.of(concept).known < MASTERY and (items := learner.fresh_items(concept)):
            return items[0], "quiz"
    return None


def rounds(run: Run) -> Asked | None:
    """Three questions on each concept, from the first to the last, and again from the beginning."""
    path = run.learner.path()
    return run.learner.items_of(path[run.asked // 3 % len(path)])[0], "quiz"


def random_order(run: Run) -> Asked | None:
    """Any question of the course."""
    return run.draw.choice(ITEMS), "quiz"


POLICIES: dict[str, Policy] = {
    "the course": the_course, "the course, without its placement": the_course_at_once,
    "prerequisite order, until mastered": prerequisite_order,
    "prerequisite order, in rounds": rounds, "random concepts, until mastered": random_mastery,
    "random order": random_order,
}  # fmt: skip
COURSE: Course = load_course()
ITEMS: list[Item] = [item for _, item in COURSE.items.values()]
GUESSES = {item.id: complete(chapter, item, 0).guess for chapter, item in COURSE.items.values()}


def questions_needed(policy: Policy, world: World, seed: int) -> int:
    """How many questions a learner answers until everything is known."""
    graph = prerequisites(COURSE)
    person = Person(world, graph, ITEMS, seed)
    run = Run(Learner(COURSE, Path(), lambda: run.at, Transient()), random.Random(seed), placing=True)
    day = 0
    while run.asked < MOST and day < MOST:
        for _ in range(world.a_day):
            if person.done(day):
                return run.asked
            found = policy(run)
            if found is None:
                break
            item, setting = found
            right = person.answer(item, day)
            if setting == "placement":
                run.placed.append((item.id, right))
            run.learner.record(item, run.asked, setting, right=right, guess=GUESSES[item.id])
            run.asked += 1
        day, run.at = day + 1, run.at + timedelta(days=1)
    return MOST


@dataclass(frozen=True)
class Saving:
    """How many fewer questions the course asks than another policy, as a share, with a 95 % interval."""

    mean: float
    low: float
    high: float


def saving(course: Sequence[int], other: Sequence[int], draws: int = 1000) -> Saving:
    """1 − Σ course / Σ other over the same learners; the interval by bootstrap over learners."""
    pairs, draw = list(zip(course, other, strict=True)), random.Random(0)
    found = sorted(_share(draw.choices(pairs, k=len(pairs))) for _ in range(draws))
    return Saving(_share(pairs), found[int(0.025 * draws)], found[int(0.975 * draws) - 1])


def _share(pairs: Sequence[tuple[int, int]]) -> float:
    return 1 - sum(a for a, _ in pairs) / sum(b for _, b in pairs)


def compare(world: World, learners: int) -> dict[str, list[int]]:
    """Questions needed, by policy and learner."""
    return {
        name: [questions_needed(policy, world, seed) for seed in range(learners)] for name, policy in POLICIES.items()
    }


def report(title: str, needed: Mapping[str, Sequence[int]]) -> None:
    """A table in Markdown."""
    print(f"\n{title}\n\n| order | questions, mean (median) | the course asks fewer by |\n| --- | --- | --- |")
    ours = needed["the course"]
    for name, counts in needed.items():
        less = saving(ours, counts)
        told = "" if counts is ours else f"{less.mean:.0%} ({less.low:.0%} to {less.high:.0%})"
        print(f"| {name} | {statistics.fmean(counts):.0f} ({statistics.median(counts):.0f}) | {told} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 learners")
    parser.add_argument("--learners", type=int, default=200, help="how many learners (default: 200)")
    parser.add_argument("--worlds", action="store_true", help="also other laws of learning")
    options = parser.parse_args()
    count = 20 if options.quick else options.learners
    graph = prerequisites(COURSE)
    print(f"{len(graph)} concepts, {len(ITEMS)} questions, {count} learners")
    for name, world in WORLDS.items() if options.worlds else [("as stated", World())]:
        report(f"{name}: {_differences(world)}", compare(replace(world), count))


def _differences(world: World) -> str:
    plain = World()
    found = {name: value for name, value in vars(world).items() if value != getattr(plain, name)}
    return ", ".join(f"{name} {value}" for name, value in found.items()) or "all constants as in World"


if __name__ == "__main__":
    main()
