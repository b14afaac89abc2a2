"""Requests and replies of /tokenize, /detokenize and /v1/render, and the list of models."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bottega.serve.protocol.chat import MAX_MESSAGES, ChatMessage
from bottega.serve.protocol.structured import MAX_TOOLS, Tool
from bottega.serve.protocol.wire import Reply, Wire


class PromptSource(Wire):
    """A prompt in either form."""

    model: str | None = None
    """May be left out where one model is served."""
    messages: list[ChatMessage] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    prompt: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("send either 'messages' or 'prompt'")
        if self.tools and self.messages is None:
            raise ValueError("'tools' go with 'messages'")
        return self


class RenderRequest(PromptSource):
    """POST /v1/render: what would the model read?"""


class TokenizeRequest(PromptSource):
    """POST /tokenize: the ids of a prompt."""

    add_special_tokens: bool = True
    """Begin a `prompt` with what stands before a document (the BOS token, if the tokenizer adds one)."""


class DetokenizeRequest(Wire):
    """POST /detokenize: the text of token ids."""

    model: str | None = None
    tokens: list[int]


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


class ModelFacts(Reply):
    """What this server says about its model beyond OpenAI's fields."""

    parameters: int
    weight_bytes: float
    """Bytes of weights that a decoding step reads (of experts, those that one token meets)."""
    context_length: int
    vocab_size: int
    num_hidden_layers: int
    hidden_size: int
    model_type: str
    has_chat_template: bool
    loaded: bool


class ModelCard(Reply):
    """One entry of /v1/models; `parent` is the model that an adapter belongs to."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "bottega"
    parent: str | None = None
    bottega: ModelFacts


class ModelList(Reply):
    """Answer of /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
