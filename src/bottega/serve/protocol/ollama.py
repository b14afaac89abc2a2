"""Requests of Ollama's API, as they come in (its reference: docs/api.md of github.com/ollama/ollama).

Options that are not sent have Ollama's defaults, not OpenAI's. An option that says how a model is loaded is
accepted only at the value that leaves it as it is: the server's own settings decide that.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator

from bottega.serve.protocol.chat import MAX_MESSAGES, ChatRequest
from bottega.serve.protocol.completions import CompletionRequest
from bottega.serve.protocol.decoding import Samplers, StopTexts
from bottega.serve.protocol.structured import MAX_TOOLS, Tool
from bottega.serve.protocol.wire import MAX_INPUTS, MAX_TOP_LOGPROBS, Unsupported, Wire

_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = r"^-?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+)$"
FOREVER = 1e10


def _seconds(value: Any) -> float:
    """A number of seconds, or Go's notation ("1h30m"); below zero: for ever."""
    seconds: Any = value
    if isinstance(value, str) and re.fullmatch(_DURATION, value):
        total = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))
        seconds = -1.0 if value.startswith("-") else total
    if type(seconds) not in (int, float) or not math.isfinite(seconds):
        raise ValueError('expected seconds, or a duration such as "5m"; below zero: for ever')
    return FOREVER if seconds < 0 else min(float(seconds), FOREVER)


KeepAlive = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": _DURATION}]}),
]
"""How long the model stays loaded when nobody asks for it; FOREVER for a negative one."""


def _number_to_predict(value: int) -> int:
    if value == 0 or value < -2:
        raise ValueError("expected 1 or more, or -1 or -2: up to the end of the context")
    return value


class Options(Wire):
    """Settings of one request."""

    num_predict: Annotated[int, AfterValidator(_number_to_predict)] = -1
    temperature: float = Field(default=0.8, ge=0, le=2)
    top_k: int = Field(default=40, ge=-1)
    """0 and -1 keep all."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, lt=1)
    typical_p: float = Field(default=1.0, gt=0, le=1)
    tfs_z: float = Field(default=1.0, gt=0, le=1)
    repeat_penalty: float = Field(default=1.1, ge=0.01, le=100)
    repeat_last_n: int = Field(default=64, ge=-1)
    """The penalties look at the last so many tokens; 0: they are off; -1: at all."""
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    mirostat: int = Field(default=0, ge=0, le=2)
    mirostat_tau: float | None = Field(default=None, ge=0, le=100)
    mirostat_eta: float | None = Field(default=None, ge=0, le=10)
    seed: int = Field(default=-1, ge=-1, lt=2**63)
    """-1: a new one each time."""
    stop: StopTexts = None
    num_ctx: int | None = Field(default=None, ge=1)
    """Room for prompt and answer; more than the model has here is refused."""
    num_keep: int | None = None
    """What to keep when the context is full. It is never cut here, so this changes nothing."""
    num_batch: int | None = Field(default=None, ge=1)
    """How a prompt is cut into steps. No answer depends on it here, so this changes nothing."""
    use_mmap: bool | None = None
    """How weights are read. No answer depends on it, so this changes nothing."""
    num_thread: Literal[0] | None = None
    """Only 0 (the server decides): `--threads` says how many."""
    num_gpu: Literal[-1] | None = None
    """Only -1 (the server decides): `--device` says where."""
    main_gpu: Literal[0] | None = None
    penalize_newline: Literal[True] | None = None
    f16_kv: None = None
    numa: Unsupported = None
    low_vram: Unsupported = None
    use_mlock: Unsupported = None
    vocab_only: Unsupported = None
    logits_all: Unsupported = None
    embedding_only: Unsupported = None
    draft_num_predict: Unsupported = None

    def as_openai(self) -> dict[str, Any]:
        """The same settings under the names of OpenAI's routes."""
        values: dict[str, Any] = {
            "temperature": self.temperature,
            "min_p": self.min_p,
            "typical_p": self.typical_p,
            "tfs": self.tfs_z,
            "mirostat": self.mirostat,
            "mirostat_tau": self.mirostat_tau,
            "mirostat_eta": self.mirostat_eta,
            "stop": self.stop,
            "seed": self.seed if self.seed >= 0 else None,
            "max_tokens": self.num_predict if self.num_predict > 0 else None,
        }
        for name in ("top_k", "top_p"):  # mirostat replaces them, where they were not asked for
            if not self.mirostat or name in self.model_fields_set:
                values[name] = getattr(self, name)
        if self.repeat_last_n:
            values |= {
                "repetition_penalty": self.repeat_penalty,
                "presence_penalty": self.presence_penalty,
                "frequency_penalty": self.frequency_penalty,
                "repetition_penalty_range": max(self.repeat_last_n, 0),
            }
        return {name: value for name, value in values.items() if value is not None}


class OllamaFunction(Wire):
    """The function of a call; `arguments` is an object."""

    name: str
    arguments: dict[str, Any]
    index: int | None = None
    description: str | None = None


class OllamaCall(Wire):
    """A call that an earlier answer made."""

    id: str | None = None
    type: Literal["function"] | None = None
    function: OllamaFunction


