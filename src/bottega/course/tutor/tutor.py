"""Asking the tutor: find passages, take the sentences that answer, cite each, or say that the course does not tell.

Without a model the answer is made of sentences as they stand. With one (any OpenAI-compatible endpoint) it is
rewritten, and a sentence is kept only if its citation supports it by the rule of `sentences.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bottega.clients.chat import ChatClient
from bottega.clients.endpoint import Endpoint, EndpointError
from bottega.core.workspace import workspace_path
from bottega.course.learner.learner import Learner
from bottega.course.library import Course
from bottega.course.tutor.corpus import WEIGHTS, Kind, Passage, indexed, lesson_passages, run_passages
from bottega.course.tutor.guard import asks_for_solution, exercise_meant, leaks
from bottega.course.tutor.sentences import is_supported, sentences
from bottega.retrieve.words import content_words

COVERED = 0.6  # share of what a question asks about (by idf) that one passage has to have
PASSAGES, SENTENCES = 3, 3
OWN = 5.0  # how much more the learner's runs count where the question is about them
_OWN = re.compile(r"\b(my|mine|did i|have i|i trained|i ran)\b", re.IGNORECASE)
SYNONYM = 0.5  # what a word counts that stands for another one
# Short names and what they stand for; words of a question find passages that write the other.
SYNONYMS: Mapping[str, str] = {
    "sft": "supervised fine-tuning", "dpo": "direct preference optimisation", "ppo": "proximal policy optimisation",
    "bpe": "byte-pair encoding merges", "lora": "low-rank adapter", "rope": "rotary positions", "kl": "divergence",
    "nucleus": "top-p", "unembedding": "head", "vocab": "vocabulary", "tokeniser": "tokenizer", "llm": "language model",
    "hallucinate": "makes things up", "overfitting": "overfit validation", "perplexity": "loss entropy",
    "rlhf": "reward preference", "embedding": "embeddings vectors", "sampling": "temperature draw",
}  # fmt: skip
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
        own = [*lesson_passages(course), *run_passages(place)]
        self.passages, self.index = indexed(own, place / "course" / "tutor")

    def ask(self, question: str) -> Answer:
        """Answer `question`, or abstain."""
        exercise = exercise_meant(self.course, question)
        if asks_for_solution(question) and (exercise is not None or "exercise" in question.lower()):
            return self._hint(exercise.id if exercise else None)
        found = self.search(question)
        if not found:
            return Answer(ABSTAINS, abstained=True, reason="no passage of the material is about this")
        answer = self._rewritten(question, found) if self.endpoint is not None else None
        answer = answer or self._taken(question, found)
        if leaks(self.course, self._solved(), answer.answer):
            return self._hint(exercise.id if exercise else None)
        return answer

    def search(self, question: str) -> list[Passage]:
        """The best passages, the best first; none where none has enough of what the question asks about."""
        wanted = _query(question)
        asked = dict.fromkeys(content_words(question), 1.0)
        if not asked:
            return []
        scores = self.index.scores(wanted)
        weights = _weights(question)
        order = sorted(range(len(self.passages)), key=lambda i: -scores[i] * weights[self.passages[i].kind])
        best = [i for i in order[:40] if scores[i] > 0 and self._coverage(asked, self.passages[i]) >= COVERED]
        return [self.passages[i] for i in best[:PASSAGES]]

    def _coverage(self, asked: Mapping[str, float], passage: Passage) -> float:
        """Which share of what is asked about a passage has; a word that no passage has counts most."""
        has = set(content_words(f"{passage.title} {passage.text}"))
        weights = {word: self.index.idf(word) for word in asked}
        stands_for = {word: set(content_words(SYNONYMS.get(word, ""))) for word in asked}
        got = sum(weight for word, weight in weights.items() if word in has or stands_for[word] & has)
        return got / sum(weights.values())

    def _taken(self, question: str, found: Sequence[Passage]) -> Answer:
        """The sentences that answer best: neighbours out of one passage, and one of another that says more."""
        wanted = _query(question)
        weights = _weights(question)
        runs = sorted((self._best_run(passage, wanted, weights) for passage in found), key=lambda each: -each[0])
        score, kept = runs[0]
        if score <= 0:
            return Answer(ABSTAINS, abstained=True, reason="the passages found do not answer it")
        if len(runs) > 1 and runs[1][0] > 0.6 * score:
            kept = [*kept, *runs[1][1][:1]]
        return Answer(" ".join(f"{each.quote} [{i + 1}]" for i, each in enumerate(kept)), kept)

    def _best_run(
        self, passage: Passage, wanted: Mapping[str, float], weights: Mapping[Kind, float]
    ) -> tuple[float, list[Citation]]:
        """The SENTENCES neighbours that have most of what is wanted, the first of them having a part of it."""
        texts = sentences(passage.text)
        has = [set(content_words(text)) for text in texts]
        best, begin = 0.0, 0
        for start in range(len(texts)):
            if not has[start] & wanted.keys():
                continue
            run = set().union(*has[start : start + SENTENCES])
            score = sum(weight * self.index.idf(word) for word, weight in wanted.items() if word in run)
            score += 0.3 * sum(weight * self.index.idf(word) for word, weight in wanted.items() if word in has[start])
            if score > best + 1e-9:
                best, begin = score, start
        chosen = texts[begin : begin + SENTENCES] if best else []
        return best * weights[passage.kind], [Citation(passage.title, passage.anchor, t, passage.kind) for t in chosen]

    def _rewritten(self, question: str, found: Sequence[Passage]) -> Answer | None:
        """The endpoint's answer, as far as the passages support it; None where less than half of it is left."""
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


def _weights(question: str) -> Mapping[Kind, float]:
    """What each kind of passage counts for a question: the learner's own runs more where it is about them."""
    return {**WEIGHTS, "run": OWN * WEIGHTS["run"]} if _OWN.search(question) else WEIGHTS


def _query(question: str) -> dict[str, float]:
    """The words of a question, and with less weight those that they stand for."""
    found = dict.fromkeys(content_words(question), 1.0)
    for word in list(found):
        for other in content_words(SYNONYMS.get(word, "")):
            found.setdefault(other, SYNONYM)
    return found
