"""The grammar's probabilities are exact: entropy against a sum over samples, parsing against making."""

from __future__ import annotations

import math
import random
from itertools import islice

import pytest

from bottega.course import world


def test_a_story_is_one_derivation() -> None:
    made = list(world.stories(1, 500))
    assert [world.parse(story.text) for story in made] == made
    assert len({story.text for story in made}) > 490


def test_the_same_seed_gives_the_same_stories() -> None:
    assert [s.text for s in world.stories(3, 5)] == [s.text for s in islice(world.stories(3, 50), 5)]
    assert next(world.stories(3, 1)).text != next(world.stories(4, 1)).text


def test_the_entropy_is_the_mean_of_minus_log_p() -> None:
    values = [-story.log_probability for story in world.stories(5, 20_000)]
    mean = sum(values) / len(values)
    error = math.sqrt(sum((value - mean) ** 2 for value in values)) / len(values)
    assert abs(mean - world.entropy_per_story()) < 4 * error
    assert 20 < world.entropy_per_story() < 22
    lengths = [len(story.words) for story in world.stories(5, 20_000)]
    assert sum(lengths) / len(lengths) == pytest.approx(world.tokens_per_story(), rel=0.01)


def test_all_probabilities_sum_to_one() -> None:
    for options in world.CHOICES.values():
        assert sum(options.values()) == pytest.approx(1)
    for place in world.BRANCHES:
        assert sum(p for p, _ in place) == pytest.approx(1)


def test_words_classes_and_questions() -> None:
    words = world.vocabulary()
    assert len(words) == len(set(words)) <= 90
    assert world.word_classes()["mia"] == "name"
    story = next(world.stories(7, 1))
    asked = dict(world.questions(story))
    assert asked[f"who was {story.choices['name']} ?"] == story.choices["animal"]
    known = {*words, *world.SPECIAL}
    for text in (story.text, *(world.conversation(story, *pair) for pair in asked.items())):
        assert set(text.split()) <= known


def test_what_no_story_is_has_no_parse() -> None:
    story = next(world.stories(9, 1))
    draw = random.Random(0)
    assert world.parse(story.text + " the end .") is None
    assert world.parse(" ".join(reversed(story.words))) is None
    assert not world.is_fluent(" ".join(reversed(story.words)))
    for _ in range(20):
        wrong = world.with_wrong_name(story, draw)
        assert wrong != story.text
        assert world.parse(wrong) is None
        assert world.is_fluent(wrong)
        assert len(wrong.split()) == len(story.words)


def test_no_story_is_likelier_than_the_likeliest() -> None:
    best = world.likeliest_story()
    assert world.parse(best.text) == best
    assert best.log_probability >= max(story.log_probability for story in world.stories(11, 5000))
