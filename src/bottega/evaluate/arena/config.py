"""Settings of the verb `arena`. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from bottega.core.schema import Config, Seed


class RateModels(Config):
    """Rate models by votes: Bradley-Terry and Elo with intervals, win rates, position bias, style."""

    sections = {"anchor": "Ratings", "preferences": "Output"}

    votes: list[Path]
    """Files of votes, JSON lines: ours, or FastChat's battles."""
    anchor: str | None = None
    """Model whose rating is set to --anchor-rating (default: the mean of the rated models is 1000)."""
    anchor_rating: float = Field(default=1000.0, ge=-10_000, le=10_000)
    """Rating of the anchor."""
    style_control: bool = False
    """Take out what length, headers, lists and bold type do to the votes, and tell how much that is."""
    k: float = Field(default=4.0, gt=0, le=400)
    """Elo's step: the points that a vote moves at most."""
    resamples: int = Field(default=1000, ge=100, le=1_000_000)
    """Resamples of the bootstrap behind the 95 % intervals."""
    seed: Seed = 0
    """Seed of the bootstrap."""
    preferences: Path | None = None
    """File to write the votes to as preference data: {prompt, chosen, rejected} a line, ties left out."""
    out: Path | None = None
    """Folder to write ratings.json and report.html into (default: only show)."""
    overwrite: bool = False
    """Replace OUT and PREFERENCES if they exist already."""

    @model_validator(mode="after")
    def _consistent(self) -> RateModels:
        if not self.votes:
            raise ValueError("votes: give a file of votes at least")
        if self.anchor is None and self.anchor_rating != 1000.0:
            raise ValueError("anchor_rating is the rating of the anchor: give anchor too")
        return self
