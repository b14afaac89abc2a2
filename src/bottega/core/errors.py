"""The one hierarchy of errors.

A message says what was wrong and where; the hint says what to do about it. The
command line prints both and exits with `exit_status`; a traceback is shown only
with `--debug`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_LISTED = 40  # right words where none is near


class BottegaError(Exception):
    """A failure of ours, or of the machine: exit status 1."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        # A message may quote a damaged file: half a surrogate pair could not be printed.
        self.message, self.hint = (text.encode("utf-8", "backslashreplace").decode() for text in (message, hint))
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UserError(BottegaError):
    """What the user gave is wrong (a path, a value, a file's content): exit status 2."""

    exit_status = 2


class BusyError(UserError):
    """Another process holds what this one needs (the workspace, a port)."""


def nearest(wrong: str, right: Iterable[str]) -> str:
    """The nearest of the `right` words; empty if none is near."""
    return next(iter(difflib.get_close_matches(wrong, sorted(right), n=1, cutoff=0.6)), "")


def did_you_mean(wrong: str, right: Iterable[str]) -> str:
    """A hint naming the nearest of the `right` words, or listing them when none is near."""
    candidates = sorted(right)
    near = nearest(wrong, candidates)
    if near:
        return f"Did you mean {near!r}?"
    more = f" and {len(candidates) - MOST_LISTED} more" if len(candidates) > MOST_LISTED else ""
    return f"Known: {', '.join(candidates[:MOST_LISTED])}{more}." if candidates else ""
