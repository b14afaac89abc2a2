"""What the routes answer, as the OpenAPI document says it; a field that stands in no model here is in no answer.

The answers themselves are built where the pieces come in (`answers`, `responses_answers`, `ollama_answers`): the
tests hold them against these models.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from bottega.serve.protocol.scoring import Score
from bottega.serve.protocol.tokens import Reply

Counts = dict[str, int]


class Exact(Reply):
    """No other fields."""

    model_config = ConfigDict(extra="forbid")


class Failure(Exact):
    """What was wrong; `param` is the path of the field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Exact):
    """A refusal, or a failure of the server's."""

    error: Failure


class OllamaErrorReply(Exact):
    """The same under /api."""

    error: str
    type: str
    param: str | None
    code: str | None


class Structure(Exact):
    """Whether an answer that was to have a form has it."""

    valid: bool
    error: str | None = None
    notes: list[str] | None = None


class Usage(Exact):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int | None = None
    total_tokens: int
    prompt_tokens_details: Counts | None = None
    completion_tokens_details: Counts | None = None


class TokenScore(Exact):
    """A token and its log-probability in nats; `bytes` are its UTF-8, if it is whole characters."""

    token: str
    logprob: float
    bytes: list[int] | None


class ScoredToken(TokenScore):
    """A token of the answer, and those that were likeliest in its place."""

    top_logprobs: list[TokenScore]


class ChatLogprobs(Exact):
    """One entry for each token that is shown."""

    content: list[ScoredToken]
    refusal: None


class WrittenFunction(Exact):
    """A function that the model calls; `arguments` is JSON as the model wrote it."""

    name: str
    arguments: str


class WrittenCall(Exact):
    """A call that the model makes."""

    id: str
    type: Literal["function"]
    function: WrittenFunction


class AssistantMessage(Exact):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[WrittenCall] | None = None


class ChatChoiceReply(Exact):
    """One of the answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    structure: Structure | None = None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(Exact):
    """Answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoiceReply]
    usage: Usage


class TextLogprobs(Exact):
    """Columns with one entry for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoiceReply(Exact):
    """One of the continuations."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    structure: Structure | None = None
    finish_reason: Literal["stop", "length"]


class TextCompletion(Exact):
    """Answer of /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoiceReply]
    usage: Usage


class Embedding(Exact):
    """The vector of one input; base64 is that of float32 numbers, little-endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(Exact):
    """Answer of /v1/embeddings."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ScoreList(Exact):
    """Answer of /v1/score."""

    object: Literal["list"]
    model: str
    data: list[Score]
    usage: Usage


class TokenIds(Exact):
    """Answer of /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str]


class Detokenized(Exact):
    """Answer of /detokenize."""

    prompt: str


class Health(Exact):
    """Whether the server can be used; the numbers are answers under way."""

    status: Literal["ok", "unavailable"]
    running: int | None = None
    waiting: int | None = None


class OutputText(Exact):
    """The text of a message."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] = Field(max_length=0)
    logprobs: list[ScoredToken]


class OutputMessage(Exact):
    """What the model says."""

    id: str
    type: Literal["message"]
    status: Literal["completed", "incomplete"]
    role: Literal["assistant"]
    content: list[OutputText]


class OutputCall(Exact):
    """A call that the model makes."""

    id: str
    type: Literal["function_call"]
    status: Literal["completed", "incomplete"]
    call_id: str
    name: str
    arguments: str


class ResponsesUsage(Exact):
    """Tokens."""

    input_tokens: int
    input_tokens_details: Counts
    output_tokens: int
    output_tokens_details: Counts
    total_tokens: int


class ResponseReply(Exact):
    """Answer of /v1/responses; most of it is the request's, with its defaults."""

    id: str
    object: Literal["response"]
    created_at: int
    model: str
    status: Literal["completed", "incomplete"]
    error: None
    incomplete_details: dict[Literal["reason"], Literal["max_output_tokens"]] | None
    output: list[OutputMessage | OutputCall]
    usage: ResponsesUsage
    structure: Structure | None = None
    instructions: str | None
    metadata: dict[str, str]
    temperature: float
    top_p: float
    top_logprobs: int
    max_output_tokens: int | None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    text: dict[str, Any]
    truncation: Literal["disabled"]
    previous_response_id: None
    background: Literal[False]
    store: Literal[False]
    user: str | None


class CalledObject(Exact):
    """A function that the model calls."""

    index: int
    name: str
    arguments: dict[str, Any]


class OllamaCallReply(Exact):
    """A call that the model makes."""

    id: str
    function: CalledObject


class OllamaAnswerMessage(Exact):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    tool_calls: list[OllamaCallReply] | None = None


class OllamaEnd(Exact):
    """What both answers have; what the model generated is measured, in nanoseconds."""

    model: str
    created_at: str
    done: Literal[True]
    done_reason: Literal["stop", "length", "load", "unload"]
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[ScoredToken] | None = None
    structure: Structure | None = None


class OllamaChatReply(OllamaEnd):
    """Answer of /api/chat."""

    message: OllamaAnswerMessage


class OllamaGenerateReply(OllamaEnd):
    """Answer of /api/generate."""

    response: str


class OllamaEmbedReply(Exact):
    """Answer of /api/embed."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaEmbeddingReply(Exact):
    """Answer of /api/embeddings."""

    embedding: list[float]


class OllamaDetails(Exact):
    """How a model is stored."""

    parent_model: str
    format: Literal["safetensors", "gguf"]
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(Exact):
    """A model; `digest` is that of its headers."""

    name: str
    model: str
    size: int
    digest: str
    details: OllamaDetails
    modified_at: str | None = None
    expires_at: str | None = None
    size_vram: int | None = None
    context_length: int | None = None


class OllamaModels(Exact):
    """Answer of /api/tags and of /api/ps."""

    models: list[OllamaModel]


class OllamaShown(Exact):
    """Answer of /api/show."""

    modified_at: str
    details: OllamaDetails
    template: str
    license: str
    capabilities: list[str]
    model_info: dict[str, Any]


class OllamaVersion(Exact):
    """Answer of /api/version."""

    version: str
