"""POST /v1/responses, as it comes in: the stateless part of OpenAI's Responses API.

The server keeps nothing between two requests. So `store` may be left out or false (the answer says `"store":
false`) and is refused at true, and the conversation comes as `input` each time. What runs at OpenAI only
(hosted tools, background work, reasoning with a set effort) is refused by name.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from bottega.serve.protocol.chat import MAX_MESSAGES, ChatRequest, ObjectText
from bottega.serve.protocol.structured import MAX_TOOLS, FunctionName
from bottega.serve.protocol.wire import MAX_TOP_LOGPROBS, Harmless, Unsupported, Wire

LOGPROBS = "message.output_text.logprobs"


class ResponsesText(Wire):
    """A piece of a message's text; the last two are there in parts of an earlier answer."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: Unsupported = None
    logprobs: list[Any] | None = None


def _joined(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    try:
        return "".join(ResponsesText.model_validate(part).text for part in value)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ValueError(f"only parts of text are supported ({where}: {problem['msg']})") from None


Content = Annotated[str, BeforeValidator(_joined, json_schema_input_type=str | list[ResponsesText])]
"""A text, or the parts of one."""


class InputMessage(Wire):
    """A message of the conversation, or of an earlier answer."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: Unsupported = None


class FunctionCall(Wire):
    """A call that an earlier answer made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: ObjectText
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class FunctionCallOutput(Wire):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


def _kind(item: Any) -> str:
    kind = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", "message")
    return f"({kind})"


# Tags stand in parentheses, by which `field_path` knows that they are no field's name.
Item = Annotated[
    Annotated[InputMessage, Tag("(message)")]
    | Annotated[FunctionCall, Tag("(function_call)")]
    | Annotated[FunctionCallOutput, Tag("(function_call_output)")],
    Discriminator(_kind),
]


class FunctionTool(Wire):
    """A function that the model may call."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments."""
    strict: bool | None = None


class NamedFunction(Wire):
    """One function by its name."""

    type: Literal["function"]
    name: str


class AllowedTools(Wire):
    """Some of the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedFunction]


class TextFormat(Wire):
    """What the answer must be; the other fields belong to `json_schema`."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Any = Field(default=None, alias="schema")
    strict: bool | None = None


class TextSettings(Wire):
    """Settings of the answer's text."""

    format: TextFormat | None = None
    verbosity: Unsupported = None


class ResponsesStreamOptions(Wire):
    """Settings of a streamed answer."""

    include_obfuscation: Unsupported = None


class ResponsesRequest(Harmless):
    """POST /v1/responses."""

    model: str
    input: list[Item] = Field(min_length=1, max_length=MAX_MESSAGES)
    """A text of the user's, or the conversation."""
    instructions: str | None = None
    """Stands before the input as a system message."""
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    include: list[Literal["message.output_text.logprobs"]] | None = None
    text: TextSettings | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = False
    stream_options: ResponsesStreamOptions | None = None
    truncation: Literal["disabled"] | None = None
    """Nothing is cut off silently."""
    access_programs: Unsupported = None
    background: Unsupported = None
    background_options: Unsupported = None
    context_management: Unsupported = None
    conversation: Unsupported = None
    image: Unsupported = None
    max_tool_calls: Unsupported = None
    moderation: Unsupported = None
    previous_response_id: Unsupported = None
    prompt: Unsupported = None
    prompt_cache_options: Unsupported = None
    prompt_cache_retention: Unsupported = None
    reasoning: Unsupported = None

    @field_validator("store", mode="before")
    @classmethod
    def _not_stored(cls, value: Any) -> Any:
        if value not in (None, False):
            raise ValueError("nothing is stored here; leave it out, and send the conversation as 'input'")
        return value

    @field_validator("input", mode="before", json_schema_input_type=str | list[Item])
    @classmethod
    def _items(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [{"role": "user", "content": value}]
        return _of_kinds(value, "message", "function_call", "function_call_output")

    @field_validator("tools", mode="before", json_schema_input_type=list[FunctionTool] | None)
    @classmethod
    def _functions(cls, value: Any) -> Any:
        return _of_kinds(value, "function")

    @field_validator("tool_choice", mode="wrap")
    @classmethod
    def _choice(cls, value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
        try:
            return parse(value)
        except ValidationError:
            raise ValueError(
                'expected "none", "auto", "required", {"type": "function", "name": …} or '
                '{"type": "allowed_tools", "mode": …, "tools": […]}'
            ) from None

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.top_logprobs is not None and not self.wants_logprobs:
            raise ValueError(f"'top_logprobs' is only allowed together with 'include': [{LOGPROBS!r}]")
        return self

    @property
    def wants_logprobs(self) -> bool:
        """Whether the tokens' log-probabilities are told."""
        return LOGPROBS in (self.include or ())

    def as_chat(self) -> ChatRequest:
        """The same request to /v1/chat/completions."""
        values: dict[str, Any] = {
            "model": self.model,
            "messages": self._messages(),
            "max_completion_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "logprobs": self.wants_logprobs,
            "top_logprobs": self.top_logprobs,
            "tools": [_nested(tool.model_dump(exclude_none=True)) for tool in self.tools] if self.tools else None,
            "tool_choice": self._tool_choice(),
            "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": self._response_format(),
        }
        return ChatRequest.model_validate({name: value for name, value in values.items() if value is not None})

    def _messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self.instructions is not None:
            messages.append({"role": "system", "content": self.instructions})
        for item in self.input:
            if isinstance(item, InputMessage):
                messages.append({"role": item.role, "content": item.content})
            elif isinstance(item, FunctionCallOutput):
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": item.output})
            else:  # calls belong to the message before them, if that is the model's
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                function = {"name": item.name, "arguments": item.arguments}
                messages[-1].setdefault("tool_calls", []).append({"id": item.call_id, "function": function})
        return messages

    def _tool_choice(self) -> Any:
        choice = self.tool_choice
        if isinstance(choice, NamedFunction):
            return _nested(choice.model_dump())
        if isinstance(choice, AllowedTools):
            tools = [_nested(tool.model_dump()) for tool in choice.tools]
            return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}
        return choice

    def _response_format(self) -> dict[str, Any] | None:
        form = self.text.format if self.text is not None else None
        if form is None:
            return None
        values = form.model_dump(exclude_none=True, by_alias=True)
        kind = values.pop("type")
        return {"type": kind, "json_schema": values} if kind == "json_schema" else {"type": kind, **values}


# What a refusal of the same chat calls a field, and how it is called here.
CHAT_NAMES = (
    (re.compile(r"response_format(\.json_schema)?"), "text.format"),
    (re.compile(r"max_completion_tokens"), "max_output_tokens"),
    (re.compile(r"(tools\[\d+\])\.function"), r"\1"),
    (re.compile(r"messages(\[\d+\])?"), "input"),
)


def _of_kinds(value: Any, *kinds: str) -> Any:
    """`value`, a list; raises ValueError naming an entry's type that is none of `kinds` (the first is the default)."""
    for entry in value if isinstance(value, list) else ():
        kind = entry.get("type", kinds[0]) if isinstance(entry, dict) else kinds[0]
        if kind not in kinds:
            raise ValueError(f"the type {kind!r} is not supported here; supported: {', '.join(kinds)}")
    return value


def _nested(tool: dict[str, Any]) -> dict[str, Any]:
    """A function as /v1/chat/completions has it: what is said of it under `function`."""
    return {"type": tool.pop("type"), "function": tool}
