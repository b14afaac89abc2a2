"""How an answer is decoded: the settings that chat and completions share.

Beyond OpenAI's fields: the samplers, under the names that clients of vLLM, llama.cpp and
text-generation-webui send them by. What each does, and its range, is said in
`bottega.generate.sampling`, which checks them all.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bottega.serve.protocol.wire import Harmless, Unsupported, Wire

MAX_STOPS = 16
MAX_CHOICES = 128
MAX_WORDS = 1024


def _stop_list(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    if isinstance(stops, list) and (len(stops) > MAX_STOPS or "" in stops):
        raise ValueError(f"at most {MAX_STOPS} texts, none of them empty")
    return stops


StopTexts = Annotated[list[str] | None, BeforeValidator(_stop_list, json_schema_input_type=str | list[str] | None)]


class StreamOptions(Wire):
    """Settings of a streamed answer."""

    include_usage: bool = False
    """Send the token counts in one more chunk before [DONE]."""
    include_obfuscation: Unsupported = None


class Samplers(Wire):
    """How the next token is drawn; what is left out is off."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    """0 is greedy; the default is 1."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    """Keep the k most likely tokens; 0 and -1 keep all."""
    min_p: float | None = Field(default=None, ge=0, lt=1)
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    top_n_sigma: float | None = None
    top_a: float | None = None
    top_h: float | None = None
    tfs: float | None = None
    """Tail-free sampling; 1 is off."""
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    mirostat: int | None = None
    """0 is off, 1 and 2 are the paper's two versions."""
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty_range: int | None = None
    """The three penalties look at the last so many tokens; 0: at all."""
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_range: int | None = None
    """DRY looks at the last so many tokens; 0: at all."""
    dry_sequence_breakers: list[str] | None = Field(default=None, max_length=32)
    """What ends a repeat; the default is that of llama.cpp."""
    no_repeat_ngram_size: int | None = None
    logit_bias: dict[str, float] | None = Field(default=None, max_length=MAX_WORDS)
    """Token id → what is added to its logit, -100 to 100."""
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = Field(default=None, max_length=MAX_WORDS)
    samplers: list[str] | None = Field(default=None, max_length=64)
    """The order of the samplers, or ["llama.cpp"] for that program's; the default is transformers'."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Choice i of an answer draws with seed + i."""

    @field_validator("logit_bias")
    @classmethod
    def _biases(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for token, bias in (value or {}).items():
            if not (token.isascii() and token.isdigit() and len(token) < 10):
                raise ValueError(f"{token!r} is no token id")
            if not -100 <= bias <= 100:
                raise ValueError("a bias is -100 to 100")
        return value


class Decoding(Samplers, Harmless):
    """What both endpoints share."""

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    min_tokens: int | None = Field(default=None, ge=0)
    ignore_eos: bool | None = None
    stop: StopTexts = None
    """One text or several; the answer ends before the first that appears."""
    stop_token_ids: list[int] | None = None
    stop_regex: str | None = None
    include_stop_str_in_output: bool | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' is only allowed together with 'stream': true")
        return self

    @property
    def wants_usage_chunk(self) -> bool:
        """Whether a streamed answer ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage
