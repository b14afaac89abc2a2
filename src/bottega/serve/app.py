"""The API server's app: OpenAI's endpoints over the models. It serves no pages.

The routes stand by topic in `generation`, `responses`, `scoring`, `inspection`, `ollama` and `ollama_models`;
docs/server.md lists them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import FastAPI

from bottega.serve.access import keys_of
from bottega.serve.front import PROTECTED, guarded_app
from bottega.serve.generation import generation_routes
from bottega.serve.inspection import inspection_routes
from bottega.serve.ollama import ollama_routes
from bottega.serve.ollama_models import ollama_models_routes
from bottega.serve.openapi import add_openapi_route
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

    app = guarded_app(config, models.metrics, BODIES, lifespan)
    for routes in ROUTES:
        app.include_router(routes(models))
    add_openapi_route(app, protected=PROTECTED, needs_key=bool(keys_of(config)))
    return app
