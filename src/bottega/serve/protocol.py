"""The wire format: OpenAI's API reference, the part of it that this server obeys.

Every field is either obeyed or refused; none is ignored. A field that OpenAI knows and we
do not is accepted only at the value that means "off". Fields that cannot change the answer
(`user`, `metadata` …) are listed one by one. Beyond OpenAI: `top_k`, `min_p`,
`repetition_penalty`, the facts under "bottega" of a model, and `/v1/render`.

`max_tokens` is an upper bound: an answer also ends where the context ends, with
`finish_reason` "length". A prompt that leaves no room for an answer is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_TOP_LOGPROBS = 20
MAX_STOPS = 16
# The template runs once for each turn over all before it, so the work grows with the square of their number.
MAX_MESSAGES = 1000


class Wire(BaseModel):
    """Base of what comes in: no unknown fields, no coercion of types, no NaN."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


class Reply(BaseModel):
    """Base of what goes out; only fields that were set are written."""

    model_config = ConfigDict(protected_namespaces=())


def _off(value: Any) -> Any:
    if value:
        raise ValueError("this server does not support it; leave it out")
    return value


Unsupported = Annotated[Any, AfterValidator(_off)]
"""A field of OpenAI's that is accepted only when it asks for nothing (null, 0, false, empty)."""


class StreamOptions(Wire):
    """Settings of a streamed answer."""

    include_usage: bool = False
    """Send the token counts in one more chunk before [DONE]."""
    include_obfuscation: Unsupported = None


class Harmless(Wire):
    """Fields that cannot change an answer of this server."""

    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Unsupported = None


class Decoding(Harmless):
    """What both endpoints share."""

    model: str
    temperature: float | None = Field(default=None, ge=0, le=2)
    """0 is greedy; the default is 1."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    """Keep the k most likely tokens; 0 and -1 keep all."""
    min_p: float | None = Field(default=None, ge=0, lt=1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: list[str] | None = None
    """One text or several; the answer ends before the first that appears."""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    presence_penalty: Unsupported = None
    frequency_penalty: Unsupported = None
    logit_bias: Unsupported = None

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_list(cls, value: Any) -> Any:
        stops = [value] if isinstance(value, str) else value
        if isinstance(stops, list) and (len(stops) > MAX_STOPS or "" in stops):
            raise ValueError(f"at most {MAX_STOPS} texts, none of them empty")
        return stops

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' is only allowed together with 'stream': true")
        return self

    @property
    def wants_usage_chunk(self) -> bool:
        """Whether a streamed answer ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatMessage(Wire):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """'developer' is OpenAI's newer word for 'system' and is treated as such."""
    content: str
    """Text, or a list of text parts."""

    @field_validator("content", mode="before")
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

    def as_message(self) -> dict[str, str]:
        """The message as chat templates know it."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class ChatRequest(Decoding):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """The newer name of max_tokens; without either the answer may fill the context."""
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    tools: Unsupported = None
    tool_choice: Literal["none"] | None = None
    functions: Unsupported = None
    audio: Unsupported = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    modalities: list[Literal["text"]] | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("'top_logprobs' is only allowed together with 'logprobs': true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("'max_tokens' and 'max_completion_tokens' say different things; send one of them")
        return self

    @property
    def limit(self) -> int | None:
        """The most tokens to generate, if the request says."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class CompletionRequest(Decoding):
    """POST /v1/completions."""

    prompt: str | list[int]
    """A text, a list with one text, or token ids."""
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    best_of: Literal[1] | None = None
    echo: Unsupported = None
    suffix: Unsupported = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_prompt(cls, value: Any) -> Any:
        if not isinstance(value, str) and not isinstance(value, list):
            raise ValueError("expected a text or a list of token ids")
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            return value[0]
        if isinstance(value, list) and any(type(item) is not int for item in value):
            raise ValueError("one prompt a request: a text, a list with one text, or a list of token ids")
        return value

    @property
    def limit(self) -> int:
        """OpenAI's default for this endpoint is 16 tokens."""
        return self.max_tokens if self.max_tokens is not None else 16


class RenderRequest(Wire):
    """POST /v1/render: what would the model read?"""

    model: str | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)
    prompt: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("send either 'messages' or 'prompt'")
        return self


class RenderedToken(Reply):
    """One token of a prompt."""

    id: int
    text: str
    special: bool


class Rendered(Reply):
    """Answer of /v1/render."""

    object: Literal["bottega.rendered_prompt"] = "bottega.rendered_prompt"
    text: str
    token_count: int
    context_length: int
    tokens: list[RenderedToken]


class Usage(Reply):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ModelFacts(Reply):
    """What this server says about its model beyond OpenAI's fields."""

    parameters: int
    context_length: int
    vocab_size: int
    num_hidden_layers: int
    hidden_size: int
    model_type: str
    has_chat_template: bool


class ModelCard(Reply):
    """One entry of /v1/models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "bottega"
    bottega: ModelFacts


class ModelList(Reply):
    """Answer of /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
