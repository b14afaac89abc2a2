"""Settings of the verbs `generate` and `chat`. Imports no torch."""

from __future__ import annotations

from pydantic import Field, model_validator

from bottega.core.schema import OnModel, Seed
from bottega.generate.search.config import Searched


class Sampled(OnModel):
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
