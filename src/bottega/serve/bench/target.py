"""The server under load: is it there, which model does it have, what does it say about it, does it count tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from bottega.clients.endpoint import error_of
from bottega.core.errors import UserError, did_you_mean
from bottega.serve.bench.config import BenchServe
from bottega.serve.guard import is_loopback

DISCOVERY_SECONDS = 10.0
Endpoint = Literal["chat", "completions"]


@dataclass(frozen=True)
class Target:
    """Where requests go. `facts` is what /v1/models says of the model under "bottega" (other servers: nothing)."""

    base: str
    model: str
    endpoint: Endpoint
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The address that requests are posted to."""
        return f"{self.base}/v1/" + ("chat/completions" if self.endpoint == "chat" else "completions")

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, as far as its address tells."""
        return is_loopback(urlsplit(self.base).hostname or "")

    def client_settings(self) -> dict[str, Any]:
        """Settings of an httpx client for this server; a proxy of the environment is not for this machine's own."""
        return {"headers": dict(self.headers), "trust_env": not self.is_local}


def find_target(config: BenchServe) -> Target:
    """Ask /v1/models; raises UserError when no server answers, the key is refused, or the model is not there."""
    headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
    target = Target(config.url, config.model or "", "chat", headers)
    cards = _models(target)
    if cards is None:
        if config.model is None:
            raise UserError(f"{config.url}/v1/models does not list any model", hint="Name the model with --model.")
        card: dict[str, Any] = {"id": config.model}
    elif config.model is None:
        card = cards[0]
    elif config.model in (names := [card["id"] for card in cards]):
        card = cards[names.index(config.model)]
    else:
        message = f"model {config.model!r} is not served at {config.url}"
        raise UserError(message, hint=did_you_mean(config.model, names))
    facts = card.get("bottega")
    facts = facts if isinstance(facts, dict) else {}
    has_template = facts.get("has_chat_template") is not False
    endpoint = config.endpoint if config.endpoint != "auto" else "chat" if has_template else "completions"
    return Target(config.url, card["id"], endpoint, headers, facts)


def _models(target: Target) -> list[dict[str, Any]] | None:
    """The entries of /v1/models; None where the server has no such list, or an empty one."""
    url = f"{target.base}/v1/models"
    try:
        with httpx.Client(timeout=DISCOVERY_SECONDS, **target.client_settings()) as client:
            response = client.get(url)
    except httpx.HTTPError as error:
        message = f"no server answers at {target.base}: {error or type(error).__name__}"
        raise UserError(message, hint="Start it first, or correct --url.") from None
    if response.status_code in (401, 403):
        hint = "Correct --api-key." if target.headers else "Give its key with --api-key."
        raise UserError(f"{url} refuses us: {failure_text(response.status_code, response.content)}", hint=hint)
    if response.status_code >= 500:
        raise UserError(f"{url} fails: {failure_text(response.status_code, response.content)}")
    try:
        cards = response.json()["data"] if response.is_success else []
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{url} is no list of models", hint="Is that an OpenAI-compatible server?") from None
    known = [card for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)]
    return known or None


def error_text(content: bytes) -> str:
    """OpenAI's error message, or the beginning of whatever was sent."""
    return error_of(content)[0].strip()


def failure_text(status: int, content: bytes) -> str:
    """What a refusal says: its status and its message."""
    said = error_text(content)
    return f"HTTP {status}: {said}" if said else f"HTTP {status}"


class TokenCounter:
    """The server's /tokenize, in vLLM's form ({"prompt"} or {"messages"} → "count") or llama.cpp's ({"content"}).

    `count` returns None where the server has none of it.
    """

    def __init__(self, target: Target, client: httpx.Client) -> None:
        self._url, self._model, self._client = f"{target.base}/tokenize", target.model, client

    def count(self, text: str) -> int | None:
        """Tokens of `text`, with the special tokens that the server puts around a plain prompt."""
        both = self._ask({"model": self._model, "prompt": text})
        return both if both is not None else self._ask({"content": text})

    def count_chat(self, text: str) -> int | None:
        """Tokens of one message of the user, with the chat template's."""
        return self._ask({"model": self._model, "messages": [{"role": "user", "content": text}]})

    def _ask(self, body: dict[str, Any]) -> int | None:
        try:
            response = self._client.post(self._url, json=body)
            answer = response.json() if response.is_success else {}
        except (httpx.HTTPError, ValueError):
            return None
        if not isinstance(answer, dict):
            return None
        count, tokens = answer.get("count"), answer.get("tokens")
        if isinstance(count, int):
            return count
        return len(tokens) if isinstance(tokens, list) else None
