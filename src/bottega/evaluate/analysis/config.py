"""Settings of the verbs `compare`, `errors` and `contamination`. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from bottega.core.schema import Config, Names, Seed


class _OfRuns(Config):
    """Settings of a verb that reads one evaluation or two."""

    runs: list[Path] = Field(min_length=1, max_length=2)
    """Folder that `bottega eval --out` wrote, or two of them."""
    models: Names = Field(default=(), max_length=2)
    """Which models, where the runs have more (given twice for two; the first is A)."""
    metric: str | None = None
    """Metric (default: each task's main one, if it is counted item by item)."""
    out: Path | None = None
    """Folder to write into (default: only show)."""
    overwrite: bool = False
    """Replace OUT if it exists already."""


class CompareRuns(_OfRuns):
    """Compare two models on the same items: differences with intervals, tests, and what could have been shown."""

    seed: Seed = 0
    """Seed of the bootstrap and of the randomisation test."""


class AnalyseErrors(_OfRuns):
    """Where a model is wrong: by task, column, length, words, confidence, position; what two models disagree on."""

    sections = {"most": "Output"}

    most: int = Field(default=20, ge=1, le=1000)
    """Rows of each list that is shown."""


class CheckContamination(Config):
    """Look for the items of an evaluation in training text, and compare scores with and without those found."""

    sections = {"ngram": "Matching", "most": "Output"}

    run: Path | None = None
    """Folder that `bottega eval --out` wrote: its items are looked for, its scores compared."""
    tasks: Names = ()
    """Tasks whose items are looked for, in place of a run: names, groups, tags, patterns, .yaml files."""
    data: Path | None = None
    """Folder with the tasks' documents, as of `bottega eval`."""
    against: list[Path] = Field(min_length=1)
    """Training text: files, folders, corpus folders (may be given several times)."""
    ngram: int = Field(default=13, ge=4, le=64)
    """Words of an n-gram: 13 as for GPT-3; 8 as for PaLM."""
    shortest: int = Field(default=8, ge=1, le=64)
    """A text shorter than an n-gram is looked for as a whole, if it has so many words at least."""
    dirty: float = Field(default=0.7, gt=0, le=1)
    """An item is dirty from this share of its n-grams found, and suspect from the first."""
    metric: str | None = None
    """Metric that is compared (default: each task's main one, if it is counted item by item)."""
    most: int = Field(default=20, ge=0, le=1000)
    """Examples that are shown."""
    out: Path | None = None
    """Folder to write contamination.json, contamination.jsonl and report.html into (default: only show)."""
    overwrite: bool = False
    """Replace OUT if it exists already."""

    @model_validator(mode="after")
    def _consistent(self) -> CheckContamination:
        if (self.run is None) == (not self.tasks):
            raise ValueError("give a run or tasks, and not both")
        if self.data is not None and not self.tasks:
            raise ValueError("data is where tasks have their documents: give tasks")
        if self.metric is not None and self.run is None:
            raise ValueError("metric is of a run: tasks alone have no scores")
        if self.shortest > self.ngram:
            raise ValueError(f"shortest {self.shortest} is longer than an n-gram of {self.ngram}")
        return self
