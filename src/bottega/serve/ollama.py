"""Ollama's routes that compute: /api/chat, /api/generate, /api/embed and /api/embeddings."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from bottega.serve.failures import ApiError
from bottega.serve.generation import chat_orders, orders_of
from bottega.serve.models import Models, Served
from bottega.serve.protocol.ollama import (
    FOREVER,
    OPENAI_NAMES,
    EmbeddingsRequest,
    EmbedRequest,
    Generating,
    OllamaChat,
    OllamaGenerate,
    Options,
)
from bottega.serve.renaming import in_words_of
from bottega.serve.responding import CLIENT_HAS_GONE, respond
from bottega.serve.scoring import embed_inputs

if TYPE_CHECKING:
    from bottega.serve.chat_answers import ChatChoice
    from bottega.serve.engine import Order
    from bottega.serve.ollama_answers import Clock, Kind


def plain_name(name: str) -> str:
    """Ollama's clients add `:latest` to a name without a tag."""
    return name.removesuffix(":latest")


def ollama_routes(models: Models) -> APIRouter:
    """The router."""
    from bottega.serve.ollama_answers import Clock

    router = APIRouter()

    @router.post("/api/chat", response_model=None)
    async def chat(body: OllamaChat, request: Request) -> Response:
        if not body.messages:
            return await _load(models, body, "chat")
        return await _generate(models, body, "chat", request)

    @router.post("/api/generate", response_model=None)
    async def generate(body: OllamaGenerate, request: Request) -> Response:
        if not body.prompt:
            return await _load(models, body, "generate")
        return await _generate(models, body, "generate", request)

    @router.post("/api/embed", response_model=None)
    async def embed(body: EmbedRequest, request: Request) -> Response:
        clock = Clock()
        found = await _embed(models, body, body.input, request, clock)
        if found is None:
            return Response(status_code=CLIENT_HAS_GONE)
        vectors, tokens = found
        counts = {**clock.durations(), "prompt_eval_count": tokens}
        return JSONResponse({"model": body.model, "embeddings": vectors, **counts})

    @router.post("/api/embeddings", response_model=None)
    async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
        found = await _embed(models, body, [body.prompt], request, Clock())
        return Response(status_code=CLIENT_HAS_GONE) if found is None else JSONResponse({"embedding": found[0][0]})

    return router


@contextlib.asynccontextmanager
async def _using(models: Models, body: Generating | EmbedRequest | EmbeddingsRequest) -> AsyncIterator[Served]:
    """The model, loaded, and kept as long as the request says."""
    name = plain_name(body.model)
    async with models.using(name) as served:
        _check_context(served, body.options)
        if body.keep_alive is not None:
            models.keep(name, None if body.keep_alive >= FOREVER else body.keep_alive)
        yield served


async def _generate(models: Models, body: OllamaChat | OllamaGenerate, kind: Kind, request: Request) -> Response:
    from bottega.serve.ollama_answers import Clock, OllamaAnswer

    clock = Clock()
    with in_words_of(OPENAI_NAMES):
        async with _using(models, body) as served:
            clock.model_is_there()
            order, choice = await run_in_threadpool(_order, served, body)
            jobs = served.engine.submit([order])
        answer = OllamaAnswer(body.model, kind, choice, clock)
        return await respond(served.engine, jobs, answer, request, stream=body.stream is not False)


async def _load(models: Models, body: Generating, kind: Kind) -> Response:
    """A request without a prompt: the model is loaded, or unloaded where it is not to be kept."""
    from bottega.serve.ollama_answers import silent

    if body.keep_alive == 0:
        models.keep(plain_name(body.model), 0)
        return JSONResponse(silent(body.model, kind, "unload"))
    async with _using(models, body):
        return JSONResponse(silent(body.model, kind, "load"))


def _order(served: Served, body: OllamaChat | OllamaGenerate) -> tuple[Order, ChatChoice]:
    template = served.prompts.tokenizer.chat_template
    if body.think is False and "enable_thinking" in (template or ""):
        message = "think: this model's template thinks unless it is told otherwise, which this server cannot do."
        raise ApiError(400, message, param="think", code="invalid_value")
    is_text = isinstance(body, OllamaGenerate) and (body.raw or (template is None and not body.system))
    if is_text:
        assert isinstance(body, OllamaGenerate)
        order, choice = _continuation(served, body)
    else:
        (order,), (choice,) = chat_orders(served, body.as_chat())
    limit = body.settings.num_ctx
    if limit is None:
        return order, choice
    room = limit - len(order.prompt_ids)
    if room < 1:
        message = f"The prompt has {len(order.prompt_ids)} tokens, and num_ctx leaves room for {limit} with the answer."
        raise ApiError(400, message, param="options.num_ctx", code="context_length_exceeded")
    most = min(order.sampling.max_new_tokens, room)
    return replace(order, sampling=replace(order.sampling, max_new_tokens=most)), choice


def _continuation(served: Served, body: OllamaGenerate) -> tuple[Order, ChatChoice]:
    """A text to go on from, without the chat template."""
    from bottega.serve.chat_answers import ChatChoice

    if body.raw and body.system:
        raise ApiError(400, "system: with raw the prompt is all that the model reads.", param="system")
    request, prompts = body.as_completion(), served.prompts
    constraint = prompts.constraint(request)
    ids = prompts.plain(request.prompt[0])
    told = {"logprobs": bool(body.logprobs), "top_logprobs": body.top_logprobs or 0}
    sampling = prompts.sampling(request, len(ids), request.max_tokens, **told)
    (order,) = orders_of(served, ids, sampling, constraint, 1)
    return order, ChatChoice(prompts.tokenizer, logprobs=bool(body.logprobs))


def _check_context(served: Served, options: Options | None) -> None:
    wanted, there = (options and options.num_ctx) or 0, served.prompts.context_length
    if wanted > there:
        message = f"num_ctx is {wanted}, and the model's context holds {there} here. Ask for no more."
        raise ApiError(400, message, param="options.num_ctx", code="invalid_value")


async def _embed(
    models: Models, body: EmbedRequest | EmbeddingsRequest, texts: list[str], request: Request, clock: Clock
) -> tuple[list[list[float]], int] | None:
    """The vectors and the number of tokens; None: the client has gone."""
    async with _using(models, body) as served:
        clock.model_is_there()
        return await embed_inputs(served, texts, request)
