"""Giving an answer: whole or as a stream of events, its places given back whatever happens to the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from bottega.core.errors import UserError
from bottega.serve.failures import ApiError, server_error
from bottega.serve.framing import Streamed
from bottega.serve.hangup import unless_hung_up
from bottega.serve.prompts import refusal

if TYPE_CHECKING:
    from bottega.generate.generator import Piece
    from bottega.serve.engine import Engine, Job, Jobs

CLIENT_HAS_GONE = 499  # nginx's number; nobody is there to read it


async def respond(engine: Engine, jobs: Jobs, answer: Streamed, request: Request, *, stream: bool) -> Response:
    """The response to `request`; a client that disconnects ends the work."""
    begun = None
    try:
        if stream:  # what the generator refuses is said before the status line is out
            begun = await unless_hung_up(_taken(jobs), request)
            return EventStream(engine, jobs, answer) if begun else Response(status_code=CLIENT_HAS_GONE)
        pieces = await unless_hung_up(collect(jobs), request)
    finally:
        if not begun:
            engine.cancel(jobs)
    return Response(status_code=CLIENT_HAS_GONE) if pieces is None else JSONResponse(answer.whole(pieces))


async def collect(jobs: Jobs) -> list[tuple[Job, list[Piece]]]:
    """All pieces of all answers."""
    said: list[tuple[Job, list[Piece]]] = [(jobs[index], []) for index in range(len(jobs))]
    async for items in jobs.pieces():
        for job, piece in items:
            if piece is not None:
                said[job.index][1].append(piece)
    return said


async def _taken(jobs: Jobs) -> bool:
    await jobs.taken()
    return True


class EventStream(StreamingResponse):
    """A streamed answer."""

    def __init__(self, engine: Engine, jobs: Jobs, answer: Streamed) -> None:
        super().__init__(
            _events(jobs, answer),
            media_type=answer.framing.media_type,
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self._engine, self._jobs = engine, jobs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; a client that disconnects ends the work."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._engine.cancel(self._jobs)


async def _events(jobs: Jobs, answer: Streamed) -> AsyncIterator[bytes]:
    write = answer.framing.write
    try:
        for chunk in answer.first():
            yield write(chunk)
        async for items in jobs.pieces():  # what has come meanwhile goes out together
            if news := b"".join(write(chunk) for job, piece in items for chunk in answer.add(job, piece)):
                yield news
        for chunk in answer.last():
            yield write(chunk)
    except ApiError as error:
        yield write(answer.failure(error))
        return
    except UserError as error:
        yield write(answer.failure(refusal(error)))
        return
    except Exception:
        # The status line is out already: say it in the stream, and let the server log the cause.
        yield write(answer.failure(server_error()))
        raise
    if answer.framing.end:
        yield answer.framing.end
