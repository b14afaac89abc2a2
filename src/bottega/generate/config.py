"""Settings of the verbs `generate` and `chat`. Imports no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bottega.core.schema import OnModel, Seed
from bottega.generate.search.config import Searched


class OnEngine(OnModel):
    """How the engine runs a model."""

    weights: Literal["bfloat16", "int8", "int4"] | None = None
    """Keep the weights as this, on the CPU (default: as they are); int8 and int4 are not the same model any more."""
    cache_dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Keep keys and values as this (auto: the precision that is computed in)."""
    cache_tokens: int | None = Field(default=None, ge=1)
    """Tokens that the cache holds (default: full contexts for a full batch, within a quarter of the free memory)."""
    speculate: Literal["off", "lookup", "draft", "early-exit"] = "off"
    """Guess tokens ahead: from the text so far, by a smaller model, or by the first layers. Answers stay the same."""
    draft_model: str | None = None
    """Model that guesses, with --speculate draft."""
    draft_layers: int | None = Field(default=None, ge=1)
    """Layers that guess, with --speculate early-exit (default: a quarter)."""
    max_drafts: int = Field(default=8, ge=1, le=64)
    """Most tokens guessed at once; how many is adapted to what stands."""

    @model_validator(mode="after")
    def _drafts(self) -> Self:
        if (self.speculate == "draft") != (self.draft_model is not None):
            raise ValueError("--speculate draft and --draft-model go together")
        if self.draft_layers is not None and self.speculate != "early-exit":
            raise ValueError("--draft-layers needs --speculate early-exit")
        return self


class Sampled(OnEngine):
    """How tokens are chosen."""

    temperature: float = Field(default=1.0, ge=0)
    """0 takes the most probable token each time; 1 draws from the model's distribution."""
    top_k: int = Field(default=0, ge=0)
    """Draw only from the K most probable tokens (0: all)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw only from the most probable tokens that together reach this probability."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Draw only tokens at least this probable relative to the most probable one."""
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100)
    """Above 1 makes tokens that stand in the text already less probable."""
    stop: tuple[str, ...] = ()
    """End before this text (may be given several times)."""
    seed: Seed | None = None
    """Seed of the draws (default: another one each time)."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer, in tokens."""


class Generate(Sampled, Searched):
    """Continue a prompt."""

    prompt: str
    """The text to continue; with --chat, the question to answer."""
    chat: bool = False
    """Put the prompt through the model's chat template."""
    system: str | None = None
    """System message of a chat."""

    @model_validator(mode="after")
    def _consistent(self) -> Generate:
        if self.system and not self.chat:
            raise ValueError("a system message needs --chat; without it the prompt is continued as plain text")
        self.search()
        return self


class Chat(Sampled):
    """Talk to a model in the terminal."""

    system: str | None = None
    """System message."""
    temperature: float = Field(default=0.7, ge=0)
    """0 takes the most probable token each time; 1 draws from the model's distribution."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens."""
