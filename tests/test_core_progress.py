"""Progress: lines for logs, a bar for terminals, nothing for the Python API."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from bottega.core import progress
from bottega.core.progress import Lines, Quiet, Rich
from bottega.core.view import human_count


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_lines_come_now_and_then_with_rate_and_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(every=10).bar("train", 4000, "tok", done=1000) as bar:
        clock.now += 5
        bar.advance(500)
        assert capsys.readouterr().err == ""
        clock.now += 5
        bar.advance(500, "loss 2.5")
        said = capsys.readouterr().err
        # What was done before an interruption counts as done, but not for the rate.
        assert said == "train: 2 k of 4 k tok · 100 tok/s · 20 s left · loss 2.5\n"
    assert capsys.readouterr().err == "train: 2 k of 4 k tok · 100 tok/s · loss 2.5 · took 10 s\n"


def test_lines_without_a_total(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines().bar("reading", None) as bar:
        clock.now += 2
        bar.advance(8)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "reading: 8 · 4/s · took 2.0 s\n")


def test_an_interrupted_bar_does_not_say_that_it_ended(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Lines().bar("train", 10):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_name_share_and_note_and_prints_lines_as_they_are() -> None:
    output = io.StringIO()
    reporter = Rich(Console(file=output, force_terminal=True, width=120, color_system=None))
    with reporter.bar("train", 10, "tok", done=5) as bar:
        bar.advance(5, "loss 1.25 [bold]")
        reporter.say("a [red]line[/red]")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())
    assert "a [red]line[/red]" in text and "100%" in text and "train" in text and "loss 1.25" in text


def test_counts_have_three_digits_and_a_unit() -> None:
    found = [human_count(count) for count in (0, 999, 999.4, 999.6, 1234, 999_499, 999_700, 2e15)]
    assert found == ["0", "999", "999", "1 k", "1.23 k", "999 k", "1 M", "2 P"]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Quiet().bar("train", 10) as bar:
        bar.advance(10, "note")
    Quiet().say("text")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
