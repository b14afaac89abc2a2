"""What a chapter is made of, as plain data: `chapter.toml`, `quiz.toml`, `exercises/*/exercise.toml` (docs/course.md).

Concepts, prerequisites and what is out of scope follow Exercism's schema; items name the mistake behind each wrong
option, so that a learner is told more than "wrong". Imports no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bottega.core.schema import Config

Language = Literal["en", "zh"]
Part = Literal["fundamentals", "scientist", "engineer"]
PARTS: tuple[Part, ...] = ("fundamentals", "scientist", "engineer")
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
"""An id: words in lower case, joined by hyphens. Ids outlive titles."""


class Titles(Config):
    """A text in the languages of the course."""

    en: str = Field(min_length=1)
    """English."""
    zh: str = ""
    """Chinese, if there is an edition of it."""

    def of(self, language: Language) -> str:
        """The text in `language`, or in English where there is none."""
        return getattr(self, language) or self.en


class Leaf(Config):
    """One topic of a chapter: a green box of the roadmap."""

    id: Name
    """Its id, unique in the course."""
    title: Titles
    """What it is called."""
    features: tuple[int, ...] = ()
    """Its numbers in the list of the course's items."""
    since: int | None = None
    """The year of the edition that added it."""


class Concept(Config):
    """What a learner can know or not know; the unit of mastery and of review."""

    id: Name
    """Its id, unique in the course."""
    leaf: Name
    """The leaf that teaches it."""
    title: Titles
    """What it is called."""
    prerequisites: tuple[Name, ...] = ()
    """Concepts that it builds on, of this chapter or another."""


class Source(Config):
    """Where more can be read. Never needed to learn."""

    title: str
    """Title."""
    url: str = Field(pattern=r"^https?://")
    """Address."""
    licence: str = ""
    """Licence of the text."""
    checked: str = Field(default="", pattern=r"^(\d{4}-\d{2}-\d{2})?$")
    """Day on which the address was last seen to work."""


class ChapterData(Config):
    """`chapter.toml`."""

    id: Name
    """Its id, unique in the course; also its folder's name."""
    part: Part
    """Which roadmap it stands on."""
    number: int = Field(ge=1)
    """Its place on that roadmap."""
    title: Titles
    """What it is called."""
    written: bool = True
    """Whether there is a lesson. Unwritten chapters stand on the roadmap, and lock nothing."""
    prerequisites: tuple[Name, ...] = ()
    """Chapters that it builds on."""
    minutes: int = Field(default=0, ge=0)
    """How long it takes, about."""
    objectives: tuple[str, ...] = ()
    """What the learner can do afterwards."""
    out_of_scope: tuple[str, ...] = ()
    """What it does not teach."""
    leaves: tuple[Leaf, ...]
    """Its topics, in order."""
    concepts: tuple[Concept, ...] = ()
    """What it teaches, in order."""
    sources: tuple[Source, ...] = ()
    """Where more can be read."""


class Option(Config):
    """One answer to choose."""

    text: str
    """The answer."""
    right: bool = False
    """Whether it is right."""
    why: str
    """Why it is right or wrong, shown after the answer."""
    misconception: str = ""
    """Tag of the mistake behind it, for the learner model."""


class Pair(Config):
    """Two things that belong together."""

    left: str
    """Shown in order."""
    right: str
    """To be found."""


Kind = Literal["single", "multi", "numeric", "output", "order", "match", "cloze"]


class Item(Config):
    """A question of `quiz.toml`. What is given depends on `kind`; a generator gives everything from `stem` on."""

    id: Name
    """Its id, unique in the course."""
    concept: Name
    """What it asks about."""
    kind: Kind
    """single, multi: choose; numeric; output: what the code prints; order: lines; match: pairs; cloze: fill ___."""
    difficulty: float = Field(default=0.0, ge=-3, le=3)
    """Ability at which half of those who do not guess are right (logits)."""
    section: Name | None = None
    """The section of the lesson that explains it."""
    generator: str = Field(default="", pattern=r"^([a-z_][a-z0-9_]*)?$")
    """Function in the chapter's quiz.py that makes the question: (random.Random) → fields of an item."""
    stem: str = ""
    """The question, in Markdown."""
    options: tuple[Option, ...] = ()
    """single, multi: what there is to choose from."""
    answer: str | float | tuple[str, ...] | None = None
    """numeric: the number; output: the text; order: the lines in order; cloze: what belongs into each ___."""
    tolerance: float = Field(default=0.0, ge=0)
    """numeric: how far from the answer still counts, absolute."""
    unit: str = ""
    """numeric: what is counted."""
    code: str = ""
    """output: the program."""
    pairs: tuple[Pair, ...] = ()
    """match: what belongs together."""
    why: str = ""
    """Why the answer is what it is (kinds without options)."""
    mistakes: dict[str, str] = {}
    """Likely wrong answers, each with what went wrong (kinds without options)."""

    @model_validator(mode="after")
    def _complete(self) -> Item:
        if self.generator and not self.stem:
            return self
        right = sum(option.right for option in self.options)
        problems = {
            "stem is missing": not self.stem,
            "single needs options, one of them right": self.kind == "single" and (len(self.options) < 2 or right != 1),
            "multi needs options": self.kind == "multi" and (len(self.options) < 3 or not right),
            "options are for single and multi": self.kind not in ("single", "multi") and bool(self.options),
            "the answer is a number": self.kind == "numeric" and not isinstance(self.answer, int | float),
            "the answer is a text": self.kind == "output" and not isinstance(self.answer, str),
            "the answer is a list": self.kind in ("order", "cloze") and not isinstance(self.answer, tuple),
            "output needs code": self.kind == "output" and not self.code,
            "match needs pairs": self.kind == "match" and len(self.pairs) < 3,
            "why is missing": self.kind not in ("single", "multi") and not self.why,
        }
        for problem, holds in problems.items():
            if holds:
                raise ValueError(problem)
        return self

    @property
    def guess(self) -> float:
        """Probability of a right answer without knowledge."""
        if self.kind == "single":
            return 1 / max(len(self.options), 2)
        if self.kind == "multi":
            return 1 / max(len(self.options), 2) ** 2
        return 0.02


class Quiz(Config):
    """`quiz.toml`."""

    items: tuple[Item, ...]
    """The questions."""


class Hint(Config):
    """One step of the ladder: each says more than the one before."""

    text: str
    """The hint, in Markdown."""


class Wrong(Config):
    """A wrong solution that the grader must reject: the solution with one mistake put in."""

    name: Name
    """What it is called."""
    replace: str
    """Text of solution.py, found there exactly once."""
    by: str
    """What stands there instead."""
    mistake: str
    """What is wrong with it, in words; shown to a learner whose code fails in the same way."""


class ExerciseData(Config):
    """`exercises/NAME/exercise.toml`; beside it stand task.py, solution.py and grader.py."""

    title: Titles
    """What it is called."""
    concepts: tuple[Name, ...]
    """What it exercises."""
    section: Name | None = None
    """The section of the lesson that it belongs to."""
    minutes: int = Field(default=10, ge=1)
    """How long it takes, about."""
    seconds: float = Field(default=20.0, gt=0, le=120)
    """Time limit of the grader."""
    hints: tuple[Hint, ...] = Field(min_length=3)
    """From a nudge to part of the code; never the whole solution."""
    wrong: tuple[Wrong, ...] = Field(min_length=3)
    """Wrong solutions that the grader rejects."""
