"""How streamed answers lie on the wire: server-sent events for OpenAI's two APIs, lines of JSON for Ollama's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bottega.serve.failures import ApiError

if TYPE_CHECKING:
    from bottega.generate.generator import Piece
    from bottega.serve.engine import Job

Data = dict[str, Any]


@dataclass(frozen=True)
class Framing:
    """`write` makes bytes of one object; `end` follows the last one of an answer that did not fail."""

    media_type: str
    write: Callable[[Data], bytes]
    end: bytes = b""


class Streamed(Protocol):
    """An answer: its objects in the order in which they go out, or one object for all of it."""

    @property
    def framing(self) -> Framing:
        """How a stream of it is written."""
        ...

    def first(self) -> Iterator[Data]:
        """What comes before the first piece."""
        ...

    def add(self, job: Job, piece: Piece | None) -> Iterator[Data]:
        """What one piece of one of its jobs says; None: the job generates nothing."""
        ...

    def last(self) -> Iterator[Data]:
        """What comes after the last piece."""
        ...

    def whole(self, pieces: Sequence[tuple[Job, list[Piece]]]) -> Data:
        """All of it; `pieces` by job, in order."""
        ...

    def failure(self, error: ApiError) -> Data:
        """What ends a stream that fails on the way."""
        ...


def _json(data: Data) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def event(data: Data) -> bytes:
    """One server-sent event."""
    return f"data: {_json(data)}\n\n".encode()


def _typed_event(data: Data) -> bytes:
    return f"event: {data['type']}\ndata: {_json(data)}\n\n".encode()


def _line(data: Data) -> bytes:
    return f"{_json(data)}\n".encode()


EVENTS = Framing("text/event-stream", event, b"data: [DONE]\n\n")
TYPED_EVENTS = Framing("text/event-stream", _typed_event)
LINES = Framing("application/x-ndjson", _line)
