"""Progress of long work: a bar with rate and time left on a terminal, a line now and then elsewhere.

Rooms report through a `Reporter`; what it does with the report is the caller's choice.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from bottega.core.view import human_count, human_seconds

if TYPE_CHECKING:
    from rich.console import Console


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """`amount` more units are done; `note` (loss, accuracy …) is shown beside the bar."""
        ...


class Reporter(Protocol):
    """Where rooms say what they are doing."""

    def say(self, message: str) -> None:
        """One line for people."""
        ...

    def bar(self, name: str, total: float | None, unit: str = "", done: float = 0) -> AbstractContextManager[Bar]:
        """A bar for `total` units of work (None: unknown), of which `done` were done before."""
        ...


class Quiet:
    """Says nothing (the Python API's default, and tests)."""

    def say(self, message: str) -> None:
        """Ignore."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Ignore."""

    @contextlib.contextmanager
    def bar(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[Bar]:  # noqa: ARG002
        """A bar that shows nothing."""
        yield self


class Lines:
    """Plain lines on standard error, one bar line every `every` seconds: for logs and pipes."""

    def __init__(self, every: float = 10.0) -> None:
        self.every = every

    def say(self, message: str) -> None:
        """Print the line."""
        print(message, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def bar(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[Bar]:
        """A bar as occasional lines, and one when it ends."""
        bar = _LineBar(self, name, total, unit, done)
        yield bar
        bar.finish()


class _LineBar:
    def __init__(self, lines: Lines, name: str, total: float | None, unit: str, done: float) -> None:
        self.lines, self.name, self.total, self.unit = lines, name, total, unit
        self.start_done, self.done, self.note = done, done, ""
        self.started = self.shown = time.monotonic()

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        if time.monotonic() - self.shown >= self.lines.every:
            self.shown = time.monotonic()
            self.lines.say(self._line())

    def finish(self) -> None:
        self.lines.say(self._line(is_over=True) + f" · took {human_seconds(time.monotonic() - self.started)}")

    def _line(self, *, is_over: bool = False) -> str:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = (self.done - self.start_done) / elapsed
        parts = [f"{self.name}: {human_count(self.done)}"]
        if self.total:
            parts[0] += f" of {human_count(self.total)} {self.unit}".rstrip()
            if rate > 0 and self.done < self.total and not is_over:
                parts.append(f"{human_seconds((self.total - self.done) / rate)} left")
        if rate > 0:
            parts.insert(1, f"{human_count(rate)} {self.unit}/s".replace(" /s", "/s"))
        return " · ".join([*parts, self.note] if self.note else parts)


class Rich:
    """Bars on a terminal, through rich."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, message: str) -> None:
        """Print the line above any bar."""
        self.console.print(message, markup=False, highlight=False)

    @contextlib.contextmanager
    def bar(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[Bar]:
        """A live bar: name, part done, count, rate, time left, note."""
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(name, total=total, completed=int(done), note="", rate="")
            started, count = time.monotonic(), 0.0

            class _RichBar:
                def advance(self, amount: float = 1, note: str = "") -> None:
                    nonlocal count
                    count += amount
                    rate = f"{human_count(count / max(time.monotonic() - started, 1e-9))} {unit}/s".replace(" /s", "/s")
                    progress.update(task, advance=amount, rate=rate)
                    if note:
                        progress.update(task, note=note)

            yield _RichBar()
