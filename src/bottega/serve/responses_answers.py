"""From the generator's pieces to OpenAI's Responses API: items of output, and the typed events of a stream.

Events come in the API's order: the response is created and in progress; each item is added, grows by deltas and
is done; the response is completed, or incomplete where the length cut it off. An answer that is not streamed is
what the same events come to.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bottega.generate.structure.calls import CallDelta
from bottega.serve.answers import judged
from bottega.serve.failures import ApiError
from bottega.serve.framing import TYPED_EVENTS, Data
from bottega.serve.protocol.responses import CHAT_NAMES, ResponsesRequest
from bottega.serve.renaming import renamed

if TYPE_CHECKING:
    from bottega.generate.generator import Piece
    from bottega.serve.chat_answers import ChatChoice
    from bottega.serve.engine import Job


def new_id(prefix: str) -> str:
    """An id as OpenAI's look."""
    return f"{prefix}_{uuid.uuid4().hex}"


class ResponsesAnswer:
    """The answer to one request; `choice` reads text and calls out of the pieces."""

    framing = TYPED_EVENTS

    def __init__(self, model: str, choice: ChatChoice, body: ResponsesRequest) -> None:
        self._choice = choice
        self._head = _head(model, body)
        self._items: list[Data] = []
        self._is_open = False
        self._scores: list[Data] = []  # of tokens whose text has not gone out yet
        self._sequence = 0
        self._job: Job | None = None
        self._reason: str | None = None

    def first(self) -> Iterator[Data]:
        """The response begins."""
        for name in ("created", "in_progress"):
            yield self._event(f"response.{name}", response=self._response("in_progress"))

    def add(self, job: Job, piece: Piece | None) -> Iterator[Data]:
        """Events of one piece."""
        self._job = job
        if piece is None:
            return
        scores = self._choice.scores([piece])
        self._scores += scores["content"] if scores else []
        for part in self._choice.parts(piece):
            if isinstance(part, CallDelta):
                yield from self._call(part)
            else:
                yield from self._text(part.text)
        if piece.finish_reason is not None:
            self._reason = piece.finish_reason
            if not self._items:
                yield from self._open(_message())
            yield from self._close(piece.finish_reason)

    def last(self) -> Iterator[Data]:
        """The response ends."""
        yield self._event(f"response.{self._status}", response=self._response(self._status))

    def whole(self, pieces: Sequence[tuple[Job, list[Piece]]]) -> Data:
        """The response without its events."""
        for job, said in pieces:
            for piece in said:
                for _ in self.add(job, piece):
                    pass
        return self._response(self._status)

    def failure(self, error: ApiError) -> Data:
        """An event of the type `error`."""
        error = renamed(error, CHAT_NAMES)
        return self._event("error", code=error.code, message=error.message, param=error.param)

    @property
    def _status(self) -> str:
        return "incomplete" if self._reason == "length" else "completed"

    def _text(self, text: str) -> Iterator[Data]:
        if not self._is_open or self._items[-1]["type"] != "message":
            yield from self._close()
            yield from self._open(_message())
        item = self._items[-1]
        part = item["content"][0]
        scores, self._scores = self._scores, []
        part["text"] += text
        part["logprobs"] += scores
        yield self._event("response.output_text.delta", **self._place(item), delta=text, logprobs=scores)

    def _call(self, part: CallDelta) -> Iterator[Data]:
        if part.id is not None:
            yield from self._close()
            yield from self._open(_call(part))
        item = self._items[-1]
        item["arguments"] += part.arguments
        if part.arguments:
            place = {"item_id": item["id"], "output_index": len(self._items) - 1}
            yield self._event("response.function_call_arguments.delta", **place, delta=part.arguments)

    def _open(self, item: Data) -> Iterator[Data]:
        self._items.append(item)
        self._is_open = True
        index = len(self._items) - 1
        shown = {**item, "content": []} if item["type"] == "message" else dict(item)
        yield self._event("response.output_item.added", output_index=index, item=shown)
        if item["type"] == "message":
            yield self._event("response.content_part.added", **self._place(item), part=dict(item["content"][0]))

    def _close(self, reason: str | None = None) -> Iterator[Data]:
        if not self._is_open:
            return
        self._is_open = False
        item, index = self._items[-1], len(self._items) - 1
        item["status"] = "incomplete" if reason == "length" else "completed"
        if item["type"] == "message":
            part, place = item["content"][0], self._place(item)
            part["logprobs"] += self._scores
            text = {"text": part["text"], "logprobs": part["logprobs"]}
            yield self._event("response.output_text.done", **place, **text)
            yield self._event("response.content_part.done", **place, part=part)
        else:
            said = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("response.function_call_arguments.done", item_id=item["id"], output_index=index, **said)
        self._scores = []
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _place(self, item: Data) -> Data:
        return {"item_id": item["id"], "output_index": len(self._items) - 1, "content_index": 0}

    def _event(self, kind: str, **content: object) -> Data:
        data = {"type": kind, "sequence_number": self._sequence, **content}
        self._sequence += 1
        return data

    def _response(self, status: str) -> Data:
        cut = status == "incomplete"
        data = self._head | {
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": list(self._items) if status != "in_progress" else [],
            "usage": None,
        }
        if self._job is not None and status != "in_progress":
            data |= {"usage": _usage(self._job), **judged(self._job, self._choice)}
        return data


def _message() -> Data:
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    return {"id": new_id("msg"), "type": "message", "status": "in_progress", "role": "assistant", "content": [part]}


def _call(part: CallDelta) -> Data:
    return {
        "id": new_id("fc"),
        "type": "function_call",
        "status": "in_progress",
        "call_id": part.id,
        "name": part.name,
        "arguments": "",
    }


def _usage(job: Job) -> Data:
    assert job.ticket is not None
    prompt = len(job.ticket.prompt_ids)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": job.ticket.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": job.tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + job.tokens,
    }


def _head(model: str, body: ResponsesRequest) -> Data:
    """What does not change while the response comes: mostly the request, with its defaults."""
    text = body.text.model_dump(exclude_none=True, by_alias=True) if body.text is not None else {}
    choice = body.tool_choice
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "model": model,
        "error": None,
        "instructions": body.instructions,
        "metadata": body.metadata or {},
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "max_output_tokens": body.max_output_tokens,
        "tools": [tool.model_dump(exclude_none=True) for tool in body.tools or ()],
        "tool_choice": "auto" if choice is None else choice if isinstance(choice, str) else choice.model_dump(),
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "text": {"format": {"type": "text"}, **text},
        "truncation": "disabled",
        "previous_response_id": None,
        "background": False,
        "store": False,
        "user": body.user,
    }
