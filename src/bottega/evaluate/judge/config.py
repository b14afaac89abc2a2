"""Settings of the verb `judge`. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from bottega.clients import endpoint
from bottega.clients.endpoint import base_url
from bottega.core.schema import Compute, Seed

KEY_VARIABLE = "BOTTEGA_API_KEY"
OURS = frozenset({"model", "messages", "stream", "n"})
Mode = Literal["single", "pairwise", "mt-bench"]


def parse_extra(text: str) -> dict[str, Any]:
    """The JSON object of --extra; raises ValueError if it is none, or has fields that are not the user's to set."""
    return endpoint.parse_extra(text, OURS, "the judge")


def _extra(text: str) -> str:
    parse_extra(text)
    return text


def is_url(judge: str) -> bool:
    """Whether the judge is an endpoint, and not a model folder."""
    return judge.startswith(("http://", "https://"))


class JudgeAnswers(Compute):
    """Let a language model judge answers: scores, or comparisons in both orders, with the judge's own biases."""

    sections = {
        "answers": "Judging",
        "judge": "Judge",
        "api_key": "Endpoint",
        "device": "Model and machine",
        "votes": "Report",
    }
    without_effect = frozenset({"api_key", "api_key_env", "timeout", "retries", "concurrency", "reuse", "store"})

    answers: list[Path] = Field(min_length=1)
    """Answers of models, JSON lines of ours or FastChat's; or evaluation folders (their items.jsonl)."""
    mode: Mode = "single"
    """single: 1 to 10 for the last answer; pairwise: two models, both orders; mt-bench: 1 to 10 for every turn."""
    questions: Path | None = None
    """File of questions, where the answers come without them (FastChat's question.jsonl)."""
    reference: Path | None = None
    """File of right answers, for the judge to hold the answers against."""
    baseline: str | None = None
    """pairwise: compare every model with this one (default: all pairs)."""
    limit: int | None = Field(default=None, ge=1)
    """Judge only the first LIMIT questions."""
    judge: str
    """The judge: URL of an OpenAI-compatible endpoint, or a model folder (or org/name of the hub)."""
    judge_model: str | None = None
    """Model to ask for at the endpoint (default: the one that it lists)."""
    prompts: Path | None = None
    """Judge's prompts in place of ours, in the format of FastChat's judge_prompts.jsonl."""
    max_tokens: int = Field(default=2048, ge=1)
    """Longest judgement, in tokens."""
    temperature: float = Field(default=0.0, ge=0)
    """0: the judge's most probable words."""
    concurrency: int = Field(default=8, ge=1, le=1024)
    """Judgements that are under way at once."""
    reuse: bool = True
    """Take judgements that were made before, by the same judge of the same prompt."""
    store: Path | None = None
    """Folder of judgements made before (default: WORKSPACE/judgements)."""
    api_key: str | None = Field(default=None, min_length=1, repr=False)
    """Key of the endpoint; others on this machine can see it in the command, a variable is better."""
    api_key_env: str | None = Field(default=None, min_length=1)
    """Environment variable that holds the key (default: BOTTEGA_API_KEY, if it is set)."""
    timeout: float = Field(default=300.0, gt=0)
    """Seconds to wait for an answer of the endpoint."""
    retries: int = Field(default=5, ge=0)
    """Further attempts when the endpoint is overloaded, or fails."""
    extra: Annotated[str, AfterValidator(_extra)] | None = None
    """More fields of each request as a JSON object; null leaves one out, as in {"max_tokens": null}."""
    votes: list[Path] = []
    """Files of people's votes on the same answers, for the judge to be held against."""
    out: Path | None = None
    """Folder to write judge.json, judgements.jsonl, votes.jsonl and report.html into (default: only show)."""
    overwrite: bool = False
    """Replace OUT if it exists already."""
    seed: Seed = 0
    """Seed of the bootstrap, and of the draws of a local judge with a temperature."""

    @model_validator(mode="after")
    def _consistent(self) -> JudgeAnswers:
        of_endpoint = ("judge_model", "api_key", "api_key_env", "timeout", "retries", "extra")
        of_folder = ("device", "dtype", "threads")
        given = of_folder if is_url(self.judge) else of_endpoint
        if wrong := next((name for name in given if name in self.model_fields_set), None):
            kind = "a model folder" if is_url(self.judge) else "an endpoint"
            raise ValueError(f"{wrong} is for {kind} as judge")
        if is_url(self.judge):
            base_url(self.judge)
        if self.api_key is not None and self.api_key_env is not None:
            raise ValueError("api_key and api_key_env are both set: give one")
        if self.baseline is not None and self.mode != "pairwise":
            raise ValueError("baseline is for mode pairwise")
        if not self.reuse and self.store is not None:
            raise ValueError("store is for judgements to be reused: leave it out, or --no-reuse")
        return self

    def as_data(self) -> dict[str, Any]:
        """Plain JSON-able values with the API key masked: plans and records hold them."""
        data = super().as_data()
        return data | {"api_key": "(set)"} if self.api_key is not None else data
