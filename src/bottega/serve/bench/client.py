"""One request of the load, streamed, with the time of everything that came back.

The clock is `time.perf_counter`. Times count from the *scheduled* arrival, not from the send:
a load tool that is held up (by its own queue, by a slow server) would otherwise leave out the
waiting that its users would have had ("coordinated omission", Gil Tene).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import Any

import httpx

from bottega.serve.bench.prompts import Prompt
from bottega.serve.bench.target import Target, error_text, failure_text

DONE = "ok"
HUNG_UP = "hung_up"
INTERRUPTED = "interrupted"
RATE_LIMITED = "rate_limited"
NOT_ANSWERED = (HUNG_UP, INTERRUPTED)  # our own doing, neither answered nor failed


@dataclass
class Outcome:
    """What became of one request; times in seconds of the clock."""

    index: int
    scheduled: float
    sent: float = 0.0
    chunks: list[float] = field(default_factory=list)
    """When each piece of text arrived."""
    ended: float = 0.0
    status: str = INTERRUPTED
    """"ok", "hung_up", "interrupted", or the kind of error."""
    message: str = ""
    retry_after: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    cached_tokens: int = 0
    usage_tokens: int | None = None
    """Tokens of the answer, as the server counts them."""

    @property
    def output_tokens(self) -> int:
        """Tokens of the answer: the server's count, else its pieces of text."""
        return len(self.chunks) if self.usage_tokens is None else self.usage_tokens

    @property
    def ttft(self) -> float | None:
        """Seconds from the scheduled arrival to the first text."""
        return self.chunks[0] - self.scheduled if self.chunks else None

    @property
    def tpot(self) -> float | None:
        """Mean seconds per token after the first; None for an answer of one."""
        if len(self.chunks) < 2 or self.output_tokens < 2:
            return None
        return (self.chunks[-1] - self.chunks[0]) / (self.output_tokens - 1)

    @property
    def gaps(self) -> list[float]:
        """Seconds between one piece of text and the next."""
        return [after - before for before, after in pairwise(self.chunks)]

    @property
    def e2el(self) -> float:
        """Seconds from the scheduled arrival to the end."""
        return self.ended - self.scheduled


class StreamError(Exception):
    """The stream is not as it should be; `kind` says how."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def request_body(target: Target, prompt: Prompt, extra: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a request; a field that is null in `extra` is left out."""
    body = {"model": target.model, **prompt.body, "max_tokens": prompt.output_tokens, "stream": True}
    body |= {"stream_options": {"include_usage": True}, **extra}
    return {name: value for name, value in body.items() if value is not None}


async def ask(
    client: httpx.AsyncClient, url: str, body: dict[str, Any], outcome: Outcome, *, timeout: float, hang_up: int | None
) -> None:
    """Send a request and fill in its outcome; with `hang_up`, leave after so many pieces."""
    outcome.sent = perf_counter()
    try:
        async with asyncio.timeout(timeout), client.stream("POST", url, json=body) as response:
            if response.is_success:
                outcome.status = await _read(response, outcome, hang_up)
            else:
                outcome.retry_after = response.headers.get("retry-after")
                outcome.message = failure_text(response.status_code, await response.aread())
                outcome.status = RATE_LIMITED if response.status_code == 429 else f"http_{response.status_code}"
    except TimeoutError:
        outcome.status, outcome.message = "timeout", f"no full answer within {timeout:g} s"
    except (httpx.HTTPError, OSError) as error:
        outcome.status = "connection" if isinstance(error, httpx.ConnectError) else "broken_off"
        outcome.message = f"{type(error).__name__}: {error}".removesuffix(": ")
    except StreamError as error:
        outcome.status, outcome.message = error.kind, str(error)
    finally:
        outcome.ended = perf_counter()


async def _read(response: httpx.Response, outcome: Outcome, hang_up: int | None) -> str:
    """Read the stream to its end, or until we hang up; the status."""
    if "text/event-stream" not in response.headers.get("content-type", ""):
        raise StreamError("no_stream", f"not a stream but {response.headers.get('content-type')}")
    ended = False
    async for arrived, event in _events(response):
        if event == b"[DONE]":
            ended = True
            break
        if _take(event, outcome):
            outcome.chunks.append(arrived)
            if hang_up is not None and len(outcome.chunks) >= hang_up:
                return HUNG_UP
    if not ended and outcome.finish_reason is None:
        raise StreamError("cut_off", "the stream ended before the answer")
    if not outcome.chunks:
        raise StreamError("no_text", f"an answer without text (finish reason {outcome.finish_reason!r})")
    return DONE


async def _events(response: httpx.Response) -> AsyncIterator[tuple[float, bytes]]:
    """Time of arrival and data of each server-sent event (one line of data each, as OpenAI's API sends them)."""
    rest = b""
    async for block in response.aiter_bytes():
        arrived = perf_counter()
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield arrived, line[5:].strip()


def _take(event: bytes, outcome: Outcome) -> bool:
    """Put what an event says into the outcome; whether it brought text (or a part of a tool call)."""
    try:
        data = json.loads(event)
        if data.get("error"):
            raise StreamError("stream_error", error_text(event))
        if usage := data.get("usage"):
            outcome.input_tokens, outcome.usage_tokens = usage["prompt_tokens"], usage["completion_tokens"]
            outcome.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        has_text = False
        for choice in data.get("choices") or []:
            delta = choice.get("delta") or choice
            has_text |= any(delta.get(name) for name in ("content", "text", "reasoning_content", "reasoning"))
            has_text |= bool(delta.get("tool_calls"))
            outcome.finish_reason = choice.get("finish_reason") or outcome.finish_reason
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StreamError("no_stream", f"not an event of OpenAI's API: {event[:200]!r}") from None
    return has_text
