"""Settings of the course's commands in the terminal. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bottega.core.schema import Config


class InCourse(Config):
    """What every command of the course may be told."""

    workspace: Path | None = None
    """Where your answers and exercises are [default: $BOTTEGA_WORKSPACE or ./workspace]."""


class ListCourse(InCourse):
    """The course as a list, with where you stand."""


class Start(InCourse):
    """What to do now; with an exercise, write its file for your editor."""

    exercise: str = ""
    """CHAPTER/NAME of an exercise."""


class Watch(InCourse):
    """Check an exercise whenever its file is saved."""

    exercise: str
    """CHAPTER/NAME of an exercise."""
    once: bool = False
    """Check it once, and stop; the exit status is 1 if it does not pass."""
    poll: float = Field(default=0.3, gt=0, le=10)
    """Seconds between looks at the file."""


class AskHint(InCourse):
    """The next hint of an exercise. Help counts as not having known."""

    exercise: str
    """CHAPTER/NAME of an exercise."""


class Quiz(InCourse):
    """Answer questions on a chapter or a concept."""

    about: str = ""
    """A chapter or a concept (default: what comes next)."""
    count: int = Field(default=5, ge=1, le=100)
    """How many questions."""


class Review(InCourse):
    """Answer what is due."""


class Move(InCourse):
    """Take what you did to another machine, or to Anki."""

    file: Path
    """The file."""


class Certify(InCourse):
    """Write a certificate of what is mastered, which anybody can verify."""

    file: Path
    """The file to write (JSON)."""
    name: str = ""
    """Your name, if it is to stand there."""


class Verify(InCourse):
    """Verify a certificate: scores from its answers, exercises by their checks."""

    file: Path
    """The certificate."""
