"""The routes that measure: /v1/embeddings and /v1/score.

A score is −nats: the sum of log p(token | context and the tokens before it), from raw logits in float32. A context
of no tokens is refused, as nothing would predict the first token.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from bottega.serve.failures import ApiError
from bottega.serve.hangup import unless_hung_up
from bottega.serve.protocol.scoring import EmbeddingRequest, Score, ScoreRequest
from bottega.serve.responding import CLIENT_HAS_GONE, collect

if TYPE_CHECKING:
    from bottega.serve.engine import Job, Order
    from bottega.serve.models import Models, Served


def scoring_routes(models: Models) -> APIRouter:
    """The router."""
    router = APIRouter()

    @router.post("/v1/embeddings", response_model=None)
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        async with models.using(body.model) as served:
            found = await embed_inputs(served, body.input, request)
        if found is None:
            return Response(status_code=CLIENT_HAS_GONE)
        vectors, tokens = found
        encode = _base64 if body.encoding_format == "base64" else list
        data = [{"object": "embedding", "index": i, "embedding": encode(row)} for i, row in enumerate(vectors)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": served.name, "usage": usage})

    @router.post("/v1/score", response_model=None)
    async def score(body: ScoreRequest, request: Request) -> Response:
        async with models.using(body.model) as served:
            orders, start = await run_in_threadpool(_score_orders, served, body)
            jobs = served.engine.submit(orders)
        try:
            ended = await unless_hung_up(collect(jobs), request)
        finally:
            served.engine.cancel(jobs)
        if ended is None:
            return Response(status_code=CLIENT_HAS_GONE)
        scores = [_score(served, job, start).model_dump() for job, _ in ended]
        tokens = sum(len(order.prompt_ids) for order in orders)
        cached = sum(job.ticket.cached_tokens for job, _ in ended if job.ticket is not None)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "prompt_tokens_details": {"cached_tokens": cached}}
        return JSONResponse({"object": "list", "model": served.name, "data": scores, "usage": usage})

    return router


async def embed_inputs(
    served: Served, inputs: Sequence[str | list[int]], request: Request
) -> tuple[list[list[float]], int] | None:
    """The vectors, and how many tokens were read; None: the client has gone. Raises ApiError 400."""
    if served.adapter is not None:
        raise ApiError(400, "Embeddings come from the model itself, not from an adapter.", param="model")

    def encode() -> list[list[int]]:
        return [served.prompts.plain(text, "input", room=0) for text in inputs]

    prompts = await run_in_threadpool(encode)
    vectors = await unless_hung_up(_embed(served, prompts), request)
    return None if vectors is None else (vectors, sum(map(len, prompts)))


async def _embed(served: Served, prompts: list[list[int]]) -> list[list[float]]:
    """One prompt at a time, so that answers under way get their tokens between two of them."""

    def one(prompt: list[int]) -> list[float]:
        return served.engine.generator.embed([prompt])[0].tolist()

    return [await served.engine.call(partial(one, prompt)) for prompt in prompts]


def _base64(row: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode("ascii")


def _score_orders(served: Served, body: ScoreRequest) -> tuple[list[Order], int]:
    """One order per continuation that only runs the prompt, and where the continuations begin."""
    from bottega.generate.sampling import Sampling
    from bottega.serve.engine import Order

    prompts = served.prompts
    context = prompts.plain(body.context, "context", room=0)
    sampling = Sampling(max_new_tokens=0, prompt_logprobs=1)
    orders = []
    for index, continuation in enumerate(body.continuations):
        param = f"continuations[{index}]"
        if isinstance(continuation, str):
            ids = prompts.tokenizer.encode_inside(continuation)
        else:
            ids = prompts.known_ids(continuation, param)
        if not ids:
            raise ApiError(400, "A continuation has no tokens.", param=param, code="invalid_value")
        orders.append(Order(prompts.require_room([*context, *ids], param, room=0), sampling, served.adapter))
    return orders, len(context)


def _score(served: Served, job: Job, start: int) -> Score:
    ticket = job.ticket
    assert ticket is not None and ticket.prompt_logprobs is not None
    ids = ticket.prompt_ids[start:]
    scores: list[Any] = ticket.prompt_logprobs[start:]
    logprobs = [max(logprob, -9999.0) for logprob, _ in scores]
    return Score(
        index=job.index,
        logprob=sum(logprobs),
        is_greedy=all(top[0][0] == id_ for id_, (_, top) in zip(ids, scores, strict=True)),
        tokens=[served.prompts.tokenizer.token_text(id_) for id_ in ids],
        token_ids=ids,
        token_logprobs=logprobs,
    )
