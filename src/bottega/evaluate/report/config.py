"""Settings of the verb `report`. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from bottega.core.schema import Config


class ReportRuns(Config):
    """Evaluations side by side: a leaderboard with intervals, bars, calibration, cost; as page, Markdown and CSV."""

    sections = {"table": "Output"}

    runs: list[Path] = Field(min_length=1)
    """Folders that `bottega eval --out` wrote; runs of one model are put together."""
    title: str = "Evaluation"
    """Heading of the report."""
    suite: str | None = None
    """Show the sections of this suite (default: the runs' own, if it is one; else every task)."""
    table: str | None = None
    """Print LLM AutoEval's table of this suite as Markdown: nous, openllm, …"""
    csv: bool = False
    """Print every figure as CSV."""
    out: Path | None = None
    """Folder to write report.html, report.md, report.csv and report.json into (default: only show)."""
    overwrite: bool = False
    """Replace OUT if it exists already."""

    @model_validator(mode="after")
    def _consistent(self) -> ReportRuns:
        if self.csv and self.table is not None:
            raise ValueError("csv and table are two ways to print: give one")
        return self
