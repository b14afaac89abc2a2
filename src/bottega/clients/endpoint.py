"""Where a model of others is asked: its address, its name, the key, and how patient we are.

The format is OpenAI's Chat Completions (https://platform.openai.com/docs/api-reference/chat), which vLLM, llama.cpp,
Ollama, the hosted providers and `bottega serve` speak as well.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bottega.core.errors import BottegaError, UserError

PATHS = ("/chat/completions", "/completions", "/models")
DEFAULT_PATH = "/v1"
MOST_SAID = 300  # characters of a failure that are shown


class EndpointError(BottegaError):
    """An endpoint refused a request, or did not answer it. `stops`: no other request would fare better."""

    def __init__(self, message: str, *, hint: str = "", status: int | None = None, stops: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.status, self.stops = status, stops


@dataclass(frozen=True)
class Endpoint:
    """A model behind HTTP. `extra` are more fields of each request; None leaves one out that we would send.

    `timeout` (seconds) is for each wait of a request; `retries` come after the first attempt, the first of them after
    `backoff` seconds, and no wait is longer than `longest_wait`. Raises UserError if the key cannot be a header.
    """

    base: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 300.0
    retries: int = 5
    backoff: float = 0.5
    longest_wait: float = 120.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise UserError("the API key has characters that no key has", hint="Is there a line end in it?")

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, as far as its address tells."""
        host = urlsplit(self.base).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    def client_settings(self) -> dict[str, Any]:
        """Settings of an httpx client; a proxy of the environment is not for this machine's own servers."""
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"headers": headers, "trust_env": not self.is_local}

    def failure(self, status: int, content: bytes) -> str:
        """What a refusal says, on one line and without the key that some servers repeat."""
        said = " ".join(error_of(content)[0].split())[:MOST_SAID]
        said = said.replace(self.api_key, "(key)") if self.api_key else said
        return f"HTTP {status}: {said}" if said else f"HTTP {status}"


def base_url(url: str) -> str:
    """The URL before `/chat/completions`; of a bare host, with `/v1`. Raises ValueError if it is none of http."""
    require_http(url)
    bare = url.rstrip("/")
    bare = next((bare.removesuffix(path) for path in PATHS if bare.endswith(path)), bare)
    return bare if urlsplit(bare).path.strip("/") else bare.rstrip("/") + DEFAULT_PATH


def require_http(url: str) -> None:
    """Raise ValueError unless it is a URL of http that requests can be sent below."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL of http or https is wanted, for example http://127.0.0.1:8000")
    if parts.query or parts.fragment or parts.port == 0:  # asking for the port raises ValueError if it is none
        raise ValueError("a URL without '?' and '#', and with a port that can be reached, is wanted")
    if parts.username or parts.password:
        raise ValueError("a URL without a name and password in it is wanted; a key is given apart")


def parse_extra(text: str, taken: Collection[str], by: str) -> dict[str, Any]:
    """More fields of each request, as JSON; raises ValueError for other JSON, and for those `taken` by `by` itself."""
    try:
        extra = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(extra, dict):
        raise ValueError('a JSON object is wanted, for example {"temperature": 0}')
    if wrong := set(taken) & set(extra):
        raise ValueError(f"{sorted(wrong)[0]!r} is set by {by} itself")
    return extra


def find_key(given: str | None, variable: str | None, default_variable: str) -> str | None:
    """The key that is given, else that of the environment variable `variable` (which must then be set) or the default.

    Raises UserError if the named variable is not set.
    """
    if given is not None:
        return given
    key = os.environ.get(variable or default_variable, "").strip() or None
    if key is None and variable is not None:
        raise UserError(
            f"the environment variable {variable} is not set", hint="Set it to the API key, or leave it out."
        )
    return key


def error_of(content: bytes) -> tuple[str, str]:
    """OpenAI's error message and code, or the beginning of whatever was sent and no code."""
    try:
        error = json.loads(content)["error"]
        if isinstance(error, dict):
            return str(error["message"]), str(error.get("code") or error.get("type") or "")
        return str(error), ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return content[:MOST_SAID].decode("utf-8", "replace"), ""
