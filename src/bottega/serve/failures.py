"""Errors on the wire, in OpenAI's shape.

`{"error": {"message", "type", "param", "code"}}`, as in OpenAI's API reference ("Error
codes") and as its Python client parses them. `param` names the offending field by its path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bottega.core.errors import did_you_mean


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

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def content(self) -> bytes:
        """The JSON body, encoded."""
        return json.dumps(self.body(), ensure_ascii=False).encode("utf-8")


def server_error(message: str = "The server failed to answer; its log says why.") -> ApiError:
    """A failure of ours: status 500."""
    return ApiError(500, message, kind="server_error", code="internal_error")


def field_path(location: Sequence[str | int]) -> str:
    """("messages", 0, "role") → 'messages[0].role'."""
    path = ""
    for part in location:
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
        case _ if not path:
            text = str(problem["msg"]).removeprefix("Value error, ")
            return ApiError(400, f"Invalid request: {text}.", code="invalid_value")
        case _:
            text = str(problem["msg"]).removeprefix("Value error, ")
            return ApiError(400, f"Invalid value for {path!r}: {text}.", param=path, code="invalid_value")
