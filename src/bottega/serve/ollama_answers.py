"""From the generator's pieces to Ollama's answers: a line of JSON for each piece of text or call, and a last one.

Durations are in nanoseconds and measured: `load_duration` until the model was there, `prompt_eval_duration` from
there to the first token (waiting for a turn included), `eval_duration` from the first token to the last.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from bottega.generate.structure.calls import CallDelta, ToolCall
from bottega.serve.answers import judged
from bottega.serve.failures import ApiError
from bottega.serve.framing import LINES, Data
from bottega.serve.protocol.ollama import OPENAI_NAMES
from bottega.serve.renaming import renamed

if TYPE_CHECKING:
    from bottega.generate.generator import Piece
    from bottega.serve.chat_answers import ChatChoice
    from bottega.serve.engine import Job

Kind = Literal["chat", "generate"]


@dataclass
class Clock:
    """When a request came, and when its model was there; perf_counter's seconds."""

    started: float = field(default_factory=time.perf_counter)
    loaded: float = 0.0

    def model_is_there(self) -> None:
        """The model is loaded."""
        self.loaded = time.perf_counter()

    def durations(self) -> Data:
        """`total_duration` until now, and `load_duration`."""
        return {
            "total_duration": nanoseconds(time.perf_counter() - self.started),
            "load_duration": nanoseconds(self.loaded - self.started),
        }


def nanoseconds(seconds: float) -> int:
    """Whole ones, none of them negative."""
    return max(int(seconds * 1e9), 0)


def timestamp(seconds: float | None = None) -> str:
    """A time (default: now) as RFC 3339 has it."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat().replace("+00:00", "Z")


def content(kind: Kind, text: str, calls: Sequence[ToolCall] = ()) -> Data:
    """What is said, as the route has it."""
    if kind == "generate":
        return {"response": text}
    message: Data = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "function": {"index": index, "name": call.name, "arguments": json.loads(call.arguments)},
            }
            for index, call in enumerate(calls)
        ]
    return {"message": message}


def silent(model: str, kind: Kind, reason: str) -> Data:
    """The answer to a request that only loads or unloads the model."""
    return {"model": model, "created_at": timestamp(), **content(kind, ""), "done": True, "done_reason": reason}


class OllamaAnswer:
    """The answer to one request; `choice` reads text and calls out of the pieces."""

    framing = LINES

    def __init__(self, model: str, kind: Kind, choice: ChatChoice, clock: Clock) -> None:
        self._model, self._choice, self._clock = model, choice, clock
        self._kind: Kind = kind
        self._open: ToolCall | None = None
        self._scores: list[Data] = []
        self._job: Job | None = None
        self._reason = "stop"

    def first(self) -> Iterator[Data]:
        """Nothing."""
        yield from ()

    def add(self, job: Job, piece: Piece | None) -> Iterator[Data]:
        """Lines of one piece."""
        for text, call in self._said(job, piece):
            yield self._line(content(self._kind, text, [call] if call else []))

    def last(self) -> Iterator[Data]:
        """The line that says how it ended."""
        yield self._end(content(self._kind, ""))

    def whole(self, pieces: Sequence[tuple[Job, list[Piece]]]) -> Data:
        """Everything in one object."""
        said = [part for job, each in pieces for piece in each for part in self._said(job, piece)]
        text = "".join(text for text, _ in said)
        return self._end(content(self._kind, text, [call for _, call in said if call is not None]))

    def failure(self, error: ApiError) -> Data:
        """A line with `error`."""
        return renamed(error, OPENAI_NAMES).body("/api/")

    def _said(self, job: Job, piece: Piece | None) -> Iterator[tuple[str, ToolCall | None]]:
        """Texts, and calls once they are whole."""
        self._job = job
        if piece is None:
            return
        scores = self._choice.scores([piece])
        self._scores += scores["content"] if scores else []
        for part in self._choice.parts(piece):
            if not isinstance(part, CallDelta):
                yield part.text, None
            elif part.id is None and self._open is not None:
                call = self._open
                self._open = ToolCall(call.id, call.name, call.arguments + part.arguments)
            else:
                yield from self._finished()
                self._open = ToolCall(part.id or "", part.name or "", part.arguments)
        if piece.finish_reason is not None:
            self._reason = piece.finish_reason
            yield from self._finished()

    def _finished(self) -> Iterator[tuple[str, ToolCall | None]]:
        """The call that was being written; one that was cut off is text, for its arguments are no object."""
        call, self._open = self._open, None
        if call is None:
            return
        try:
            whole = isinstance(json.loads(call.arguments), dict)
        except ValueError:
            whole = False
        if whole:
            yield "", call
        else:
            yield f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}', None

    def _line(self, said: Data) -> Data:
        data = {"model": self._model, "created_at": timestamp(), **said, "done": False}
        if self._choice.logprobs:
            data["logprobs"], self._scores = self._scores, []
        return data

    def _end(self, said: Data) -> Data:
        job = self._job
        assert job is not None and job.ticket is not None
        data = self._line(said) | {"done": True, "done_reason": self._reason, **self._clock.durations()}
        return data | {
            "prompt_eval_count": len(job.ticket.prompt_ids),
            "prompt_eval_duration": nanoseconds(job.first_piece - job.submitted),
            "eval_count": job.tokens,
            "eval_duration": nanoseconds(job.last_piece - job.first_piece),
            **judged(job, self._choice),
        }
