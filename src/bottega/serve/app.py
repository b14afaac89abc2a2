"""The API server's app: OpenAI's endpoints over one engine. It serves no pages.

Routes: /v1/models, /v1/chat/completions, /v1/completions, /v1/render (the prompt as the
model reads it) and /health. FastAPI's documentation pages load scripts from a CDN and are off.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from bottega.core.errors import UserError
from bottega.serve.answers import DONE, Answer, ChatAnswer, CompletionAnswer, event
from bottega.serve.failures import ApiError, from_validation, server_error
from bottega.serve.guard import Guard, HostRule
from bottega.serve.hangup import unless_hung_up
from bottega.serve.prompts import Prompts
from bottega.serve.protocol import (
    ChatRequest,
    CompletionRequest,
    ModelCard,
    ModelList,
    Rendered,
    RenderRequest,
)

if TYPE_CHECKING:
    from bottega.generate.generator import Piece
    from bottega.serve.config import Serve
    from bottega.serve.engine import Engine, Job

KNOWN_FIELDS = {
    "/v1/chat/completions": ChatRequest.model_fields,
    "/v1/completions": CompletionRequest.model_fields,
    "/v1/render": RenderRequest.model_fields,
}


def create_app(engine: Engine, config: Serve, name: str) -> FastAPI:
    """The app for `engine`, whose model clients call `name`."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await run_in_threadpool(engine.stop)

    app = FastAPI(title="Bottega", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Guard, hosts=HostRule(config.host, config.trusted_hosts), api_key=config.api_key)
    _add_error_handlers(app)
    _add_routes(app, engine, name)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    def respond(error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status, headers=error.headers)

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return respond(error)

    @app.exception_handler(UserError)
    async def user_error(_: Request, error: UserError) -> Response:
        return respond(ApiError(400, str(error), code="invalid_value"))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return respond(from_validation(error.errors(), KNOWN_FIELDS.get(request.url.path, {})))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        said = {404: f"There is no {request.url.path} here.", 405: f"{request.method} is not allowed here."}
        message = said.get(error.status_code, str(error.detail))
        return respond(ApiError(error.status_code, message, headers=error.headers))

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> Response:
        return respond(server_error())


def _add_routes(app: FastAPI, engine: Engine, name: str) -> None:
    prompts = Prompts(engine.generator)
    card = ModelCard(id=name, created=int(time.time()), bottega=prompts.facts())

    def require_model(asked: str | None) -> None:
        if asked is not None and asked != name:
            message = f"The model {asked!r} is not served here; this server has {name!r}."
            raise ApiError(404, message, param="model", code="model_not_found")

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "running": engine.running, "waiting": engine.waiting}

    @app.get("/v1/models")
    async def models() -> ModelList:
        return ModelList(data=[card])

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> ModelCard:
        require_model(model)
        return card

    @app.post("/v1/render")
    async def render(body: RenderRequest) -> Rendered:
        require_model(body.model)
        return await run_in_threadpool(prompts.rendered, body)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        require_model(body.model)
        ids = await run_in_threadpool(prompts.chat, body.messages)
        answer = ChatAnswer(
            name, prompts.tokenizer, len(ids), logprobs=bool(body.logprobs), usage=body.wants_usage_chunk
        )
        job = engine.submit(ids, prompts.sampling(body, len(ids), body.limit, body.top_logprobs or 0))
        return await _respond(engine, job, answer, request, stream=bool(body.stream))

    @app.post("/v1/completions", response_model=None)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        require_model(body.model)
        ids = await run_in_threadpool(prompts.plain, body.prompt)
        answer = CompletionAnswer(
            name, prompts.tokenizer, len(ids), logprobs=body.logprobs is not None, usage=body.wants_usage_chunk
        )
        job = engine.submit(ids, prompts.sampling(body, len(ids), body.limit, body.logprobs or 0))
        return await _respond(engine, job, answer, request, stream=bool(body.stream))


async def _respond(engine: Engine, job: Job, answer: Answer, request: Request, *, stream: bool) -> Response:
    if stream:
        return EventStream(engine, job, answer)
    try:
        pieces = await unless_hung_up(_collect(job), request)
    finally:
        engine.cancel(job)
    if pieces is None:  # nobody is there to read it; 499 is what nginx logs in this case
        return Response(status_code=499)
    return JSONResponse(answer.whole(pieces))


async def _collect(job: Job) -> list[Piece]:
    return [piece async for piece in job.pieces()]


class EventStream(StreamingResponse):
    """A streamed answer; its slot is given back whatever happens to the connection."""

    def __init__(self, engine: Engine, job: Job, answer: Answer) -> None:
        super().__init__(
            _events(job, answer),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self._engine, self._job = engine, job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; a client that disconnects ends the work."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._engine.cancel(self._job)


async def _events(job: Job, answer: Answer) -> AsyncIterator[bytes]:
    try:
        for chunk in answer.first():
            yield event(chunk)
        async for piece in job.pieces():
            for chunk in answer.piece(piece):
                yield event(chunk)
        for chunk in answer.last():
            yield event(chunk)
    except ApiError as error:
        yield event(error.body())
        return
    except UserError as error:
        yield event(ApiError(400, str(error), code="invalid_value").body())
        return
    except Exception:
        # The status line is out already: say it in the stream, and let the server log the cause.
        yield event(server_error().body())
        raise
    yield DONE
