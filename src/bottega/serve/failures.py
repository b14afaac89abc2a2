"""Errors on the wire, in OpenAI's shape, and under /api in Ollama's.

`{"error": {"message", "type", "param", "code"}}`, as in OpenAI's API reference ("Error
codes") and as its Python client parses them. `param` names the offending field by its path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bottega.core.errors import did_you_mean

_FIRST_NAME = re.compile(r"'(\w+)'")


class ApiError(Exception):
    """A request that cannot be served; `status` is the HTTP status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self, path: str = "") -> dict[str, Any]:
        """The JSON body for a request to `path`: Ollama's clients, under /api, read `error` as a text."""
        facts = {"type": self.kind, "param": self.param, "code": self.code}
        if path.startswith("/api/"):
            return {"error": self.message, **facts}
        return {"error": {"message": self.message, **facts}}

    def content(self, path: str = "") -> bytes:
        """The JSON body, encoded."""
        return json.dumps(self.body(path), ensure_ascii=False).encode("utf-8")


def server_error(message: str = "The server failed to answer; its log says why.") -> ApiError:
    """A failure of ours: status 500."""
    return ApiError(500, message, kind="server_error", code="internal_error")


def going_down() -> ApiError:
    """Status 503 while the server ends."""
    return ApiError(503, "The server is going down.", kind="server_error", code="going_down")


def queue_full(asked: int, running: int, waiting: int, capacity: int) -> ApiError:
    """Status 429 when the queue has no room; 400 for a request that it never has room for."""
    if asked > capacity:
        message = f"The request asks for {asked} answers at once; this server takes at most {capacity}. Ask for fewer."
        return ApiError(400, message, code="too_many_answers")
    return rate_limited(
        f"{running} answers are being generated and {waiting} wait, the most that may. Try again later.",
        code="queue_full",
    )


def rate_limited(message: str, *, code: str, retry_after: int = 1) -> ApiError:
    """Status 429; `retry_after` in seconds."""
    return ApiError(429, message, kind="rate_limit_error", code=code, headers={"Retry-After": str(max(retry_after, 1))})


def timed_out(seconds: float) -> ApiError:
    """Status 504 for an answer that took longer than --timeout."""
    message = f"The answer was not finished within {seconds:g} seconds, the most that this server gives one."
    return ApiError(504, message, kind="server_error", code="timeout")


def too_slow() -> ApiError:
    """For a client that does not read its stream."""
    return ApiError(408, "The answer was not read as it came and has been given up.", code="client_too_slow")


def field_path(location: Sequence[str | int]) -> str:
    """("messages", 0, "role") → 'messages[0].role'; "(kind)", which of several types was taken, is no field."""
    path = ""
    for part in location:
        if isinstance(part, str) and part.startswith("("):
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def from_validation(problems: Sequence[Mapping[str, Any]], known: Mapping[str, Any]) -> ApiError:
    """The first problem that pydantic found in a body, named by its field; `known` are the top-level fields."""
    problem = problems[0]
    location = [part for part in problem["loc"] if part != "body"]
    path = field_path(location)
    match problem["type"]:
        case "json_invalid":
            return ApiError(400, f"The body is not JSON: {problem['ctx']['error']}.", code="invalid_json")
        case "extra_forbidden":
            hint = did_you_mean(str(location[-1]), known) if len(location) == 1 else ""
            message = f"Unknown or unsupported field: {path!r}. This server obeys a field or refuses it. {hint}"
            return ApiError(400, message.rstrip(), param=path, code="unknown_parameter")
        case "missing":
            message = f"Missing field: {path!r}." if path else "The request needs a JSON body."
            return ApiError(400, message, param=path or None, code="missing_required_parameter")
        case _:
            text = str(problem["msg"]).removeprefix("Value error, ")
            if named := _FIRST_NAME.match(text):  # a rule about several fields of an object names the one to change
                path = field_path([*location, named[1]])
            where = f"Invalid value for {path!r}" if path else "Invalid request"
            return ApiError(400, f"{where}: {text}.", param=path or None, code="invalid_value")
