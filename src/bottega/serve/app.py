"""The API server's app: OpenAI's endpoints over the models. It serves no pages.

The routes stand by topic in `generation`, `scoring` and `inspection`; docs/server.md lists them. FastAPI's
documentation pages load scripts from a CDN and are off.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from bottega.core.errors import UserError
from bottega.serve.access import Limits, keys_of
from bottega.serve.failures import ApiError, from_validation, server_error
from bottega.serve.generation import generation_routes
from bottega.serve.guard import Guard, HostRule
from bottega.serve.inspection import inspection_routes
from bottega.serve.metrics import CountRequests
from bottega.serve.ollama import ollama_routes
from bottega.serve.ollama_models import ollama_models_routes
from bottega.serve.openapi import add_openapi_route
from bottega.serve.prompts import refusal
from bottega.serve.protocol.chat import ChatRequest
from bottega.serve.protocol.completions import CompletionRequest
from bottega.serve.protocol.ollama import (
    EmbeddingsRequest,
    EmbedRequest,
    OllamaChat,
    OllamaGenerate,
    ShowRequest,
)
from bottega.serve.protocol.responses import ResponsesRequest
from bottega.serve.protocol.scoring import EmbeddingRequest, ScoreRequest
from bottega.serve.protocol.tokens import DetokenizeRequest, RenderRequest, TokenizeRequest
from bottega.serve.responses import responses_routes
from bottega.serve.scoring import scoring_routes

if TYPE_CHECKING:
    from bottega.generate.generator import Generator
    from bottega.serve.config import Serve
    from bottega.serve.models import Models

ROUTES = (
    *(generation_routes, responses_routes, scoring_routes, inspection_routes),
    *(ollama_routes, ollama_models_routes),
)
PROTECTED = ("/v1", "/api", "/tokenize", "/detokenize")
BODIES = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/api/chat": OllamaChat,
    "/api/generate": OllamaGenerate,
    "/api/embed": EmbedRequest,
    "/api/embeddings": EmbeddingsRequest,
    "/api/show": ShowRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/v1/score": ScoreRequest,
    "/v1/render": RenderRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}


def create_app(models: Models, config: Serve, first: Generator | None = None) -> FastAPI:
    """The app for `models`, of which the first is loaded already if `first` is its generator."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if first is not None:
            models.adopt(first)
        yield
        await models.stop()

    keys = keys_of(config)
    app = FastAPI(title="Bottega", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(
        Guard,
        hosts=HostRule(config.host, config.trusted_hosts),
        api_keys=keys,
        prefixes=PROTECTED,
        origins=config.cors_origin,
        limits=Limits(config.requests_per_minute, config.max_concurrent_per_key),
    )
    app.add_middleware(CountRequests, metrics=models.metrics)
    _add_error_handlers(app)
    for routes in ROUTES:
        app.include_router(routes(models))
    add_openapi_route(app, protected=PROTECTED, needs_key=bool(keys))
    return app


def _add_error_handlers(app: FastAPI) -> None:
    def respond(error: ApiError, request: Request) -> JSONResponse:
        return JSONResponse(error.body(request.url.path), error.status, headers=error.headers)

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return respond(error, request)

    @app.exception_handler(UserError)
    async def user_error(request: Request, error: UserError) -> Response:
        return respond(refusal(error), request)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        body = BODIES.get(request.url.path)
        return respond(from_validation(error.errors(), body.model_fields if body else {}), request)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        said = {404: f"There is no {request.url.path} here.", 405: f"{request.method} is not allowed here."}
        message = said.get(error.status_code, str(error.detail))
        return respond(ApiError(error.status_code, message, headers=error.headers), request)

    @app.exception_handler(Exception)
    async def failed(request: Request, _: Exception) -> Response:
        return respond(server_error(), request)
