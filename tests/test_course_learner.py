"""What a learner knows follows from events: formulas by hand, reviews by a clock that is set, all kinds of answers."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bottega.core.errors import UserError
from bottega.course.graph import Goal, in_order, load_goals, needed, path_to, prerequisites
from bottega.course.learner.events import Event, Events
from bottega.course.learner.learner import Learner
from bottega.course.learner.memory import day_of
from bottega.course.learner.placement import GRID, Ability, information, next_item, probability
from bottega.course.learner.questions import Question, mark, number, question
from bottega.course.learner.tracing import after_answer
from bottega.course.library import load_course
from bottega.course.schema import Item, Titles

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def learner(tmp_path: Path, clock: Clock) -> Learner:
    return Learner.open(load_course(), tmp_path, clock)


def answer_right(learner: Learner, item: str, setting: str = "quiz") -> bool:
    """Answer as one who knows: find the right answer among all that could be given."""
    asked = learner.question(item)
    chapter, found = learner.course.items[item]
    given = right_answer(chapter, found, asked.seed)
    return learner.answer(item, asked.seed, given, setting).mark.right  # type: ignore[arg-type]


def right_answer(chapter, item: Item, seed: int):
    shown = question(chapter, item, seed)
    told = mark(chapter, item, seed, {"single": 0, "multi": [0]}.get(shown.kind, _any(shown))).answer
    if shown.kind in ("single", "multi"):
        places = [i for i, text in enumerate(shown.options) if text in told.split("; ")]
        return places[0] if shown.kind == "single" else places
    if shown.kind == "order":
        return [shown.lines.index(line) for line in told.split(" → ")]
    if shown.kind == "match":
        pairs = dict(part.split(": ", 1) for part in told.split("; "))
        return [shown.rights.index(pairs[left]) for left in shown.lefts]
    if shown.kind == "cloze":
        return told.split(", ")
    return told.split(" ")[0] if shown.unit else told


def _any(shown):
    return {"order": list(range(len(shown.lines))), "match": [0] * len(shown.lefts), "cloze": ["?"] * shown.blanks}.get(
        shown.kind, "0"
    )


def test_knowledge_tracing_is_the_formula() -> None:
    seen = 0.3 * 0.9 / (0.3 * 0.9 + 0.7 * 0.25)
    assert after_answer(0.3, True, guess=0.25) == pytest.approx(seen + (1 - seen) * 0.15)
    seen = 0.3 * 0.1 / (0.3 * 0.1 + 0.7 * 0.75)
    assert after_answer(0.3, False, guess=0.25) == pytest.approx(seen + (1 - seen) * 0.15)
    p = 0.3
    for _ in range(3):
        p = after_answer(p, True, guess=0.25)
    assert p == pytest.approx(0.973, abs=2e-3)  # the published course of three right answers


def test_every_item_can_be_answered_right_and_wrong(learner: Learner) -> None:
    for name, (chapter, item) in learner.course.items.items():
        for seed in (0, 1, 2):
            shown = question(chapter, item, seed)
            assert question(chapter, item, seed) == shown
            assert mark(chapter, item, seed, right_answer(chapter, item, seed)).right, name
            wrong = {"single": None, "multi": list(range(len(shown.options)))}.get(shown.kind, _any(shown))
            if shown.kind == "single":
                right = right_answer(chapter, item, seed)
                wrong = (right + 1) % len(shown.options)
            if shown.kind in ("numeric", "output"):
                wrong = "-123456"
            if shown.kind == "multi" and all(option.right for option in item.options):
                continue
            assert not mark(chapter, item, seed, wrong).right or shown.kind in ("order", "match"), name


def test_numbers_as_people_write_them() -> None:
    assert [number(text) for text in ("1,000", "0,5", "3/4", "1e20", "21.9 %", "−2", "16,384,000")] == [
        1000, 0.5, 0.75, 1e20, 21.9, -2, 16_384_000,
    ]  # fmt: skip
    for wrong in ("", "abc", None, "1/0"):
        with pytest.raises(UserError, match="not a number"):
            number(wrong)


def test_three_right_answers_master_and_the_review_is_due_two_days_later(learner: Learner, clock: Clock) -> None:
    concept = "next-token-prediction"
    for item in learner.items_of(concept)[:3]:
        assert answer_right(learner, item.id)
    assert learner.state().of(concept).known > 0.95
    assert learner.overview().concepts[concept].status == "mastered"
    assert not learner.due()
    clock.now += timedelta(days=1, hours=20)
    assert not learner.due() or learner.due() == [concept]
    clock.now += timedelta(days=2)
    assert learner.due() == [concept]
    assert learner.session()[0].kind == "review"
    assert answer_right(learner, learner.session()[0].name, "review")
    assert not learner.due()
    first = learner.state().of(concept).memory
    assert first is not None and first.due() > clock.now + timedelta(days=5)  # the interval grows


def test_a_day_ends_at_four_in_the_morning() -> None:
    evening, morning = datetime(2026, 3, 2, 23, 0, tzinfo=UTC), datetime(2026, 3, 3, 8, 0, tzinfo=UTC)
    night = datetime(2026, 3, 3, 2, 0, tzinfo=UTC)
    assert day_of(evening) == day_of(night) != day_of(morning)


def test_what_to_do_follows_the_graph(learner: Learner) -> None:
    graph = prerequisites(learner.course)
    assert [task.kind for task in learner.session()][:2] == ["placement", "lesson"]
    first = learner.open_concepts()[0]
    assert not graph[first]
    for concept in learner.open_concepts():
        assert all(learner.state().of(before).known >= 0.8 for before in graph[concept])
    order = in_order(graph)
    assert all(order.index(before) < order.index(concept) for concept, all_ in graph.items() for before in all_)
    with pytest.raises(UserError, match="builds on itself"):
        in_order({"a": ("b",), "b": ("a",)})


def test_a_goal_needs_no_more_than_it_builds_on(learner: Learner) -> None:
    graph = {"a": (), "b": ("a",), "c": ("a",), "d": ("b",)}
    assert needed(graph, ["d"]) == {"a", "b", "d"}
    assert set(load_goals()) >= {"everything", "fine-tune", "application", "research"}
    whole = path_to(learner.course, load_goals()["everything"])
    part = path_to(learner.course, Goal(id="x", title=Titles(en="x"), chapters=("architecture",)))
    assert set(part) <= set(whole)
    learner.set_goal("research")
    assert learner.goal().id == "research"
    with pytest.raises(UserError, match="there is no goal"):
        learner.set_goal("wealth")


def test_help_counts_as_not_known_and_a_hint_has_to_be_waited_for(learner: Learner, clock: Clock) -> None:
    exercise = learner.course.exercise("architecture/top-p")
    first = learner.hint(exercise.id)
    assert (first.level, first.wait) == (1, 0) and first.text == exercise.data.hints[0].text
    early = learner.hint(exercise.id)
    assert early.text == "" and early.wait > 0
    clock.now += timedelta(seconds=60)
    assert learner.hint(exercise.id).level == 2
    assert learner.solution(exercise.id) is None
    before = learner.state().of("top-k-and-nucleus").known
    verdict = learner.grade(exercise.id, exercise.solution)
    assert verdict.passed
    assert learner.state().of("top-k-and-nucleus").known <= max(before, 0.3)
    assert learner.solution(exercise.id) == exercise.solution


def test_the_placement_asks_what_tells_most(learner: Learner) -> None:
    ability = Ability()
    items = [Item.parse({"id": f"i{b}", "concept": f"c{b}", "kind": "numeric", "difficulty": float(b), "stem": "?",
                         "answer": 1.0, "why": "."}) for b in (-3, -1, 0, 1, 3)]  # fmt: skip
    assert next_item(items, set(), ability) is items[2]
    ability.observe(items[2], True)
    assert ability.mean > 0.2
    posterior = [math.exp(-0.5 * (t / 1.2) ** 2) * probability(t, items[2]) for t in GRID]
    assert ability.mean == pytest.approx(sum(w * t for w, t in zip(posterior, GRID, strict=True)) / sum(posterior))
    h = 1e-5
    slope = (probability(0.3 + h, items[3]) - probability(0.3 - h, items[3])) / (2 * h)
    p = probability(0.3, items[3])
    assert information(0.3, items[3]) == pytest.approx(slope**2 / (p * (1 - p)), rel=1e-4)
    answered: list[tuple[str, bool]] = []
    while (asked := learner.placement_question(answered)) is not None:
        answered.append((asked.item, True))
    assert len(answered) == 12 == len({learner.course.items[name][1].concept for name, _ in answered})
    assert learner.finish_placement(answered) > 0.5
    known = [learner.state().of(learner.course.items[name][1].concept).known for name, _ in answered]
    assert min(known) >= 0.85


def test_a_challenge_is_three_hard_questions_in_a_row(learner: Learner) -> None:
    def answered(right: bool) -> Question:
        shown = learner.challenge("beam-search")
        assert shown is not None
        item = learner.course.items[shown.item][1]
        learner.record(item, shown.seed, "challenge", right=right, guess=item.guess)
        return shown

    hardest = max(learner.items_of("beam-search"), key=lambda item: item.difficulty)
    first, second = answered(True), answered(True)
    assert first.item == hardest.id != second.item
    answered(False)
    again = [answered(True).item for _ in range(3)]
    assert len(set(again)) == 3 and learner.challenge("beam-search") is None
    assert learner.overview().concepts["beam-search"].status == "mastered"
    with pytest.raises(UserError, match="there is no concept"):
        learner.challenge("cooking")


def test_concepts_take_turns_and_come_back_another_day(learner: Learner, clock: Clock) -> None:
    """Nobody is kept on one concept: a question each, in an order that the graph allows, and again tomorrow."""
    asked: list[str] = []
    for _ in range(12):
        found = learner.next_item()
        assert found is not None
        item, setting = found
        learner.record(item, 0, setting, right=True, guess=item.guess)
        assert setting == "quiz" and all(before in asked for before in learner.graph[item.concept])
        asked.append(item.concept)
    assert len(set(asked)) == 12
    item, setting = next_of(learner)
    clock.now += timedelta(days=1)
    tomorrow, _ = next_of(learner)
    assert setting == "quiz" and item.concept not in asked and tomorrow.concept not in asked
    for _ in range(len(learner.path())):
        item, setting = next_of(learner)
        learner.record(item, 1, setting, right=True, guess=item.guess)
    assert {e.data["concept"] for e in learner.events.after(12)} >= set(learner.path()) - set(asked)


def next_of(learner: Learner) -> tuple[Item, str]:
    found = learner.next_item()
    assert found is not None
    return found


def test_a_mistake_is_asked_about_until_it_is_put_right(learner: Learner, clock: Clock) -> None:
    item = next(
        item
        for _, item in learner.course.items.values()
        if any(option.misconception for option in item.options) and item != learner.items_of(item.concept)[0]
    )
    tag = next(option.misconception for option in item.options if option.misconception)
    learner.record(item, 0, "quiz", right=False, guess=item.guess, misconceptions=(tag,))
    assert learner.misconceptions(item.concept) == {tag} and learner.items_of(item.concept)[0] != item
    clock.now += timedelta(days=1)
    assert learner.items_of(item.concept)[0] == item
    learner.record(item, 1, "quiz", right=True, guess=item.guess)
    clock.now += timedelta(days=1)
    assert not learner.misconceptions(item.concept) and learner.items_of(item.concept)[-1] == item


def test_two_learners_on_one_file_see_the_same(tmp_path: Path, clock: Clock) -> None:
    one, other = (Learner.open(load_course(), tmp_path, clock) for _ in range(2))
    answer_right(one, "lens")
    assert other.state().of("embeddings-and-unembedding").answers == 1
    other.set_goal("fine-tune")
    assert one.goal().id == "fine-tune"


def test_events_are_merged_once_and_a_foreign_file_is_refused(tmp_path: Path) -> None:
    events = Events(tmp_path / "a.sqlite")
    event = Event(NOW, "goal", {"goal": "research"}, "u1")
    assert (events.merge([event]), events.merge([event])) == (1, 0)
    assert [each.data for each in events.after(0)] == [{"goal": "research"}]
    (tmp_path / "b.sqlite").write_text("this is no database, but a text that is long enough" * 40)
    with pytest.raises(UserError, match="cannot be used"):
        Events(tmp_path / "b.sqlite")


def test_an_event_of_a_newer_version_is_kept_and_not_counted(learner: Learner) -> None:
    learner.events.add(NOW, "dream", {"of": "electric sheep"})
    assert learner.state().last == 1
    assert json.dumps([event.kind for event in learner.events.after(0)]) == '["dream"]'
