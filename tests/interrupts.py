"""A run that is stopped in the middle, to test that it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bottega.core.progress import Quiet


class Interrupt(Quiet):
    """A reporter whose bar of the stage raises after some steps."""

    def __init__(self, stage: str, after: int) -> None:
        self.stage, self.left, self.counts = stage, after, False

    @contextmanager
    def bar(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[Interrupt]:
        self.counts = name == self.stage
        yield self

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.left -= self.counts
        if self.left < 0:
            raise KeyboardInterrupt
