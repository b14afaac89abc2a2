"""Asking the tutor: find passages, take the sentences that answer, cite each, or say that the course does not tell.

Without a model the answer is made of sentences as they stand. With one (any OpenAI-compatible endpoint) it is
rewritten, and a sentence is kept only if its citation supports it by the rule of `sentences.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bottega.clients.chat import ChatClient
from bottega.clients.endpoint import Endpoint, EndpointError
from bottega.core.workspace import workspace_path
from bottega.course.learner.learner import Learner
from bottega.course.library import Course
from bottega.course.tutor.corpus import Kind
from bottega.course.tutor.guard import asks_for_solution, exercise_meant, leaks
from bottega.course.tutor.search import CLOSE, Found, Material
from bottega.course.tutor.sentences import is_supported

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
    """An answer; `abstained` says that there is none, and `reason` why."""

    answer: str
    citations: Sequence[Citation] = field(default=())
    abstained: bool = False
    reason: str = ""

    def as_data(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "answer": self.answer, "citations": [vars(each) for each in self.citations], "abstained": self.abstained,
            "reason": self.reason,
        }  # fmt: skip


class Tutor:
    """Answers questions about one course; with a learner it knows their runs and what they have solved."""

    def __init__(
        self, course: Course, learner: Learner | None = None, endpoint: Endpoint | None = None,
        workspace: Path | None = None,
    ) -> None:  # fmt: skip
        self.course, self.learner, self.endpoint = course, learner, endpoint
        place = workspace or workspace_path()
        self.material = Material.of(course, place)

    def ask(self, question: str) -> Answer:
        """Answer `question`, or abstain."""
        exercise = exercise_meant(self.course, question)
        if asks_for_solution(question) and (exercise is not None or "exercise" in question.lower()):
            return self._hint(exercise.id if exercise else None)
        found = self.material.search(question)
        if not found:
            return Answer(ABSTAINS, abstained=True, reason="no passage of the material is about this")
        answer = self._rewritten(question, found) if self.endpoint is not None else None
        answer = answer or self._taken(found)
        if leaks(self.course, self._solved(), answer.answer):
            return self._hint(exercise.id if exercise else None)
        return answer

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
        kept, all_ = [], 0
        for part in re.findall(r"([^\[\]]+?)\s*\[(\d+)\]", said.replace("\n", " ")):
            all_ += 1
            sentence, number = part[0].strip(" .\t") + ".", int(part[1])
            if 1 <= number <= len(found) and is_supported(sentence, found[number - 1].text):
                passage = found[number - 1]
                kept.append(Citation(passage.title, passage.anchor, sentence, passage.kind))
        if not kept or 2 * len(kept) < all_:
            return None
        return Answer(" ".join(f"{each.quote} [{i + 1}]" for i, each in enumerate(kept)), kept)

    def _hint(self, exercise: str | None) -> Answer:
        """What is said instead of a solution: the next hint, and where it is explained."""
        if exercise is None:
            text = "I do not write out solutions. Name the exercise, and I give you its next hint."
            return Answer(text, abstained=True, reason="it asks for a solution")
        found = self.course.exercise(exercise)
        hint = self.learner.hint(exercise).text if self.learner is not None else found.data.hints[0].text
        hint = hint or "Wait a little before the next hint, and try on your own."
        section = found.data.section or ""
        citation = Citation(found.data.title.en, f"/course/{found.chapter}#{section}", hint, "lesson")
        text = f"I do not write out the solution of an open exercise. A hint: {hint} [1]"
        return Answer(text, [citation], reason="it asks for a solution")

    def _solved(self) -> set[str]:
        return set(self.learner.state().solved) if self.learner is not None else set()
