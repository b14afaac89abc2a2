"""Conversations and multiple-choice questions from facts.

Each kind of fact has phrasings to train with and others to test with, so a question about
something seen in training is never put in words seen in training.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from bottega.data.convert import Message
from bottega.data.facts import Fact, Kind
from bottega.data.split import rank

Group = Literal["seen", "unseen"]
CHOICES = 4
_TRAIN: dict[Kind, tuple[str, ...]] = {
    "what": (
        "What does {subject} do?",
        "What does the {noun} {subject} do?",
        "What is {subject}?",
        "What is {subject} for?",
        "Explain {subject} in a sentence.",
        "Explain what {subject} does.",
        "Please explain the {noun} {subject}.",
        "When would I use {subject}?",
        "How would you sum up the {noun} {subject}?",
    ),
    "module": (
        "Which module has {subject}?",
        "Which module has the {noun} {subject}?",
        "Where is {subject} in the standard library?",
        "From which module do I import {subject}?",
        "Where does the {noun} {subject} live?",
        "Where is {subject} defined?",
        "How do I import {subject}?",
        "To use the {noun} {subject}, which module is needed?",
    ),
    "parameters": (
        "What are the parameters of {subject}?",
        "What parameters does {subject} have?",
        "Which parameters does {subject} take?",
        "What arguments does the {noun} {subject} accept?",
        "Name the parameters of the {noun} {subject}.",
        "Show me the arguments of {subject}.",
        "How is {subject} called?",
        "What does the signature of {subject} look like?",
    ),
    "section": (
        'What does the section "{subject}" of {place} say?',
        'What is in the section "{subject}" of {place}?',
        'Summarize the section "{subject}" of {place}.',
    ),
}
_TEST: dict[Kind, tuple[str, ...]] = {
    "what": (
        "I came across {subject} in some code. What is its purpose?",
        "Can you describe the {noun} {subject} briefly?",
        "Tell me what {subject} is good for.",
    ),
    "module": (
        "I need the {noun} {subject}. What do I have to import?",
        "Can you tell me where {subject} comes from?",
        "In what part of the standard library would I look for {subject}?",
    ),
    "parameters": (
        "How do I call {subject}: what does it expect?",
        "I want to use the {noun} {subject}. What can I pass to it?",
        "List the parameters of {subject}.",
    ),
    "section": (
        'In {place}, what can I read under "{subject}"?',
        'What does {place} tell me about "{subject}"?',
        'Look at "{subject}" in {place}. What is said there?',
    ),
}


def conversation(fact: Fact, seed: int) -> list[Message]:
    """The fact as a question and its answer, in one of the phrasings for training."""
    return [
        {"role": "user", "content": _phrase(fact, _TRAIN, seed)},
        {"role": "assistant", "content": fact.answer},
    ]


def questions(
    facts: Sequence[Fact], group: Group, seed: int, limit: int, *, known: Iterable[Fact] = ()
) -> list[dict[str, Any]]:
    """At most `limit` multiple-choice questions, the kinds in equal parts as far as they go.

    The wrong choices are answers of other facts of `facts`, of the same kind and nearly the
    same length. Facts whose answer is almost one of `known` (what the other side teaches)
    are not asked about: they would not be unseen.
    """
    known = list(known)
    taught, taught_ids = _Answers(known), {fact.id for fact in known}
    by_kind: dict[Kind, list[Fact]] = defaultdict(list)
    for fact in sorted(facts, key=lambda fact: (rank(seed, f"{group} {fact.id}"), fact.id)):
        if fact.id not in taught_ids:
            by_kind[fact.kind].append(fact)
    made: dict[Kind, list[dict[str, Any]]] = {}
    for place, (kind, candidates) in enumerate(sorted(by_kind.items())):
        # What one kind cannot fill, the kinds after it may.
        quota = (limit - sum(map(len, made.values()))) // (len(by_kind) - place)
        made[kind] = _of_kind(candidates, group, seed, quota, taught)
    return [question for kind in made for question in made[kind]]


def _of_kind(facts: Sequence[Fact], group: Group, seed: int, quota: int, taught: _Answers) -> list[dict[str, Any]]:
    pool = sorted({fact.answer for fact in facts}, key=lambda answer: (len(answer), answer))
    found: list[dict[str, Any]] = []
    for fact in facts:
        if len(found) >= quota:
            break
        if fact.kind in ("what", "section") and taught.has_near(fact.answer):
            continue
        wrong = _distractors(fact, pool, seed)
        if len(wrong) < CHOICES - 1:
            continue
        choices = sorted([fact.answer, *wrong], key=lambda choice: rank(seed, f"{group} {fact.id} {choice}"))
        found.append(
            {
                "id": f"{group}:{fact.id}",
                "group": group,
                "kind": fact.kind,
                "question": _phrase(fact, _TEST, seed),
                "choices": choices,
                "answer": choices.index(fact.answer),
            }
        )
    return found


def _distractors(fact: Fact, pool: Sequence[str], seed: int) -> list[str]:
    """Three of the dozen answers nearest in length that are not almost the right one, nor each other.

    As many shorter as longer ones are looked at, so that length does not give the answer away.
    """
    at = bisect_left(pool, (len(fact.answer), fact.answer), key=lambda answer: (len(answer), answer))
    taken = [fact.answer]
    near: list[str] = []
    for distance in range(1, 40):
        for index in (at - distance, at + distance):
            if 0 <= index < len(pool) and len(near) < 12 and _alike(pool[index], fact.answer):
                near.append(pool[index])
    for answer in sorted(near, key=lambda answer: rank(seed, f"{fact.id} {answer}")):
        if len(taken) < CHOICES and not any(_near(answer, other) for other in taken):
            taken.append(answer)
    return taken[1:]


def _phrase(fact: Fact, phrasings: dict[Kind, tuple[str, ...]], seed: int) -> str:
    choices = phrasings[fact.kind]
    chosen = choices[rank(seed, fact.id) % len(choices)]
    return chosen.format(subject=fact.subject, noun=fact.noun, place=fact.place)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def _alike(a: str, b: str) -> bool:
    """Whether `a` could stand in for `b`: of the same form, and not almost the same."""
    return _split_frame(a)[0] == _split_frame(b)[0] and not _near(a, b)


def _near(a: str, b: str) -> bool:
    """Whether two answers share 70 % of their words, apart from the frame."""
    first, second = _words(_split_frame(a)[1]), _words(_split_frame(b)[1])
    return len(first & second) >= 0.7 * len(first | second)


def _split_frame(answer: str) -> tuple[str, str]:
    """The words that all answers of a form begin with, and the rest."""
    match = re.match(r"It is in the|Its parameters are|Its only parameter is", answer)
    return (match[0], answer[match.end() :]) if match else ("", answer)


class _Answers:
    """A set of answers that can be asked for near ones; looks only at answers that share a rare word."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._sets = sorted({_words(fact.answer) for fact in facts}, key=sorted)
        self._with: dict[str, list[int]] = defaultdict(list)
        for number, words in enumerate(self._sets):
            for word in words:
                self._with[word].append(number)

    def has_near(self, answer: str) -> bool:
        words = _words(answer)
        # Of sets that share 70 % of their words, any three tenths of one contain a shared word.
        rare = sorted(words, key=lambda word: (len(self._with.get(word, ())), word))
        for word in rare[: len(rare) * 3 // 10 + 1]:
            for number in self._with.get(word, ()):
                other = self._sets[number]
                if len(words & other) >= 0.7 * len(words | other):
                    return True
        return False
