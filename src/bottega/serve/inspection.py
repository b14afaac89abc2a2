"""The routes that only look: models, tokens, the prompt as the model reads it, health and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool

from bottega.serve.metrics import CONTENT_TYPE
from bottega.serve.protocol.tokens import (
    DetokenizeRequest,
    ModelCard,
    ModelList,
    Rendered,
    RenderRequest,
    TokenizeRequest,
)

if TYPE_CHECKING:
    from bottega.serve.models import Models, Served


def inspection_routes(models: Models) -> APIRouter:
    """The router."""
    router = APIRouter()
    _add_state(router, models)

    @router.get("/v1/models", response_model_exclude_none=True)
    async def list_models() -> ModelList:
        return ModelList(data=models.cards())

    @router.get("/v1/models/{model:path}", response_model_exclude_none=True)
    async def model(model: str) -> ModelCard:
        return models.card(model)

    @router.post("/v1/render")
    async def render(body: RenderRequest) -> Rendered:
        async with models.using(body.model) as served:
            return await run_in_threadpool(served.prompts.rendered, body)

    @router.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        async with models.using(body.model) as served:
            ids = await run_in_threadpool(_ids, served, body)
        tokens = [served.prompts.tokenizer.token_text(id_) for id_ in ids]
        return {"count": len(ids), "max_model_len": served.prompts.context_length, "tokens": ids, "token_strs": tokens}

    @router.post("/detokenize")
    async def detokenize(body: DetokenizeRequest) -> dict[str, str]:
        async with models.using(body.model) as served:
            ids = served.prompts.known_ids(body.tokens, "tokens")
            decode = served.prompts.tokenizer.decode
            return {"prompt": await run_in_threadpool(decode, ids, skip_special=False)}

    return router


def _ids(served: Served, body: TokenizeRequest) -> list[int]:
    if body.prompt is not None and not body.add_special_tokens:
        return served.prompts.tokenizer.encode(body.prompt)
    return served.prompts.ids_of(body)[0]


def _add_state(router: APIRouter, models: Models) -> None:
    """What watches the server asks, without a key: `live` restarts it, `ready` sends it clients."""

    def answer(good: bool, state: dict[str, Any]) -> Response:
        return JSONResponse({"status": "ok" if good else "unavailable", **state}, 200 if good else 503)

    @router.get("/health", response_model=None)
    async def health() -> Response:
        running = sum(engine.running for engine in models.engines)
        waiting = sum(engine.waiting for engine in models.engines)
        return answer(models.is_well, {"running": running, "waiting": waiting})

    @router.get("/live", response_model=None)
    async def live() -> Response:
        return answer(models.is_well or models.is_closing, {})

    @router.get("/ready", response_model=None)
    async def ready() -> Response:
        return answer(models.is_well and not models.is_closing, {})

    @router.get("/metrics", response_model=None)
    async def metrics() -> Response:
        return PlainTextResponse(models.metrics.text(models.statistics()), media_type=CONTENT_TYPE)
