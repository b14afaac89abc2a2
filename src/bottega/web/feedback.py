"""What people say about answers: blind votes between two models, and verdicts of the chat page.

Everything is kept in `WORKSPACE/feedback` (`votes.jsonl`, `thumbs.jsonl`) and nowhere else. Imports no torch.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bottega.core.append import append_row
from bottega.core.errors import UserError
from bottega.core.progress import Quiet
from bottega.core.workspace import open_workspace
from bottega.evaluate.arena.ratings import rate
from bottega.evaluate.arena.votes import Vote, append_vote, read_votes, votes_as_preferences
from bottega.serve.failures import ApiError, from_validation
from bottega.serve.protocol.wire import Wire
from bottega.web.duels import Ask, Choose, Duel, Duels
from bottega.web.verdicts import Verdict, rates, read_verdicts

FOLDER = "feedback"
MAX_BODY_BYTES = 2**20
MAX_FILE_BYTES = 2**28
# Fewer votes say so little that showing ratings would only sway the next vote.
FEWEST_VOTES = 10
RECENT_VOTES = 50
Body = TypeVar("Body", bound=Wire)
T = TypeVar("T")


class Feedback:
    """The endpoints under /feedback."""

    def __init__(self, workspace: Path, duels: Duels) -> None:
        self.workspace = workspace
        self.votes, self.thumbs = (workspace / FOLDER / name for name in ("votes.jsonl", "thumbs.jsonl"))
        self._duels = duels
        self._seen: dict[Path, tuple[tuple[int, int] | None, Any]] = {}

    def routes(self) -> list[Route]:
        """All of them; they need the guard's origin check and key."""
        return [
            Route("/feedback/duels", self.duel, methods=["POST"]),
            Route("/feedback/duels/{id}/vote", self.vote, methods=["POST"]),
            Route("/feedback/verdicts", self.verdict, methods=["POST"]),
            Route("/feedback/results", self.results),
            Route("/feedback/preferences.jsonl", self.preferences),
        ]

    async def duel(self, request: Request) -> Response:
        """Two answers to one prompt, as server-sent events."""
        return _Answers(self._duels, await self._duels.begin(await _body(request, Ask)))

    async def vote(self, request: Request) -> Response:
        """Keep a vote, and tell which models they were."""
        choice = await _body(request, Choose)
        duel = self._duels.find(request.path_params["id"])
        duel.winner = choice.winner  # at once: a second vote that comes meanwhile is refused
        try:
            await self._write(self.votes, lambda: append_vote(self.votes, duel.vote(choice.winner)))
        except BaseException:
            duel.winner = None
            raise
        left, right = duel.sides
        return JSONResponse({"left": left.model, "right": right.model, "winner": choice.winner})

    async def verdict(self, request: Request) -> Response:
        """Keep what a person did with an answer of the chat page."""
        row = {"time": round(time.time(), 3), **(await _body(request, Verdict)).model_dump(exclude_none=True)}
        await self._write(self.thumbs, lambda: append_row(self.thumbs, row))
        return Response(status_code=204)

    async def results(self, _: Request) -> Response:
        """Ratings, the latest votes, and the rates of answers."""
        votes = await self._latest(self.votes, _summary)
        answers = await self._latest(self.thumbs, lambda path: rates(read_verdicts(path)))
        return JSONResponse({**votes, "answers": answers}, headers={"Cache-Control": "no-store"})

    async def preferences(self, _: Request) -> Response:
        """The votes as preference data, to download."""
        rows = await _in_thread(lambda: votes_as_preferences(_votes(self.votes)))
        content = "".join(json.dumps(row) + "\n" for row in rows)
        headers = {"Content-Disposition": 'attachment; filename="preferences.jsonl"', "Cache-Control": "no-store"}
        return Response(content, media_type="application/jsonl", headers=headers)

    async def _write(self, path: Path, append: Callable[[], None]) -> None:
        """Call `append` in a thread; raises ApiError 507 where the file has no room for more."""

        def write() -> None:
            open_workspace(self.workspace)
            if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
                message = f"{path} holds {MAX_FILE_BYTES} bytes, the most that it may. Move it away."
                raise ApiError(507, message, kind="server_error", code="feedback_full")
            append()

        await _in_thread(write)

    async def _latest(self, path: Path, read: Callable[[Path], T]) -> T:
        """What `read` makes of the file; made again only when the file has changed."""

        def look() -> T:
            status = path.stat() if path.is_file() else None
            state = None if status is None else (status.st_size, status.st_mtime_ns)
            if path not in self._seen or self._seen[path][0] != state:
                self._seen[path] = (state, read(path))
            return self._seen[path][1]

        return await _in_thread(look)


class _Answers(StreamingResponse):
    """The events of a duel; both answers end when the page hangs up."""

    def __init__(self, duels: Duels, duel: Duel) -> None:
        self._events = duels.stream(duel)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._events, media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.shield(self._events.aclose())


async def _in_thread(work: Callable[[], T]) -> T:
    """`work()` in a thread; what is wrong with a file becomes an ApiError 500 that says so."""
    try:
        return await run_in_threadpool(work)
    except (UserError, OSError) as error:
        raise ApiError(500, str(error), kind="server_error", code="feedback_unusable") from None


async def _body(request: Request, kind: type[Body]) -> Body:
    """The request's JSON body; raises ApiError 400, 413, 415."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Send JSON, as application/json.", code="unsupported_media_type")
    content = await request.body()
    if len(content) > MAX_BODY_BYTES:
        raise ApiError(413, f"The request body is larger than {MAX_BODY_BYTES} bytes.", code="request_too_large")
    try:
        return kind.model_validate_json(content)
    except pydantic.ValidationError as error:
        raise from_validation([dict(problem) for problem in error.errors()], kind.model_fields) from None


def _votes(path: Path) -> list[Vote]:
    return read_votes([path]) if path.is_file() else []


def _summary(path: Path) -> dict[str, Any]:
    """How many `votes`, how many more are `needed` for `ratings`, or why they are `unrated`; and the `recent` ones."""
    votes = _votes(path)
    needed = max(0, FEWEST_VOTES - len(votes))
    ratings, unrated = None, ""
    if not needed:
        try:
            ratings = rate(votes, bar=Quiet())
        except UserError as error:
            unrated = str(error)
    recent = [_recent(vote) for vote in votes[: -RECENT_VOTES - 1 : -1]]
    return {"votes": len(votes), "needed": needed, "ratings": ratings, "unrated": unrated, "recent": recent}


def _recent(vote: Vote) -> dict[str, Any]:
    asked = [turn["content"] for turn in vote.messages if turn["role"] == "user"] or [vote.prompt]
    return {
        "time": vote.time,
        "prompt": asked[-1],
        "left": {"model": vote.model_a, "answer": vote.answer_a},
        "right": {"model": vote.model_b, "answer": vote.answer_b},
        "winner": vote.winner,
    }
