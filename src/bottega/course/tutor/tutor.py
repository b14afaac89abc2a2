"""Asking the tutor: find passages, take the sentences that answer, cite each, or say that the course does not tell.

Without a model the answer is made of sentences as they stand. With one (any OpenAI-compatible endpoint) it is
rewritten, and a sentence is kept only if its citation supports it by the rule of `sentences.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bottega.clients.chat import ChatClient
from bottega.clients.endpoint import Endpoint, EndpointError
from bottega.core.workspace import workspace_path
from bottega.course.learner.learner import Learner
from bottega.course.learner.questions import Question
from bottega.course.library import Course, Exercise
from bottega.course.tutor.corpus import Kind, Passage
from bottega.course.tutor.follow_up import concepts_at, mistake_on, question_on
from bottega.course.tutor.guard import asks_for_solution, exercise_meant, has_line_of, leaks
from bottega.course.tutor.search import CLOSE, Found, Material
from bottega.course.tutor.sentences import supporting

PASSAGES = 3  # that a model rewrites
ABSTAINS = "The course's material does not answer this."
INSTRUCTION = (
    "Answer the question with sentences from the numbered sources only. Keep their words and their order; you may "
    "leave words out. End every sentence with its source's number in brackets, like [1]. If the sources do not answer "
    "it, write: NO ANSWER."
)


@dataclass(frozen=True)
class Citation:
    """Where a sentence stands: the page's title and address, the words themselves, and what kind of text it is."""

    title: str
    anchor: str
    quote: str
    kind: Kind


@dataclass(frozen=True)
class Answer:
    """An answer; `abstained` says that there is none, and `reason` why.

    With a learner, `mistake` is their last one on the subject, and `question` what they may answer next.
    """

    answer: str
    citations: Sequence[Citation] = field(default=())
    abstained: bool = False
    reason: str = ""
    mistake: str = ""
    question: Question | None = None

    def as_data(self) -> dict[str, object]:
        """For `--json`."""
        asked = self.question
        return {
            "answer": self.answer,
            "citations": [vars(each) for each in self.citations],
            "abstained": self.abstained,
            "reason": self.reason,
            "mistake": self.mistake,
            "question": asked and {"item": asked.item, "stem": asked.stem, "page": f"/course/{asked.chapter}/quiz"},
        }


