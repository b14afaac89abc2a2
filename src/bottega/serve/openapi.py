"""/openapi.json: the document of OpenAPI 3.1, from the routes and the pydantic models that they really use.

FastAPI collects routes and requests; what each route answers, how it may refuse and who may ask stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bottega.serve.protocol import replies
from bottega.serve.protocol.tokens import ModelCard, ModelList, Rendered

EVENTS, LINES, TEXT = "text/event-stream", "application/x-ndjson", "text/plain"
REF = "#/components/schemas/{model}"


@dataclass(frozen=True)
class Described:
    """A route's summary, its whole answer, and the media type of a streamed one."""

    summary: str
    reply: type[BaseModel] | None
    stream: str | None = None


ROUTES = {
    "/v1/chat/completions": Described("Answer a conversation.", replies.ChatCompletion, EVENTS),
    "/v1/completions": Described("Continue a text.", replies.TextCompletion, EVENTS),
    "/v1/responses": Described("Answer a conversation, in the newer API.", replies.ResponseReply, EVENTS),
    "/v1/embeddings": Described("Vectors of texts.", replies.EmbeddingList),
    "/v1/score": Described("Log-likelihoods of continuations.", replies.ScoreList),
    "/v1/models": Described("What is served.", ModelList),
    "/v1/models/{model}": Described("One of the models.", ModelCard),
    "/v1/render": Described("The prompt as the model reads it.", Rendered),
    "/tokenize": Described("Ids of a prompt.", replies.TokenIds),
    "/detokenize": Described("Text of ids.", replies.Detokenized),
    "/health": Described("Whether answers can be given, and how many are under way.", replies.Health),
    "/live": Described("Whether the server need not be started again.", replies.Health),
    "/ready": Described("Whether new requests are taken.", replies.Health),
    "/metrics": Described("Counts, in Prometheus' text format.", None),
    "/api/chat": Described("Answer a conversation (Ollama).", replies.OllamaChatReply, LINES),
    "/api/generate": Described("Answer a question, or continue a text (Ollama).", replies.OllamaGenerateReply, LINES),
    "/api/embed": Described("Vectors of texts (Ollama).", replies.OllamaEmbedReply),
    "/api/embeddings": Described("Vector of a text (Ollama's older form).", replies.OllamaEmbeddingReply),
    "/api/tags": Described("What is served (Ollama).", replies.OllamaModels),
    "/api/ps": Described("What is loaded (Ollama).", replies.OllamaModels),
    "/api/show": Described("One of the models (Ollama).", replies.OllamaShown),
    "/api/version": Described("This server's version (Ollama).", replies.OllamaVersion),
    "/openapi.json": Described("This document.", None),
}
STATES = ("/health", "/live", "/ready")
ERRORS = {
    "400": "The request cannot be obeyed; `param` names the field.",
    "401": "The API key is missing or wrong.",
    "403": "Another site's page, or another host name.",
    "404": "There is no such model.",
    "408": "The answer was not read as it came.",
    "413": "The body is too large.",
    "429": "Too many requests; `Retry-After` says when to come back.",
    "500": "A failure of the server's.",
    "503": "The server goes down, or the model cannot be loaded now.",
    "504": "The answer took too long.",
}


def add_openapi_route(app: FastAPI, *, protected: tuple[str, ...], needs_key: bool) -> None:
    """Serve the document of all routes of `app`, this one included."""
    made: dict[str, Any] = {}

    @app.get("/openapi.json", response_model=None)
    async def openapi() -> Response:
        if not made:
            made.update(openapi_document(app, protected=protected, needs_key=needs_key))
        return JSONResponse(made)


def openapi_document(app: FastAPI, *, protected: tuple[str, ...], needs_key: bool) -> dict[str, Any]:
    """The document; `protected` are the prefixes of the routes that a key opens, if the server has one."""
    document = get_openapi(title="Bottega", version=metadata.version("bottega"), routes=app.routes)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's; errors have another shape here
        schemas.pop(name, None)
    known: list[type[BaseModel]] = [route.reply for route in ROUTES.values() if route.reply is not None]
    known += [replies.ErrorReply, replies.OllamaErrorReply]
    _, made = models_json_schema([(model, "serialization") for model in known], ref_template=REF)
    schemas.update(made["$defs"])
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        is_protected = any(path == prefix or path.startswith(f"{prefix}/") for prefix in protected)
        for method, operation in operations.items():
            operation["summary"] = ROUTES[path].summary
            operation["responses"] = _responses(path, method, is_protected)
            if is_protected:
                operation["security"] = [{"key": []}] if needs_key else [{}, {"key": []}]
    return document


def _responses(path: str, method: str, is_protected: bool) -> dict[str, Any]:
    route = ROUTES[path]
    content: dict[str, Any] = {}
    if route.reply is not None:
        content["application/json"] = {"schema": _ref(route.reply)}
    elif path == "/metrics":
        content[TEXT] = {"schema": {"type": "string"}}
    else:
        content["application/json"] = {"schema": {"type": "object"}}
    if route.stream is not None:
        content[route.stream] = {"schema": {"type": "string"}}
    responses: dict[str, Any] = {"200": {"description": route.summary, "content": content}}
    if path in STATES:
        return responses | {"403": _error(path, "403"), "503": {"description": "It is not so.", "content": content}}
    statuses = ["403", *(["401"] if is_protected else []), *(["404"] if "{" in path else [])]
    if method == "post":
        statuses = list(ERRORS)
    return responses | {status: _error(path, status) for status in sorted(statuses)}


def _error(path: str, status: str) -> dict[str, Any]:
    model = replies.OllamaErrorReply if path.startswith("/api/") else replies.ErrorReply
    found: dict[str, Any] = {
        "description": ERRORS[status],
        "content": {"application/json": {"schema": _ref(model)}},
    }
    if status in ("429", "503"):
        found["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return found


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}
