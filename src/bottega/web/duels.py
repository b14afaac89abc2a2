"""Two models answer one prompt, side by side and blind.

Which model is on which side is drawn here and stays here until the vote: what is sent to the page says "left" and
"right" only. Pace would tell too, so both answers are shown at that of the slower one: the page sees no more of the
faster than of the slower, and what is left of the longer one when the other has ended follows at the pace so far.
Imports no torch.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from pydantic import Field

from bottega.evaluate.arena.votes import Vote, Winner
from bottega.serve.failures import ApiError
from bottega.serve.framing import event
from bottega.serve.protocol.wire import Wire
from bottega.web.proxy import Proxy
from bottega.web.verdicts import MOST_MESSAGES, Turn

Choice = Literal["left", "right", "tie", "both_bad"]
SIDES = ("left", "right")
WINNERS: dict[Choice, Winner] = {"left": "a", "right": "b", "tie": "tie", "both_bad": "both_bad"}
MOST_DUELS = 256
TICK_SECONDS = 0.04
# What may be said of an error before the vote: never which model, nor what only one of them would say.
SAID = {
    "context_length_exceeded": "The conversation is longer than one of the models can read.",
    "queue_full": "Other answers are being generated. Try again in a moment.",
    "model_busy": "Other answers are being generated. Try again in a moment.",
    "timeout": "An answer took longer than the server gives one.",
    "model_stopped": "The models' server stopped while they were answering. It is being started again.",
    "going_down": "The server is going down.",
}
FAILED = "One of the models failed to answer. The terminal of `bottega web` says more."


class Ask(Wire):
    """A prompt for two models, and how both sample."""

    messages: list[Turn] = Field(min_length=1, max_length=MOST_MESSAGES)
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=1024, ge=1)


class Choose(Wire):
    """A vote, as the page sends it."""

    winner: Choice


@dataclass
class Side:
    """One model's answer: what of it has come, and what of it has been shown (characters)."""

    model: str
    is_chat: bool
    answer: str = ""
    finish: str | None = None
    shown: int = 0
    is_ended: bool = False
    """Whether the page has been told that the answer has ended."""
    error: str = ""


@dataclass
class Duel:
    """A prompt, the two models that answer it, left and right, and the vote."""

    ask: Ask
    sides: tuple[Side, Side]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    winner: Choice | None = None

    def vote(self, winner: Choice) -> Vote:
        """The vote as it is kept; the answer on the left is a's."""
        left, right = self.sides
        # What two models without a template read is a text; as a text it is kept.
        is_chat = left.is_chat or right.is_chat
        messages = [turn.model_dump() for turn in self.ask.messages]
        return Vote(
            id=self.id,
            time=round(time.time(), 3),
            prompt="" if is_chat else "".join(turn["content"] for turn in messages),
            messages=messages if is_chat else [],
            model_a=left.model,
            model_b=right.model,
            answer_a=left.answer,
            answer_b=right.answer,
            winner=WINNERS[winner],
        )