class Tutor:
    """Answers questions about one course; with a learner it knows their runs and what they have solved."""

    def __init__(
        self, course: Course, learner: Learner | None = None, endpoint: Endpoint | None = None,
        workspace: Path | None = None,
    ) -> None:  # fmt: skip
        self.course, self.learner, self.endpoint = course, learner, endpoint
        self.workspace = workspace or workspace_path()
        self.material = Material.of(course, self.workspace)

    def ask(self, question: str) -> Answer:
        """Answer `question`, or abstain."""
        exercise = exercise_meant(self.course, question)
        if asks_for_solution(question, exercise):
            return self._hint(exercise.id if exercise else None)
        found = self.material.search(question)
        if not found:
            return Answer(ABSTAINS, abstained=True, reason="no passage of the material is about this")
        answer = self._rewritten(question, found) if self.endpoint is not None else None
        answer = answer or self._taken(found)
        if leaks(self.course, self._solved(), answer.answer):
            return self._hint(exercise.id if exercise else None)
        return self._with_follow_up(answer)

    def next_question(self) -> Question | None:
        """A question that fits what the learner knows least of what can be learned now."""
        return question_on(self.learner, ()) if self.learner is not None else None

    def _with_follow_up(self, answer: Answer) -> Answer:
        concepts = concepts_at(self.course, answer.citations[0].anchor) if answer.citations else []
        if self.learner is None or not concepts:
            return answer
        mistake, question = mistake_on(self.learner, concepts), question_on(self.learner, concepts)
        return replace(answer, mistake=mistake, question=question)

    def _taken(self, found: Sequence[Found]) -> Answer:
        """The sentences that answer best, and one of another page that fits nearly as well."""
        best = found[0]
        kept = [Citation(best.passage.title, best.passage.anchor, quote, best.passage.kind) for quote in best.quotes]
        others = (each for each in found[1:] if each.passage.anchor != best.passage.anchor)
        for other in [each for each in others if each.score >= CLOSE * best.score][:1]:
            kept.append(Citation(other.passage.title, other.passage.anchor, other.quotes[0], other.passage.kind))
        return Answer(" ".join(f"{each.quote} [{i + 1}]" for i, each in enumerate(kept)), kept)

    def _rewritten(self, question: str, results: Sequence[Found]) -> Answer | None:
        """The endpoint's answer, as far as the passages support it; None where less than half of it is left."""
        found = [each.passage for each in results[:PASSAGES]]
        sources = "\n\n".join(f"[{i + 1}] {passage.text}" for i, passage in enumerate(found))
        messages = [
            {"role": "system", "content": INSTRUCTION},
            {"role": "user", "content": f"Sources:\n{sources}\n\nQuestion: {question}"},
        ]
        assert self.endpoint is not None
        try:
            with ChatClient(self.endpoint) as client:
                said = client.ask(messages, max_tokens=400).text
        except EndpointError:
            return None
        parts = re.split(r"(?<=\[\d\])[.,;:]?\s*", " ".join(said.split()))
        claims = [claim for part in parts if (claim := part.strip())]
        kept = [made for claim in claims if (made := _supported(claim, found)) is not None]
        if not kept or 2 * len(kept) < len(claims):
            return None
        text = " ".join(f"{sentence} [{i + 1}]" for i, (sentence, _) in enumerate(kept))
        return Answer(text, [citation for _, citation in kept])

    def _hint(self, exercise: str | None) -> Answer:
        """What is said instead of a solution: the next hint, and where it is explained."""
        if exercise is None:
            text = "I do not write out solutions. Name the exercise, and I give you its next hint."
            return Answer(text, abstained=True, reason="it asks for a solution")
        found = self.course.exercise(exercise)
        page = f"/course/{found.chapter}/exercise/{found.name}"
        if exercise in self._solved():
            return Answer(f"You have solved it; the solution is on its page: {page}", reason="it is solved")
        hint = self._next_hint(found)
        if not hint:
            text = f"I do not write out the solution of an open exercise. Its hints are on its page: {page}"
            return Answer(text, abstained=True, reason="it asks for a solution")
        citation = Citation(found.data.title.en, page, hint, "exercise")
        text = f"I do not write out the solution of an open exercise. A hint: {hint} [1]"
        return Answer(text, [citation], reason="it asks for a solution")

    def _next_hint(self, exercise: Exercise) -> str:
        """The next hint; empty where one has to wait, where all were given, or where it is code of the solution."""
        hints = exercise.data.hints
        level = self.learner.state().hints.get(exercise.id, (0, None))[0] if self.learner is not None else 0
        if level >= len(hints) or self._gives_away(exercise, hints[level].text):
            return ""
        text = hints[level].text if self.learner is None else self.learner.hint(exercise.id).text
        return text.strip()

    def _gives_away(self, exercise: Exercise, text: str) -> bool:
        return has_line_of(exercise.solution, text) or leaks(self.course, (), text)

    def _solved(self) -> set[str]:
        return set(self.learner.state().solved) if self.learner is not None else set()


def _supported(claim: str, passages: Sequence[Passage]) -> tuple[str, Citation] | None:
    """A model's sentence with what it cites; None if it cites nothing, or what does not support it."""
    found = re.fullmatch(r"(.+?)[\s.]*\[(\d)\]", claim)
    if found is None or not 1 <= int(found[2]) <= len(passages):
        return None
    passage = passages[int(found[2]) - 1]
    quote = supporting(found[1], passage.text)
    return None if quote is None else (f"{found[1]}.", Citation(passage.title, passage.anchor, quote, passage.kind))
