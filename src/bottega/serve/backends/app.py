"""The app in front of another engine: our validation, limits and errors; its answers.

A request is read by the same models as the native engine's. Fields that the program does not obey are refused by
name, with the reason; what is left is sent on as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.responses import StreamingResponse

from bottega.serve.backends.child import Child
from bottega.serve.backends.programs import HARMLESS
from bottega.serve.config import Serve
from bottega.serve.failures import ApiError, queue_full, server_error, timed_out
from bottega.serve.front import guarded_app
from bottega.serve.hangup import unless_hung_up
from bottega.serve.metrics import CONTENT_TYPE, Metrics
from bottega.serve.protocol.chat import ChatRequest
from bottega.serve.protocol.completions import CompletionRequest
from bottega.serve.protocol.decoding import Decoding

BODIES: dict[str, type[Decoding]] = {"/v1/chat/completions": ChatRequest, "/v1/completions": CompletionRequest}


class Front:
    """What stands between clients and the program."""

    def __init__(self, child: Child, config: Serve, name: str) -> None:
        self.child, self.name = child, name
        self.under_way = 0
        self._capacity = config.max_batch + config.max_queue
        self._max_batch, self._timeout = config.max_batch, config.timeout
        self._client = httpx.AsyncClient(
            base_url=child.url,
            headers={"Authorization": f"Bearer {child.key}"},
            timeout=None,
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
        )

    async def close(self) -> None:
        """Drop the connections."""
        await self._client.aclose()

    def translated(self, raw: dict[str, Any], body: Decoding) -> dict[str, Any]:
        """What the program is sent; raises ApiError 400 for a field that it does not obey, 404 for another model."""
        program = self.child.program
        if body.model != self.name:
            message = f"The model {body.model!r} is not served here; this server has {self.name!r}."
            raise ApiError(404, message, param="model", code="model_not_found")
        sent: dict[str, Any] = dict(program.defaults)
        has = program.fields
        if isinstance(body, CompletionRequest):
            has, sent["max_tokens"] = has - program.chat_only, body.limit
        for field, value in raw.items():
            if value is None or field in HARMLESS:
                continue
            if field not in has:
                reason = program.reasons.get(field, f"{program.name} does not have it, or means something else by it")
                message = f"{field}: {reason}. Leave it out, or start the server with --engine native."
                raise ApiError(400, message, param=field, code="unsupported_by_engine")
            sent[program.renamed.get(field, field)] = value
        return sent

    async def answer(self, path: str, body: dict[str, Any], request: Request) -> Response:
        """The program's answer, whole or streamed."""
        if self.under_way >= self._capacity:
            running = min(self.under_way, self._max_batch)
            raise queue_full(1, running, self.under_way - running, self._capacity)
        self.under_way += 1
        handed_over = False
        try:
            outgoing = self._client.build_request("POST", path, json=body)
            async with asyncio.timeout(self._timeout):
                answer = await unless_hung_up(self._client.send(outgoing, stream=True), request)
                if answer is None:
                    return Response(status_code=499)
                if answer.is_success and body.get("stream"):
                    handed_over = True
                    return StreamingResponse(self._relay(answer), media_type="text/event-stream")
                content = await answer.aread()
            if answer.is_success:
                return Response(content, media_type="application/json")
            raise self._refusal(answer.status_code, content)
        except TimeoutError:
            assert self._timeout is not None
            raise timed_out(self._timeout) from None
        except httpx.HTTPError:
            raise self._lost() from None
        finally:
            if not handed_over:
                self.under_way -= 1

    async def _relay(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_bytes():
                yield chunk
        except httpx.HTTPError:
            yield b"\n\ndata: " + self._lost().content() + b"\n\n"
        finally:
            self.under_way -= 1
            await answer.aclose()

    def _refusal(self, status: int, content: bytes) -> ApiError:
        try:
            said = json.loads(content)
            error = said.get("error", said)
            message = str(error.get("message") or error.get("detail") or error)
        except (ValueError, AttributeError):
            message = content.decode("utf-8", "replace")[:500]
        if status >= 500:
            return server_error(f"{self.child.program.name}: {message}")
        return ApiError(400, f"{self.child.program.name}: {message}", code="refused_by_engine")

    def _lost(self) -> ApiError:
        return ApiError(502, f"{self.child.program.name} does not answer.", kind="server_error", code="engine_lost")


def create_front(front: Front, config: Serve) -> FastAPI:
    """The app."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await front.close()

    metrics = Metrics()
    app = guarded_app(config, metrics, BODIES, lifespan)
    _add_routes(app, front, metrics)
    return app


def _add_routes(app: FastAPI, front: Front, metrics: Metrics) -> None:
    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await front.answer(request.url.path, front.translated(await request.json(), body), request)

    @app.post("/v1/completions", response_model=None)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await front.answer(request.url.path, front.translated(await request.json(), body), request)

    @app.get("/v1/models", response_model=None)
    async def models() -> Response:
        card = {"id": front.name, "object": "model", "created": 0, "owned_by": front.child.program.name}
        return JSONResponse({"object": "list", "data": [card]})

    @app.get("/metrics", response_model=None)
    async def counts() -> Response:
        return Response(metrics.text({}), media_type=CONTENT_TYPE)

    @app.get("/health", response_model=None)
    @app.get("/live", response_model=None)
    @app.get("/ready", response_model=None)
    async def state() -> Response:
        good = front.child.is_alive
        return JSONResponse({"status": "ok" if good else "unavailable"}, 200 if good else 503)

    @app.api_route("/{path:path}", methods=["GET", "POST"], response_model=None)
    async def others(path: str) -> Response:
        message = f"/{path} is not there with --engine {front.child.program.name}; --engine native has more routes."
        raise ApiError(501, message, code="unsupported_by_engine")
