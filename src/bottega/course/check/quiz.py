"""Rules of `quiz.toml`: enough questions, every answer explained, nothing to be had without knowledge.

In two public courses "choose the longest option" scored 72 % and 59 % (chance: 27 % and 31 %), so a chapter's right
options may be the longest only as often as chance, and a tenth more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bottega.core.errors import did_you_mean
from bottega.course.check.lesson import text_problems
from bottega.course.check.problem import Problem, line_of
from bottega.course.check.reading import items_of
from bottega.course.library import Chapter, Course
from bottega.course.schema import Item

LEAST = 3  # questions of a leaf, and of a concept: a challenge takes three, a review a sibling
MORE_THAN_CHANCE = 0.10
_CATCH_ALL = re.compile(
    r"\b(all|none|both|neither|any) (of )?(the )?(above|below|these|others?|options|answers)\b"
    r"|\bboth [a-d] and [a-d]\b",
    re.IGNORECASE,
)

Made = Mapping[str, Sequence[Item]]
"""Questions that generators made, by the id of their item."""


def quiz_problems(chapter: Chapter, course: Course, made: Made | None = None) -> Iterator[Problem]:
    """Everything about the questions of a chapter; `made` are what its generators made, where they were run."""
    path = chapter.folder / "quiz.toml"
    yield from _counts(chapter, path)
    for item in chapter.items:
        line = line_of(path, f'id = "{item.id}"')
        yield from _names(item, chapter, path, line)
        if item.generator:
            drawn = (made or {}).get(item.id, ())
            yield from _once(problem for each in drawn for problem in item_problems(each, path, line, chapter, course))
        else:
            yield from item_problems(item, path, line, chapter, course)
    yield from _stems(chapter, course, path)
    yield from _guessable(chapter.items, made or {}, path)


def item_problems(item: Item, path: Path, line: int, chapter: Chapter, course: Course) -> Iterator[Problem]:
    """What one question, written or made, gets wrong."""

    def problem(rule: str, message: str, fix: str = "") -> Problem:
        return Problem(path, line, rule, f"{item.id}: {message}", fix)

    texts = [item.stem, item.why, *item.mistakes.values()]
    texts += [text for option in item.options for text in (option.text, option.why)]
    for text in texts:
        for found in text_problems(text, path, line, chapter, course):
            yield problem(found.rule, found.message, found.fix)
    for option in item.options:
        if not option.why.strip():
            yield problem("option-why", f"nothing explains the option {option.text!r}", "Give its why.")
        if _CATCH_ALL.search(option.text):
            yield problem("catch-all", f"the option {option.text!r} speaks of the others, which are shuffled")
    for what, found in (
        ("option", [option.text for option in item.options]),
        ("left side", [pair.left for pair in item.pairs]),
        ("right side", [pair.right for pair in item.pairs]),
        ("line", list(item.answer) if item.kind == "order" and isinstance(item.answer, tuple) else []),
    ):
        for text, count in Counter(found).items():
            if count > 1:
                yield problem("distinct", f"the {what} {text!r} is there {count} times")
    if item.kind == "order" and isinstance(item.answer, tuple) and len(item.answer) < 3:
        yield problem("order-lines", "an order has at least three lines")
    if item.kind == "cloze" and isinstance(item.answer, tuple) and item.stem.count("___") != len(item.answer):
        yield problem("cloze-gaps", f"{item.stem.count('___')} gaps and {len(item.answer)} answers", "A gap is ___.")
    if item.kind == "numeric":
        yield from (problem(*each) for each in _numeric(item))
    for text in item.mistakes:
        if item.kind != "numeric" and _plain(text) == _plain(str(item.answer)):
            yield problem("mistake-wrong", f"the mistake {text!r} is the answer")


def _numeric(item: Item) -> Iterator[tuple[str, str, str]]:
    assert isinstance(item.answer, int | float)
    if item.tolerance == 0 and item.answer != round(item.answer):
        yield "tolerance", f"the answer {item.answer} is no whole number and has no tolerance", "tolerance = …"
    if item.answer and item.tolerance > abs(item.answer) / 5:
        yield "tolerance", f"the tolerance {item.tolerance} is more than a fifth of the answer", ""
    for text in item.mistakes:
        try:
            wrong = float(text)
        except ValueError:
            yield "mistake-number", f"the mistake {text!r} is no number", ""
            continue
        if abs(wrong - item.answer) <= item.tolerance:
            yield "mistake-wrong", f"the mistake {text!r} is within the tolerance of the answer", ""


def _counts(chapter: Chapter, path: Path) -> Iterator[Problem]:
    leaf_of = {concept.id: concept.leaf for concept in chapter.data.concepts}
    # What a generator makes is another question each time.
    weights = [(item.concept, LEAST if item.generator else 1) for item in chapter.items]
    concepts: Counter[str] = Counter()
    leaves: Counter[str] = Counter()
    for concept, weight in weights:
        concepts[concept] += weight
        leaves[leaf_of.get(concept, "")] += weight
    for what, names, counts in (
        ("leaf", [leaf.id for leaf in chapter.data.leaves], leaves),
        ("concept", list(leaf_of), concepts),
    ):
        for name in names:
            if counts[name] < LEAST:
                message = (
                    f"the {what} {name} has {counts[name]} questions, it needs {LEAST} (a generator counts as {LEAST})"
                )
                yield Problem(path, 0, f"{what}-items", message)


def _names(item: Item, chapter: Chapter, path: Path, line: int) -> Iterator[Problem]:
    concepts = [concept.id for concept in chapter.data.concepts]
    if item.concept not in concepts:
        message = f"{item.id}: there is no concept {item.concept!r} in this chapter"
        yield Problem(path, line, "concept-exists", message, did_you_mean(item.concept, concepts))
    sections = [section.id for section in chapter.lesson().sections]
    if item.section is None:
        yield Problem(path, line, "item-section", f"{item.id} names no section", "section = the one that explains it")
    elif item.section not in sections:
        message = f"{item.id}: there is no section {item.section!r}"
        yield Problem(path, line, "section-exists", message, did_you_mean(item.section, sections))


def _stems(chapter: Chapter, course: Course, path: Path) -> Iterator[Problem]:
    others = [item for other in course.written() for item in items_of(other) if other.id != chapter.id]
    counts = Counter(_plain(item.stem + item.code) for item in (*chapter.items, *others) if item.stem)
    for item in chapter.items:
        if item.stem and counts[_plain(item.stem + item.code)] > 1:
            line = line_of(path, f'id = "{item.id}"')
            yield Problem(
                path, line, "stem-unique", f"{item.id}: another question asks the same", "Ask something else."
            )


def _guessable(items: Sequence[Item], made: Made, path: Path) -> Iterator[Problem]:
    """The key as the longest option, over the chapter. Its place tells nothing: options are shuffled when shown."""
    shown = [(item, 1.0) for item in items if item.kind == "single" and not item.generator]
    for item in items:
        drawn = [each for each in made.get(item.id, ()) if each.kind == "single"]
        shown += [(each, 1 / len(drawn)) for each in drawn]
    total = sum(weight for _, weight in shown)
    if not total:
        return
    chance = sum(weight / len(item.options) for item, weight in shown) / total
    longest = sum(weight * key_is_longest(item) for item, weight in shown)
    if longest / total > chance + MORE_THAN_CHANCE:
        message = f"the right option is the longest in {longest:.3g} of {total:.3g} questions; by chance {chance:.0%}"
        yield Problem(path, 0, "longest", message, "Shorten right options, or make wrong ones as exact.")


def key_is_longest(item: Item) -> float:
    """Chance that whoever takes the longest option is right: 1, 0, or a share where several are as long."""
    longest = max(len(option.text) for option in item.options)
    tied = [option for option in item.options if len(option.text) == longest]
    return sum(option.right for option in tied) / len(tied)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _once(problems: Iterator[Problem]) -> Iterator[Problem]:
    """The first problem of each rule: the questions of one generator have the same."""
    seen: set[str] = set()
    for problem in problems:
        if problem.rule not in seen:
            seen.add(problem.rule)
            yield problem