class OllamaMessage(Wire):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[OllamaCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    images: Unsupported = None

    def as_openai(self, place: int) -> dict[str, Any]:
        """The same message of /v1/chat/completions; the one at `place` gives its calls their names."""
        message: dict[str, Any] = {"role": self.role, "content": self.content or ""}
        named = {"reasoning_content": self.thinking, "name": self.tool_name, "tool_call_id": self.tool_call_id}
        message |= {name: value for name, value in named.items() if value}
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id or f"call_{place}_{index}",
                    "function": {"name": call.function.name, "arguments": json.dumps(call.function.arguments)},
                }
                for index, call in enumerate(self.tool_calls)
            ]
        return message


class Generating(Wire):
    """What the two routes share."""

    model: str = Field(min_length=1)
    stream: bool | None = None
    """Unless it is false, the answer is streamed."""
    format: Any = None
    """"json", or a JSON Schema."""
    options: Options | None = None
    keep_alive: KeepAlive | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    think: bool | None = None
    """Only false, for a model that does not think by itself."""
    truncate: Literal[False] | None = None
    """Nothing is cut off silently."""
    shift: Literal[False] | None = None
    """The context does not move on: an answer ends where it is full."""

    @field_validator("think")
    @classmethod
    def _thinks_not(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("this server does not switch thinking on; leave it out")
        return value

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("", "json"):
            raise ValueError('expected "json" or a JSON Schema')
        if value is not None and not isinstance(value, str | dict):
            raise ValueError('expected "json" or a JSON Schema')
        return value

    @property
    def settings(self) -> Options:
        """The options, or their defaults."""
        return self.options or Options()

    def common(self) -> dict[str, Any]:
        """The fields that OpenAI's routes have too."""
        values = {"model": self.model, **self.settings.as_openai()}
        if self.format == "json":
            values["response_format"] = {"type": "json_object"}
        elif self.format:
            values["response_format"] = {"type": "json_schema", "json_schema": {"schema": self.format}}
        return values


class OllamaChat(Generating):
    """POST /api/chat."""

    messages: list[OllamaMessage] = Field(default=[], max_length=MAX_MESSAGES)
    """None: the model is only loaded, or with `keep_alive` 0 unloaded."""
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)

    def as_chat(self) -> ChatRequest:
        """The same request to /v1/chat/completions."""
        messages = [message.as_openai(place) for place, message in enumerate(self.messages)]
        tools = [tool.model_dump(exclude_none=True) for tool in self.tools or ()]
        extra: dict[str, Any] = {"tools": tools} if tools else {}
        return _chat(self, messages, **extra)


class OllamaGenerate(Generating):
    """POST /api/generate."""

    prompt: str | None = None
    """None: the model is only loaded, or with `keep_alive` 0 unloaded."""
    system: str | None = None
    raw: bool | None = None
    """The prompt is a text to continue, and not a question for the model's chat template."""
    suffix: Unsupported = None
    template: Unsupported = None
    context: Unsupported = None
    images: Unsupported = None
    width: Unsupported = None
    height: Unsupported = None
    steps: Unsupported = None

    def as_chat(self) -> ChatRequest:
        """The same request to /v1/chat/completions."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        return _chat(self, [*messages, {"role": "user", "content": self.prompt}])

    def as_completion(self) -> CompletionRequest:
        """The same request to /v1/completions."""
        return CompletionRequest.model_validate({**self.common(), "prompt": self.prompt})


class EmbedRequest(Wire):
    """POST /api/embed."""

    model: str = Field(min_length=1)
    input: list[str] = Field(min_length=1, max_length=MAX_INPUTS)
    """A text, or several."""
    truncate: bool | None = None
    """A text that is too long is refused either way, never cut."""
    keep_alive: KeepAlive | None = None
    options: Options | None = None
    dimensions: Unsupported = None

    @field_validator("input", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class EmbeddingsRequest(Wire):
    """POST /api/embeddings, the older form."""

    model: str = Field(min_length=1)
    prompt: str
    keep_alive: KeepAlive | None = None
    options: Options | None = None


class ShowRequest(Wire):
    """POST /api/show."""

    model: str = Field(min_length=1)
    verbose: Unsupported = None


def _chat(request: Generating, messages: list[dict[str, Any]], **extra: Any) -> ChatRequest:
    told = {"logprobs": request.logprobs, "top_logprobs": request.top_logprobs}
    told = {name: value for name, value in told.items() if value is not None}
    return ChatRequest.model_validate({**request.common(), "messages": messages, **told, **extra})


_SAME = "|".join(sorted(set(Samplers.model_fields) & set(Options.model_fields)))
# What a refusal on OpenAI's routes calls a field, and how it is called here.
OPENAI_NAMES = (
    (re.compile(r"response_format(\.json_schema(\.schema)?)?"), "format"),
    (re.compile(r"\brepetition_penalty_range\b"), "options.repeat_last_n"),
    (re.compile(r"\brepetition_penalty\b"), "options.repeat_penalty"),
    (re.compile(r"\btfs\b"), "options.tfs_z"),
    (re.compile(rf"(?<![.\w])({_SAME})\b"), r"options.\1"),
)
