"""Which passages a question is about, and whether any answers it.

A passage's score is the sum over the question's terms of the best BM25 score among the ways to say the term. Whether
it answers is another question, decided by coverage: the share of the terms, weighted by how rare they are, that its
title and its best WINDOW sentences in a row have. Below COVERED the material does not answer. (Rules and what they
miss: docs/tutor.md.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bottega.course.library import Course
from bottega.course.schema import Language
from bottega.course.tutor.corpus import WEIGHTS, Kind, Passage, emphasised, indexed, lesson_passages, run_passages
from bottega.course.tutor.query import Lexicon, Term, initials
from bottega.course.tutor.sentences import sentences
from bottega.retrieve.words import content_words

# A lesson is about one thing; other texts mention much, so that more of the question has to be in them.
COVERED: Mapping[Kind, float] = {"lesson": 0.5, "run": 0.6, "documentation": 0.7, "reference": 0.85}
WINDOW = 3
CANDIDATES = 40
CLOSE = 0.45  # share of the best score that another passage needs to be cited beside it
GENERAL = 0.6  # what a word of no subject counts in the order of passages
ASIDE = 0.1  # and where an answer lacks it
NAMED, DENSE, FIRST = 1.5, 1.0, 0.3  # a heading that the question has; the best sentence; the window's first one
SHARP, RARE = 2, 1.5  # powers of coverage in the score, and of rarity in coverage
EXPLAINS = ("lesson", "documentation")
OWN = 3.0  # how much more the learner's runs count where the question is about them
_OWN = re.compile(r"\b(my|mine|did i|have i|i (trained|ran|used|made|got|had))\b", re.IGNORECASE)
_RUNS = re.compile(r"\b(runs?|my (last|latest|previous|first)|did i|have i|i (trained|ran|used))\b", re.IGNORECASE)
_CJK = re.compile(r"[\u3400-\u9fff]")
Row = npt.NDArray[np.float64]
Split = tuple[list[frozenset[str]], frozenset[str], list[tuple[str, frozenset[str]]]]


@dataclass(frozen=True)
class Found:
    """A passage, how well it fits, and the sentences in a row that have most of what is asked."""

    passage: Passage
    score: float
    coverage: float
    quotes: Sequence[str]


@dataclass
class Material:
    """Everything that the tutor may answer from."""

    passages: list[Passage]
    lexicon: Lexicon
    _words: dict[int, Split] = field(default_factory=dict)

    @classmethod
    def of(cls, course: Course, workspace: Path) -> Material:
        """The course's and the learner's; its index is kept in the workspace."""
        own = [*lesson_passages(course), *run_passages(workspace)]
        passages, index = indexed(own, workspace / "course" / "tutor")
        lessons = [each for each in passages if each.kind == "lesson"]
        names = frozenset(word for each in lessons for word in content_words(f"{each.title} {each.also}"))
        terms = [term for each in lessons for term in emphasised(each.text)]
        phrases = [concept.title.en for _, concept in course.concepts.values()]
        return cls(passages, Lexicon(index, names, initials([*terms, *phrases])))

    def search(self, question: str) -> list[Found]:
        """The passages that answer, the best first; none where none has enough of what the question asks about."""
        terms = self.lexicon.terms(question)
        if all(term.general for term in terms):
            return []
        language: Language = "zh" if _CJK.search(question) else "en"
        scores = self._scores(terms) * self._weights(question, language)
        order = np.argsort(-scores, kind="stable")[:CANDIDATES]
        found = [self._found(int(i), float(scores[i]), terms) for i in order if scores[i] > 0]
        found.sort(key=lambda each: -each.score)
        return [each for each in found if each.coverage >= COVERED[each.passage.kind]]

    def _scores(self, terms: Sequence[Term]) -> npt.NDArray[np.float32]:
        """BM25, of the ways to say each term the one that fits best."""
        index = self.lexicon.index
        total = np.zeros(index.count, dtype=np.float32)
        for term in terms:
            best = np.zeros(index.count, dtype=np.float32)
            for way, weight in term.ways.items():
                each = [index.scores([word]) for word in way]
                have = np.all([score > 0 for score in each], axis=0)
                np.maximum(best, weight * have * np.sum(each, axis=0), out=best)
            total += (GENERAL if term.general else 1.0) * best
        return total

    def _weights(self, question: str, language: Language) -> npt.NDArray[np.float32]:
        """What each kind of passage counts; of lessons those in the question's language."""
        weights = dict(WEIGHTS)
        weights["run"] *= (OWN if _OWN.search(question) else 1.0) if _RUNS.search(question) else 0.0
        return np.array(
            [weights[each.kind] * (each.kind != "lesson" or each.language == language) for each in self.passages],
            dtype=np.float32,
        )

    def _found(self, number: int, score: float, terms: Sequence[Term]) -> Found:
        """A passage with the WINDOW sentences that have most of what is asked, of which the first has a part."""
        passage = self.passages[number]
        lines, head, texts = self._split(number)
        if not texts:
            return Found(passage, 0.0, 0.0, ())
        rare = self._rarity(terms)
        weights = rare * [GENERAL if term.general else 1.0 for term in terms]
        in_head = _have(terms, head)
        in_texts = np.array([_have(terms, has) for _, has in texts])
        windows = np.array([in_texts[i : i + WINDOW].max(0) for i in range(len(texts))])
        begin = int(np.argmax((windows + FIRST * in_texts) @ weights))
        has = np.maximum(in_head, windows[begin])
        named = max(self._named(line, terms, weights) for line in lines) if passage.kind in EXPLAINS else 0.0
        total = weights.sum()
        fit = 0.5 + (in_head @ weights + NAMED * named + DENSE * (in_texts @ weights).max()) / total
        covered = self._coverage(passage, terms, rare, in_head, has, named=named > 0)
        quotes = [text for text, _ in texts[begin : begin + WINDOW]]
        return Found(passage, score * fit * float(has @ weights / total) ** SHARP, covered, quotes)

    def _coverage(
        self, passage: Passage, terms: Sequence[Term], rare: Row, in_head: Row, has: Row, *, named: bool
    ) -> float:
        """The share of what is asked that a passage has; one subject alone only if the passage is about it."""
        subject = np.array([not term.general for term in terms])
        told = subject & (has > 0)
        about = subject & ((in_head > 0) | [term.name for term in terms]) & (passage.kind == "lesson")
        if told.sum() < 2 and not named and not (about & told).any():
            return 0.0
        weights = np.where(subject, rare, np.where(has > 0, GENERAL * rare, ASIDE))
        return float(has @ weights / weights.sum())

    def _named(self, line: frozenset[str], terms: Sequence[Term], weights: Row) -> float:
        """How much of the question a heading or a term is, if the question has all of it."""
        if not line or not line <= frozenset().union(*(term.words for term in terms)):
            return 0.0
        return float(_have(terms, line) @ weights)

    def _rarity(self, terms: Sequence[Term]) -> Row:
        """How rare each term is: the commonest of its ways."""
        index = self.lexicon.index
        found = []
        for term in terms:
            known = [max(index.idf(word) for word in way) for way in term.ways if self.lexicon.knows(way)]
            found.append(min(known) if known else index.idf(""))
        return np.array(found) ** RARE

    def _split(self, number: int) -> Split:
        """Words of a passage's heading and of each line that it is found by, of all of these, and of its sentences."""
        if number not in self._words:
            passage = self.passages[number]
            lines = [frozenset(content_words(line)) for line in (passage.heading, *passage.also.split("\n"))]
            texts = [(text, frozenset(content_words(text))) for text in sentences(passage.text)]
            self._words[number] = lines, frozenset().union(*lines), texts
        return self._words[number]


def _have(terms: Sequence[Term], words: frozenset[str]) -> Row:
    """How well a set of words says each term."""
    return np.array([max((w for way, w in term.ways.items() if words.issuperset(way)), default=0.0) for term in terms])
