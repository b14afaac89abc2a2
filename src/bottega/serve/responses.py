"""The route /v1/responses: the same chat in the words of OpenAI's newer API."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from bottega.serve.generation import chat_orders
from bottega.serve.models import Models
from bottega.serve.protocol.responses import CHAT_NAMES, ResponsesRequest
from bottega.serve.renaming import in_words_of
from bottega.serve.responding import respond


def responses_routes(models: Models) -> APIRouter:
    """The router."""
    from bottega.serve.responses_answers import ResponsesAnswer

    router = APIRouter()

    @router.post("/v1/responses", response_model=None)
    async def responses(body: ResponsesRequest, request: Request) -> Response:
        with in_words_of(CHAT_NAMES):
            async with models.using(body.model) as served:
                orders, (choice,) = await run_in_threadpool(chat_orders, served, body.as_chat())
                jobs = served.engine.submit(orders)
            answer = ResponsesAnswer(served.name, choice, body)
            return await respond(served.engine, jobs, answer, request, stream=bool(body.stream))

    return router
