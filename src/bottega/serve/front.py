"""What stands before every route, whichever engine is behind: guard, counting, errors on the wire.

FastAPI's documentation pages load scripts from a CDN and are off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from bottega.core.errors import UserError
from bottega.serve.access import Limits, keys_of
from bottega.serve.config import Serve
from bottega.serve.failures import ApiError, from_validation, server_error
from bottega.serve.guard import Guard, HostRule
from bottega.serve.metrics import CountRequests, Metrics
from bottega.serve.prompts import refusal

PROTECTED = ("/v1", "/api", "/tokenize", "/detokenize")
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def guarded_app(config: Serve, metrics: Metrics, bodies: Mapping[str, type[BaseModel]], lifespan: Lifespan) -> FastAPI:
    """An app without routes; `bodies` by path are for hints about misspelt fields."""
    app = FastAPI(title="Bottega", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(
        Guard,
        hosts=HostRule(config.host, config.trusted_hosts),
        api_keys=keys_of(config),
        prefixes=PROTECTED,
        origins=config.cors_origin,
        limits=Limits(config.requests_per_minute, config.max_concurrent_per_key),
    )
    app.add_middleware(CountRequests, metrics=metrics)
    _add_error_handlers(app, bodies)
    return app


def _add_error_handlers(app: FastAPI, bodies: Mapping[str, type[BaseModel]]) -> None:
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
        body = bodies.get(request.url.path)
        return respond(from_validation(error.errors(), body.model_fields if body else {}), request)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        said = {404: f"There is no {request.url.path} here.", 405: f"{request.method} is not allowed here."}
        message = said.get(error.status_code, str(error.detail))
        return respond(ApiError(error.status_code, message, headers=error.headers), request)

    @app.exception_handler(Exception)
    async def failed(request: Request, _: Exception) -> Response:
        return respond(server_error(), request)
