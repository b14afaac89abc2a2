"""POST /v1/completions, as it comes in."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from bottega.serve.protocol.decoding import MAX_CHOICES, Decoding
from bottega.serve.protocol.structured import Structured
from bottega.serve.protocol.wire import MAX_TOP_LOGPROBS, Prompts, TextOrIds, Unsupported, prompt_list


class CompletionRequest(Structured, Decoding):
    """POST /v1/completions."""

    prompt: list[TextOrIds]
    """A text, token ids, or a list of these."""
    max_tokens: int | None = Field(default=None, ge=0)
    """0 only with `echo`: the prompt is scored, nothing is generated."""
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    echo: bool | None = None
    """Begin the answer with the prompt; with `logprobs`, also its log-probabilities."""
    best_of: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    """Generate so many and give the `n` whose tokens are the most probable on average."""
    suffix: Unsupported = None

    @field_validator("prompt", mode="before", json_schema_input_type=Prompts)
    @classmethod
    def _prompts(cls, value: Any) -> Any:
        return prompt_list(value)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("'max_tokens': 0 is only allowed together with 'echo': true")
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise ValueError("'best_of' must be at least 'n'")
        if self.best_of is not None and self.best_of > (self.n or 1) and self.stream:
            raise ValueError("'best_of' cannot be streamed: the best is known only at the end")
        return self

    @property
    def limit(self) -> int:
        """OpenAI's default for this endpoint is 16 tokens."""
        return self.max_tokens if self.max_tokens is not None else 16
