"""Requests and replies of /v1/embeddings and of /v1/score (ours: log-likelihoods of given continuations)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from bottega.serve.protocol.wire import MAX_INPUTS, Harmless, Prompts, Reply, TextOrIds, Unsupported, Wire, prompt_list


class EmbeddingRequest(Harmless):
    """POST /v1/embeddings."""

    model: str
    input: list[TextOrIds]
    """A text, token ids, or a list of these."""
    encoding_format: Literal["float", "base64"] | None = None
    """base64 is that of the float32 numbers, little-endian."""
    dimensions: Unsupported = None

    @field_validator("input", mode="before", json_schema_input_type=Prompts)
    @classmethod
    def _inputs(cls, value: Any) -> Any:
        return prompt_list(value)


class ScoreRequest(Wire):
    """POST /v1/score: how likely is each continuation of the context?"""

    model: str
    context: TextOrIds
    continuations: list[TextOrIds] = Field(min_length=1, max_length=MAX_INPUTS)
    """Texts stand right behind the context: a space between words belongs to the continuation."""


class Score(Reply):
    """One continuation; log-probabilities in nats."""

    index: int
    logprob: float
    """Sum over the tokens."""
    is_greedy: bool
    """Whether greedy decoding would have given exactly this continuation."""
    tokens: list[str]
    token_ids: list[int]
    token_logprobs: list[float]
