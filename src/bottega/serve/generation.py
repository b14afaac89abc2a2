"""The routes that generate: /v1/chat/completions and /v1/completions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from bottega.serve.answers import Answer
from bottega.serve.protocol.chat import ChatRequest
from bottega.serve.protocol.completions import CompletionRequest
from bottega.serve.responding import respond

if TYPE_CHECKING:
    from bottega.generate.constraint import Constraint
    from bottega.generate.sampling import Sampling
    from bottega.serve.chat_answers import ChatChoice
    from bottega.serve.engine import Order
    from bottega.serve.models import Models, Served


def generation_routes(models: Models) -> APIRouter:
    """The router."""
    from bottega.serve.chat_answers import CHAT

    router = APIRouter()

    @router.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        async with models.using(body.model) as served:
            orders, choices = await run_in_threadpool(chat_orders, served, body)
            answer = Answer(CHAT, served.name, choices, usage_chunk=body.wants_usage_chunk, per_prompt=len(orders))
            jobs = served.engine.submit(orders)
        return await respond(served.engine, jobs, answer, request, stream=bool(body.stream))

    @router.post("/v1/completions", response_model=None)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        async with models.using(body.model) as served:
            orders, answer = await run_in_threadpool(_completion_orders, served, body)
            jobs = served.engine.submit(orders)
        return await respond(served.engine, jobs, answer, request, stream=bool(body.stream))

    return router


def chat_orders(served: Served, body: ChatRequest) -> tuple[list[Order], list[ChatChoice]]:
    """What to generate for a chat, and what will read it. Raises ApiError 400 that names the field."""
    from bottega.generate.structure.calls import ToolCallParser
    from bottega.generate.structure.formats import format_of
    from bottega.serve.chat_answers import ChatChoice

    prompts, tokenizer, count = served.prompts, served.prompts.tokenizer, body.n or 1
    constraint = prompts.constraint(body)
    ids = prompts.chat(body.messages, body.tool_data() if body.tool_choice != "none" else ())
    sampling = prompts.sampling(
        body, len(ids), body.limit, logprobs=bool(body.logprobs), top_logprobs=body.top_logprobs or 0
    )
    written = format_of(tokenizer.chat_template) if body.calls_tools else None
    parsers = [ToolCallParser(written, tokenizer) if written else None for _ in range(count)]
    choices = [ChatChoice(tokenizer, logprobs=bool(body.logprobs), calls=calls) for calls in parsers]
    return orders_of(served, ids, sampling, constraint, count), choices


def _completion_orders(served: Served, body: CompletionRequest) -> tuple[list[Order], Answer]:
    from bottega.serve.completion_answers import COMPLETION, CompletionChoice

    prompts, tokenizer = served.prompts, served.prompts.tokenizer
    constraint = prompts.constraint(body)
    given = body.n or 1
    each = max(body.best_of or given, given)
    wants = body.logprobs is not None
    settings: dict[str, Any] = {"logprobs": wants or each > given, "top_logprobs": body.logprobs or 0}
    if body.echo and wants:
        settings["prompt_logprobs"] = body.logprobs
    orders: list[Order] = []
    choices: list[CompletionChoice] = []
    for prompt in body.prompt:
        ids = prompts.plain(prompt, room=min(body.limit, 1))
        echo = (prompt if isinstance(prompt, str) else tokenizer.decode(ids)) if body.echo else None
        orders += orders_of(served, ids, prompts.sampling(body, len(ids), body.limit, **settings), constraint, each)
        choices += [CompletionChoice(tokenizer, logprobs=wants, echo=echo) for _ in range(each)]
    answer = Answer(COMPLETION, served.name, choices, usage_chunk=body.wants_usage_chunk, per_prompt=each, given=given)
    return orders, answer


def orders_of(
    served: Served, ids: list[int], sampling: Sampling, constraint: Constraint | None, count: int
) -> list[Order]:
    """`count` answers to one prompt; with a seed, each draws from one of its own."""
    from bottega.serve.engine import Order

    seeds = [None if sampling.seed is None else (sampling.seed + index) % 2**63 for index in range(count)]
    return [
        Order(ids, replace(sampling, seed=seed), served.adapter, constraint.copy() if constraint else None)
        for seed in seeds
    ]
