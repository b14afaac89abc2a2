"""Settings of `bottega bench serve`. Imports no torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bottega.clients import endpoint
from bottega.core.errors import did_you_mean
from bottega.core.schema import Config, Seed

DEFAULT_REQUESTS = 100
INPUT_TOKENS, OUTPUT_TOKENS = 128, 64
GOALS = ("ttft", "tpot", "e2el")
OURS = frozenset({"model", "messages", "prompt", "stream"})  # of a request's body
ENDPOINTS = ("/v1", "/v1/chat/completions", "/v1/completions", "/v1/models")


def parse_goodput(text: str) -> dict[str, float]:
    """'ttft:500,tpot:50' → milliseconds by measure; raises ValueError that names what is wrong."""
    goals: dict[str, float] = {}
    for part in text.split(","):
        name, separator, value = (piece.strip() for piece in part.partition(":"))
        if not separator:
            raise ValueError(f"{part.strip()!r} is no goal: write MEASURE:MILLISECONDS, for example ttft:500,tpot:50")
        if name not in GOALS:
            raise ValueError(f"unknown measure {name!r}. {did_you_mean(name, GOALS)}")
        if name in goals:
            raise ValueError(f"{name!r} is given twice")
        try:
            goals[name] = float(value)
        except ValueError:
            raise ValueError(f"{name}: {value!r} is no number of milliseconds") from None
        if not 0 < goals[name] < math.inf:
            raise ValueError(f"{name}: a goal is above 0 ms, not {value}")
    return goals


def parse_extra(text: str) -> dict[str, Any]:
    """The JSON object of --extra; raises ValueError if it is none, or has fields that the load tool sets itself."""
    return endpoint.parse_extra(text, OURS, "the load tool")


def _base_url(url: str) -> str:
    """The URL without the path of an endpoint; raises ValueError if it is none of http."""
    endpoint.require_http(url)
    url = url.rstrip("/")
    return next((url.removesuffix(path) for path in reversed(ENDPOINTS) if url.endswith(path)), url)


def _checked_by(parse: Any) -> AfterValidator:
    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


class BenchServe(Config):
    """Settings of the load tool."""

    sections = {
        "url": "Server",
        "rate": "Load",
        "dataset": "Prompts and answers",
        "goodput": "Report",
        "seed": "Load",
        "out": "Report",
    }

    url: Annotated[str, AfterValidator(_base_url)]
    """The server, with or without /v1."""
    api_key: str | None = Field(default=None, min_length=1)
    """Key, sent as `Authorization: Bearer KEY`."""
    model: str | None = None
    """Model to ask for (default: the first of /v1/models)."""
    endpoint: Literal["auto", "chat", "completions"] = "auto"
    """What is asked: chat, completions, auto (chat, unless the server says that its model has no chat template)."""
    rate: float | None = Field(default=None, gt=0)
    """Arrivals per second, which do not wait for answers (open loop); inf: all requests at once."""
    burstiness: float = Field(default=1.0, gt=0, le=1000)
    """Shape of the gamma distribution between arrivals: 1 is Poisson, below it bursts, above it evenness."""
    concurrency: int | None = Field(default=None, ge=1)
    """Clients. Alone: each asks again once it has its answer (closed loop). With --rate: at most so many at a time."""
    requests: int | None = Field(default=None, ge=1)
    """Requests to send (default: 100, or as many as --duration holds)."""
    duration: float | None = Field(default=None, gt=0)
    """Seconds after which no request is sent any more; those under way are waited for."""
    warmup: int = Field(default=1, ge=0)
    """Requests sent one after the other before the measurement, and not counted."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds after which a request that has no full answer is given up."""
    disconnect: float = Field(default=0.0, ge=0, le=1)
    """Share of the clients that hang up in the middle of their answer."""
    dataset: Path | None = None
    """Prompts to send in turn: .jsonl with "prompt" or "messages" in each row (and "output_tokens", if it likes)."""
    input_tokens: int | None = Field(default=None, ge=1)
    """Tokens of a synthetic prompt: random words [default: 128]."""
    output_tokens: int = Field(default=OUTPUT_TOKENS, ge=1)
    """Tokens to ask for (max_tokens)."""
    spread: float = Field(default=0.0, ge=0, lt=1)
    """Lengths of synthetic prompts and of answers vary evenly by up to this share of themselves."""
    shared_prefix: int = Field(default=0, ge=0)
    """Of a synthetic prompt's tokens, so many at its beginning are the same in all prompts (for prefix caches)."""
    ignore_eos: bool = False
    """Ask the server to go on to the full length (its field ignore_eos)."""
    extra: Annotated[str, _checked_by(parse_extra)] | None = None
    """More fields of each request as a JSON object; null leaves a field out."""
    goodput: Annotated[str, _checked_by(parse_goodput)] | None = None
    """Goals in milliseconds: ttft:500,tpot:50,e2el:3000 or some of them. What meets all of them is good."""
    parameters: float | None = Field(default=None, gt=0)
    """Parameters that the model uses for a token, for FLOP/s (default: what the server says)."""
    weight_bytes: float | None = Field(default=None, gt=0)
    """Bytes of weights read in a decoding step, for GB/s (default: what the server says)."""
    seed: Seed = 0
    """Seed of arrivals, prompts, lengths, and of who hangs up."""
    out: Path | None = None
    """Folder to write report.html and results.json into (default: only show)."""
    overwrite: bool = False
    """Replace OUT if it exists already."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rate is None and self.concurrency is None:
            raise ValueError("no load is given: say --rate (requests per second, or inf) or --concurrency (clients)")
        if self.burstiness != 1 and (self.rate is None or math.isinf(self.rate)):
            raise ValueError("burstiness is about the times between arrivals: give a finite rate too")
        if self.rate == math.inf and self.requests is None and self.duration is not None:
            raise ValueError("rate inf sends all requests at once: say how many with requests, not duration")
        if self.dataset is not None and (self.input_tokens is not None or self.shared_prefix):
            raise ValueError("input_tokens and shared_prefix are of synthetic prompts: leave them out, or dataset")
        if self.shared_prefix > (self.input_tokens or INPUT_TOKENS) * (1 - self.spread):
            raise ValueError(f"shared_prefix {self.shared_prefix} is longer than the shortest prompt")
        return self

    @property
    def request_limit(self) -> float:
        """The most requests to send."""
        if self.requests is not None:
            return self.requests
        return DEFAULT_REQUESTS if self.duration is None else math.inf

    def as_data(self) -> dict[str, Any]:
        """Plain JSON-able values with the API key masked (plans and records hold them), an infinite rate as "inf"."""
        data = super().as_data()
        if self.api_key is not None:
            data["api_key"] = "(set)"
        if self.rate == math.inf:
            data["rate"] = "inf"
        return data
