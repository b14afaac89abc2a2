"""Settings of the verb `eval`. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from bottega.core.schema import OnModel, Seed, Writes

DEFAULT_CONTEXT = 2048
Prompt = Literal["auto", "chat", "plain"]


class EvaluateModel(OnModel):
    """Measure a model: likelihood of a text, distance to another model, multiple choice, simple baselines."""

    text: Path | None = None
    """Text to score: a text file, a .jsonl file with "text" in each row, or a corpus folder (its held-out part)."""
    against: str | None = None
    """Reference model to compare with on the same tokens."""
    questions: Path | None = None
    """Multiple-choice questions: a questions.jsonl file or a corpus folder."""
    baselines: Path | None = None
    """Training text (file, .jsonl or corpus folder) for unigram, bigram and xz on the same bytes."""
    context: int | None = Field(default=None, ge=2)
    """Tokens that the model sees at once (default: the model's own context, at most 2048)."""
    stride: int | None = Field(default=None, ge=1)
    """Tokens scored per window of a long document (default: half of --context)."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Score at most so many tokens: whole documents, drawn with --seed from all of them."""
    max_questions: int | None = Field(default=None, ge=1)
    """Ask only this many questions, drawn with --seed."""
    prompt: Prompt = "auto"
    """How questions are asked: chat (the model's template), plain (Question: … Answer:), auto (chat if it has one)."""
    xz_megabytes: int = Field(default=8, ge=1)
    """Megabytes of training text, from its end, that prime xz (about 0.7 s each)."""
    samples: int = Field(default=0, ge=0)
    """Answer this many questions of each group in full, to be read (without questions: continue held-out texts)."""
    out: Path | None = None
    """Folder to write evaluation.json and predictions.jsonl into (default: only show)."""
    overwrite: bool = False
    """Replace OUT if it exists already."""
    seed: Seed = 0
    """Seed of the bootstrap and of the drawing of documents and questions."""

    @model_validator(mode="after")
    def _consistent(self) -> EvaluateModel:
        if self.text is None and self.questions is None:
            raise ValueError("nothing to measure: give text, questions, or both")
        if self.text is None and (self.against is not None or self.baselines is not None):
            raise ValueError("against and baselines are measured on a text: give text too")
        if self.context is not None and self.stride is not None and self.stride > self.context:
            raise ValueError(f"stride {self.stride} is longer than context {self.context}: tokens would be skipped")
        return self


class ExtendContext(Writes, OnModel):
    """Give a model a longer context by scaling its rotary positions, and measure what it makes of it."""

    to: int = Field(ge=2)
    """The new context, in tokens."""
    method: Literal["yarn", "linear", "dynamic", "ntk"] = "yarn"
    """How: yarn, linear, dynamic (grows with the text), ntk (another base, once and for all)."""
    text: Path | None = None
    """Text to measure on: long documents are best (default: the language topics of this Python's documentation)."""
    tokens: int | None = Field(default=None, ge=2)
    """Tokens to measure on, in pieces of the new context (default: two pieces)."""
