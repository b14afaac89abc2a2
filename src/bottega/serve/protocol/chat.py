"""POST /v1/chat/completions, as it comes in.

`max_tokens` is an upper bound: an answer also ends where the context ends, with
`finish_reason` "length". A prompt that leaves no room for an answer is refused.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from bottega.serve.protocol.decoding import Decoding
from bottega.serve.protocol.structured import MAX_TOOLS, Structured, Tool
from bottega.serve.protocol.wire import MAX_TOP_LOGPROBS, Unsupported, Wire

# The template runs once for each turn over all before it, so the work grows with the square of their number.
MAX_MESSAGES = 1000


def _object_text(value: str) -> str:
    try:
        parsed = json.loads(value or "{}")
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError("expected the text of a JSON object")
    return value


ObjectText = Annotated[str, AfterValidator(_object_text)]
"""The text of a JSON object."""


class CalledFunction(Wire):
    """The function that a message called; `arguments` is the text of a JSON object."""

    name: str
    arguments: ObjectText


class ToolCall(Wire):
    """A call that an earlier answer made."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None

    def as_data(self) -> dict[str, Any]:
        """The call as chat templates know it: the arguments are an object."""
        arguments = json.loads(self.function.arguments or "{}")
        return {"id": self.id, "type": "function", "function": {"name": self.function.name, "arguments": arguments}}


class TextPart(Wire):
    """A piece of a message's text."""

    type: Literal["text"]
    text: str


class ChatMessage(Wire):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """'developer' is OpenAI's newer word for 'system' and is treated as such."""
    content: str | None = None
    """Text, or a list of text parts."""
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: Unsupported = None
    annotations: Unsupported = None
    audio: Unsupported = None
    function_call: Unsupported = None

    @field_validator("content", mode="before", json_schema_input_type=str | list[TextPart] | None)
    @classmethod
    def _join_parts(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        texts: list[str] = []
        for part in value:
            if not isinstance(part, dict) or set(part) != {"type", "text"} or part["type"] != "text":
                raise ValueError("only parts of the form {'type': 'text', 'text': …} are supported")
            if not isinstance(part["text"], str):
                raise ValueError("the text of a part must be a string")
            texts.append(part["text"])
        return "".join(texts)

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        for field, role in (
            ("tool_calls", "assistant"), ("reasoning_content", "assistant"), ("tool_call_id", "tool")
        ):  # fmt: skip
            if getattr(self, field) is not None and self.role != role:
                raise ValueError(f"{field!r} belongs to messages of the role {role!r}")
        if self.content is None and not self.tool_calls:
            raise ValueError("'content' is missing")
        return self

    def as_message(self) -> dict[str, Any]:
        """The message as chat templates know it."""
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self.content or "",
        }
        for field in ("name", "tool_call_id", "reasoning_content"):
            if getattr(self, field) is not None:
                message[field] = getattr(self, field)
        if self.tool_calls:
            message["tool_calls"] = [call.as_data() for call in self.tool_calls]
        return message


class Conversation(Wire):
    """What a chat's prompt is made of."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)

    def tool_data(self) -> list[dict[str, Any]]:
        """The tools as plain data."""
        return [tool.model_dump(exclude_none=True) for tool in self.tools or []]


class ChatRequest(Conversation, Structured, Decoding):
    """POST /v1/chat/completions."""

    max_completion_tokens: int | None = Field(default=None, ge=1)
    """The newer name of max_tokens; without either the answer may fill the context."""
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    tool_choice: Any = None
    """"none", "auto", "required", one function by name, or a list of allowed tools."""
    parallel_tool_calls: bool | None = None
    functions: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None
    prediction: Unsupported = None
    web_search_options: Unsupported = None
    modalities: list[Literal["text"]] | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("'top_logprobs' is only allowed together with 'logprobs': true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("'max_tokens' and 'max_completion_tokens' say different things; send one of them")
        return self

    @property
    def calls_tools(self) -> bool:
        """Whether the answer may consist of tool calls."""
        return bool(self.tools) and self.tool_choice != "none"

    def form(self) -> dict[str, Any]:
        """The fields that give the answer its form, as plain data."""
        tools = {"tools": self.tool_data() or None, "tool_choice": self.tool_choice}
        return super().form() | tools | {"parallel_tool_calls": self.parallel_tool_calls}

    @property
    def limit(self) -> int | None:
        """The most tokens to generate, if the request says."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
