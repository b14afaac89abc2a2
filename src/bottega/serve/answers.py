"""From the generator's pieces to OpenAI's response objects, whole and streamed.

An `Answer` holds the `Choice`s of one request and wraps what they say: `whole` builds the response of an
unstreamed request; `first`, `add` and `last` give the chunks of a streamed one, in the order in which OpenAI
sends them: the role, the pieces, the finish reason, then (if asked for) the usage.
"""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from bottega.serve.failures import ApiError
from bottega.serve.framing import EVENTS, Data

if TYPE_CHECKING:
    from bottega.generate.generator import Piece, Ticket
    from bottega.serve.engine import Job
    from bottega.tokenizer.tokenizer import Tokenizer

FINGERPRINT = f"bottega-{metadata.version('bottega')}"


def is_shown(piece: Piece, tokenizer: Tokenizer) -> bool:
    """Whether the piece's token belongs to the text; a stop token, or the end of a stop string, does not."""
    stopped = piece.finish_reason == "stop"
    return not (stopped and (piece.token_id in tokenizer.stop_ids or not piece.text))


class Choice(ABC):
    """One of an answer's choices: what it says, without the envelope. `text` is all of it, for whoever judges it."""

    text = ""

    @property
    def finish_reason(self) -> str | None:
        """A reason that takes the place of the generator's "stop" (tool_calls)."""
        return None

    def opening(self) -> Data | None:
        """The content that comes before the first piece, in a stream."""
        return None

    @abstractmethod
    def news(self, piece: Piece | None, ticket: Ticket) -> Iterator[Data]:
        """The contents of a stream's chunks for one piece (None: nothing is generated); none without news."""

    @abstractmethod
    def closing(self) -> Data:
        """The content that carries the finish reason."""

    @abstractmethod
    def whole(self, pieces: Sequence[Piece], ticket: Ticket) -> Data:
        """The content of an unstreamed answer."""


@dataclass(frozen=True)
class Envelope:
    """How an endpoint names its objects."""

    prefix: str
    whole: str
    chunk: str


class Answer:
    """The answer to one request; job i of it is choice i, unless `best` says how many of how many are given."""

    framing = EVENTS

    def __init__(
        self,
        envelope: Envelope,
        model: str,
        choices: Sequence[Choice],
        *,
        usage_chunk: bool,
        per_prompt: int = 1,
        given: int | None = None,
    ) -> None:
        self.envelope = envelope
        self.choices = choices
        self.usage_chunk = usage_chunk
        self.per_prompt = per_prompt
        self.given = given or per_prompt
        self._id = f"{envelope.prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._model = model
        self._jobs: dict[int, Job] = {}

    def first(self) -> Iterator[Data]:
        """Chunks before the first piece."""
        for index, choice in enumerate(self.choices):
            content = choice.opening()
            if content is not None:
                yield self._chunk(index, content, None)

    def add(self, job: Job, piece: Piece | None) -> Iterator[Data]:
        """Chunks for one piece of one choice."""
        assert job.ticket is not None
        choice = self.choices[job.index]
        self._jobs[job.index] = job
        for content in choice.news(piece, job.ticket):
            yield self._chunk(job.index, content, None)
        if piece is None or piece.finish_reason is not None:
            yield self._chunk(job.index, choice.closing() | judged(job, choice), self._reason(choice, piece))

    def last(self) -> Iterator[Data]:
        """Chunks after the finish reasons."""
        if self.usage_chunk:
            yield {**self._head(self.envelope.chunk), "choices": [], "usage": self.usage()}

    def whole(self, pieces: Sequence[tuple[Job, list[Piece]]]) -> Data:
        """The response of an unstreamed request; `pieces` by job, in order."""
        self._jobs = {job.index: job for job, _ in pieces}
        choices = []
        for start in range(0, len(pieces), self.per_prompt):
            for job, said in _best(pieces[start : start + self.per_prompt], self.given):
                assert job.ticket is not None
                choice = self.choices[job.index]
                content = choice.whole(said, job.ticket) | judged(job, choice)
                reason = self._reason(choice, said[-1] if said else None)
                choices.append({"index": len(choices), **content, "finish_reason": reason})
        return {**self._head(self.envelope.whole), "choices": choices, "usage": self.usage()}

    def failure(self, error: ApiError) -> Data:
        """The error, as it is without a stream."""
        return error.body()

    def usage(self) -> Data:
        """Token counts: each prompt counts once, each answer that was generated in full."""
        tickets = [
            job.ticket for job in self._jobs.values() if job.ticket is not None and job.index % self.per_prompt == 0
        ]
        prompt = sum(len(ticket.prompt_ids) for ticket in tickets)
        generated = sum(job.tokens for job in self._jobs.values())
        counts: Data = {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": sum(ticket.cached_tokens for ticket in tickets)},
        }
        guesses = [job.ticket.speculation for job in self._jobs.values() if job.ticket is not None]
        proposed = sum(guess.proposed for guess in guesses if guess is not None)
        if proposed:
            accepted = sum(guess.accepted for guess in guesses if guess is not None)
            counts["completion_tokens_details"] = {
                "accepted_prediction_tokens": accepted,
                "rejected_prediction_tokens": proposed - accepted,
            }
        return counts

    def _reason(self, choice: Choice, piece: Piece | None) -> str:
        reason = "length" if piece is None or piece.finish_reason is None else piece.finish_reason
        return choice.finish_reason or reason if reason == "stop" else reason

    def _chunk(self, index: int, content: Data, finish_reason: str | None) -> Data:
        data = self._head(self.envelope.chunk)
        data["choices"] = [{"index": index, **content, "finish_reason": finish_reason}]
        if self.usage_chunk:
            data["usage"] = None
        return data

    def _head(self, object_name: str) -> Data:
        return {
            "id": self._id,
            "object": object_name,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": FINGERPRINT,
        }


def judged(job: Job, choice: Choice) -> Data:
    """Of an answer that was to have a form: whether it has, and what is wrong with it if not."""
    constraint = job.order.constraint
    if constraint is None:
        return {}
    found = constraint.judge(choice.text)
    structure: Data = {"valid": found.valid}
    if not found.valid:
        structure["error"] = found.error
    if constraint.notes:
        structure["notes"] = list(constraint.notes)
    return {"structure": structure}


def _best(pieces: Sequence[tuple[Job, list[Piece]]], given: int) -> Sequence[tuple[Job, list[Piece]]]:
    """The `given` answers whose tokens are the most probable on average (OpenAI's `best_of`), best first."""
    if given == len(pieces):
        return pieces

    def mean(entry: tuple[Job, list[Piece]]) -> float:
        return sum(piece.logprob or 0.0 for piece in entry[1]) / max(len(entry[1]), 1)

    return sorted(pieces, key=mean, reverse=True)[:given]
