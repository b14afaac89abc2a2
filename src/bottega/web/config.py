"""Settings of `bottega web`. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bottega.serve.config import Serve


class Web(Serve):
    """Settings of the web app; those it shares with `serve` go to the server that it starts."""

    drain_seconds: float = Field(default=0, ge=0)
    """Seconds that answers under way may go on after SIGTERM or Ctrl-C."""
    workspace: Path | None = None
    """Where votes and verdicts are kept, in its folder feedback [default: $BOTTEGA_WORKSPACE or ./workspace]."""
    report: Path | None = None
    """A report.html to show at /report."""
