"""Passing /v1 through to the model's server: bodies unchanged, streams as they come, hang-ups passed on.

Only the content type and accept headers go to the child; the client's key is checked before (see
`bottega.serve.guard`) and replaced by the child's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from bottega.serve.failures import ApiError
from bottega.serve.framing import event
from bottega.serve.hangup import unless_hung_up
from bottega.web.supervisor import Supervisor

PASSED_BACK = ("content-type", "retry-after", "cache-control", "x-accel-buffering")
LOST = "The model's server stopped while it was answering. It is being started again."


class Proxy:
    """Sends requests on to the child of `supervisor`."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        # An answer may take long; only connecting must be quick. The proxy settings of the
        # environment are for the outside world, not for 127.0.0.1.
        timeout = httpx.Timeout(None, connect=5.0)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
        self._client = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def models(self) -> list[dict[str, Any]]:
        """The entries of the child's /v1/models; raises ApiError (502, 503) while there is none."""
        try:
            answer = await self._client.get(self._url("/v1/models"), headers=self._headers())
        except httpx.TransportError:
            raise ApiError(502, LOST, kind="server_error", code="model_stopped") from None
        return answer.json()["data"]

    @contextlib.asynccontextmanager
    async def stream(self, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        """Ask the child on the web app's own behalf: the lines of its answer; raises ApiError, httpx.HTTPError."""
        async with self._client.stream("POST", self._url(path), headers=self._headers(), json=body) as answer:
            if answer.status_code != 200:
                error = json.loads(await answer.aread())["error"]
                raise ApiError(answer.status_code, error["message"], code=error.get("code"))
            yield answer.aiter_lines()

    def _url(self, path: str) -> str:
        """Where the child listens; raises ApiError 503 while it does not."""
        state = self.supervisor.state
        if state.phase != "ready":
            raise _not_ready(state.phase)
        return self.supervisor.base_url + quote(path)

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.supervisor.key}"}

    async def forward(self, request: Request) -> Response:
        """Answer `request` with what the child answers; 503 while there is none."""
        url, headers = self._url(request.scope["path"]), self._headers()
        headers |= {name: request.headers[name] for name in ("content-type", "accept") if name in request.headers}
        outgoing = self._client.build_request(request.method, url, headers=headers, content=await request.body())
        try:
            answer = await unless_hung_up(self._client.send(outgoing, stream=True), request)
        except httpx.TransportError:
            raise ApiError(502, LOST, kind="server_error", code="model_stopped") from None
        if answer is None:
            return Response(status_code=499)
        return _Passed(answer)


def _not_ready(phase: str) -> ApiError:
    said = {
        "loading": "The model is being loaded. Try again in a moment.",
        "crashed": "The model's server stopped and is being started again. Try again in a moment.",
    }
    message = said.get(phase, "The model's server is not running.")
    return ApiError(503, message, kind="server_error", code="model_not_ready", headers={"Retry-After": "1"})


class _Passed(StreamingResponse):
    """The child's response, chunk by chunk; closed towards the child whatever happens."""

    def __init__(self, answer: httpx.Response) -> None:
        headers = {name: answer.headers[name] for name in PASSED_BACK if name in answer.headers}
        super().__init__(self._chunks(answer), answer.status_code, headers)
        self._answer = answer

    async def _chunks(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw():
                yield chunk
        except httpx.TransportError:
            error = ApiError(502, LOST, kind="server_error", code="model_stopped")
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                yield b"\n\n" + event(error.body())  # end an event that was cut off in the middle
            else:
                raise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # A cancelled task may still have to await the closing of the connection.
            await asyncio.shield(self._answer.aclose())