class Duels:
    """The latest duels, in memory. Use on one event loop."""

    def __init__(self, proxy: Proxy, *, together: bool) -> None:
        self._proxy, self._together = proxy, together
        self._duels: OrderedDict[str, Duel] = OrderedDict()
        self._draw = random.SystemRandom()

    async def begin(self, ask: Ask) -> Duel:
        """Draw two of the served models, and their sides; raises ApiError 409 if there are not two."""
        cards = await self._proxy.models()
        if len(cards) < 2:
            raise ApiError(409, "Two models are needed: start `bottega web` with several.", code="too_few_models")
        left, right = (_side(card) for card in self._draw.sample(cards, 2))
        duel = Duel(ask, (left, right))
        self._duels[duel.id] = duel
        while len(self._duels) > MOST_DUELS:
            self._duels.popitem(last=False)
        return duel

    def find(self, name: str) -> Duel:
        """The duel of that id, answered in full and not voted on; raises ApiError 404, 409."""
        duel = self._duels.get(name)
        if duel is None:
            raise ApiError(404, "This comparison is not known any more. Ask again.", code="unknown_comparison")
        if duel.winner is not None:
            raise ApiError(409, "This comparison has been voted on.", code="already_voted")
        if not all(side.is_ended for side in duel.sides):
            raise ApiError(409, "Vote when both answers have ended.", code="not_answered")
        return duel

    async def stream(self, duel: Duel) -> AsyncGenerator[bytes, None]:
        """Server-sent events: {"id"}; {"side", "text"} as it comes; {"side", "finish"}; or one {"error"}."""
        turns = asyncio.Semaphore(2 if self._together else 1)
        work = [asyncio.create_task(self._answer(duel.ask, side, turns)) for side in duel.sides]
        try:
            yield event({"id": duel.id})
            pace = _Pace()
            while not all(side.is_ended for side in duel.sides):
                await asyncio.sleep(TICK_SECONDS)
                if failed := next((side for side in duel.sides if side.error), None):
                    yield event({"error": {"message": failed.error, "code": "answer_failed"}})
                    return
                for piece in pace.show(duel.sides, time.monotonic()):
                    yield event(piece)
        finally:
            for task in work:
                task.cancel()
            # Cancelled once, each closes its connection; a second time, as by a hang-up of the page, it could not.
            await asyncio.shield(asyncio.gather(*work, return_exceptions=True))

    async def _answer(self, ask: Ask, side: Side, turns: asyncio.Semaphore) -> None:
        """Fill in `side`; what goes wrong is written to the terminal, and on the page said without names."""
        try:
            async with turns:
                await self._listen(ask, side)
        except (ApiError, httpx.HTTPError, ValueError, LookupError) as error:
            print(f"{side.model} did not answer: {error!r}", file=sys.stderr, flush=True)
            code = error.code if isinstance(error, ApiError) else ""
            code = "model_stopped" if isinstance(error, httpx.HTTPError) else code
            side.error = SAID.get(code or "", FAILED)

    async def _listen(self, ask: Ask, side: Side) -> None:
        body = {"model": side.model, "stream": True, **ask.model_dump()}
        path = "/v1/chat/completions"
        if not side.is_chat:
            body["prompt"], path = "".join(turn["content"] for turn in body.pop("messages")), "/v1/completions"
        async with self._proxy.stream(path, body) as lines:
            async for line in lines:
                data = line.removeprefix("data: ")
                if data == line or data == "[DONE]":
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    raise ApiError(502, chunk["error"]["message"], code=chunk["error"].get("code"))
                for choice in chunk["choices"]:
                    side.answer += (choice["delta"].get("content") if side.is_chat else choice["text"]) or ""
                    side.finish = choice.get("finish_reason") or side.finish
        if side.finish is None:
            raise ApiError(502, "the answer broke off", code="model_stopped")


def _side(card: dict[str, Any]) -> Side:
    """A side for an entry of /v1/models."""
    return Side(card["id"], card.get("bottega", {}).get("has_chat_template", True))


class _Pace:
    """How many characters of both answers may be seen: as many as the slower one has.

    Once one answer is complete the count goes on at its mean rate so far, until the other is shown too.
    """

    def __init__(self) -> None:
        self.front = 0.0
        self._began = self._last = 0.0

    def show(self, sides: Sequence[Side], now: float) -> list[dict[str, Any]]:
        """The pieces that are due at `now` (seconds): of texts, and of ends."""
        self._advance(sides, now)
        pieces: list[dict[str, Any]] = []
        for name, side in zip(SIDES, sides, strict=True):
            end = min(int(self.front), len(side.answer))
            if end > side.shown:
                pieces.append({"side": name, "text": side.answer[side.shown : end]})
                side.shown = end
            if side.finish is not None and side.shown == len(side.answer) and not side.is_ended:
                side.is_ended = True
                pieces.append({"side": name, "finish": side.finish})
        return pieces

    def _advance(self, sides: Sequence[Side], now: float) -> None:
        coming = [len(side.answer) for side in sides if side.finish is None]
        most = min(coming, default=max(len(side.answer) for side in sides))
        if len(coming) == len(sides) or self._began == self._last:
            self.front = float(most)
        else:
            rate = self.front / (self._last - self._began)
            self.front = min(float(most), self.front + rate * (now - self._last))
        if self._began == 0.0 and self.front > 0:
            self._began = now
        self._last = now if self._began else 0.0
