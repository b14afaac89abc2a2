"""Settings of `bottega web`. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from bottega.serve.config import Serve


class Web(Serve):
    """Settings of the web app; those it shares with `serve` go to the server that it starts."""

    report: Path | None = None
    """A report.html to show at /report."""
