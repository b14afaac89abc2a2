"""Settings of one reward. Imports no torch.

A recipe lists rewards; what an answer earns is their weighted sum. Which settings belong to which type stands in
`BELONGS`; docs/rewards.md explains each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bottega.core.errors import did_you_mean
from bottega.core.schema import Config, Names

RewardType = Literal["exact", "contains", "format", "length", "json", "tests", "model", "judge", "python"]
BELONGS: Mapping[RewardType, frozenset[str]] = {
    "exact": frozenset({"field", "extract", "numbers", "ignore_case"}),
    "contains": frozenset({"field", "texts", "ignore_case"}),
    "format": frozenset({"pattern", "tags"}),
    "length": frozenset({"target", "tolerance", "max", "buffer", "unit"}),
    "json": frozenset({"field", "json_schema", "extract"}),
    "tests": frozenset({"field", "extract", "timeout", "partial"}),
    "model": frozenset({"path"}),
    "judge": frozenset({"path", "judge_model", "field", "api_key_env"}),
    "python": frozenset({"path", "function"}),
}
"""Settings of each type beside those that all have."""
FOR_ALL = frozenset({"type", "name", "weight", "unfinished"})
EXTRACTORS = ("boxed", "gsm8k", "answer_tag", "code", "last_number")


class RewardSettings(Config):
    """What an answer is rewarded for."""

    type: RewardType
    """exact, contains, format, length, json, tests, model, judge or python."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$")
    """Its name in figures (default: the type)."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Its weight in the sum; below 0 it is a penalty."""
    unfinished: float | Literal["score"] | None = None
    """Reward of an answer that was cut off; score: as of any other (default: 0; length and model: score)."""
    field: str | None = None
    """Field of the prompt's row with the right answer, the tests, or the schema (default: answer, tests, schema)."""
    extract: str | None = None
    """What counts of the answer, its last match: a pattern, or boxed, gsm8k, answer_tag, code, last_number."""
    numbers: bool = True
    """exact: numbers are equal by value: 1,000 = $1000.00."""
    ignore_case: bool = True
    """exact, contains: capitals do not matter."""
    texts: Names = ()
    """contains: texts that must stand in the answer as whole words, in place of those of FIELD; the share counts."""
    pattern: str | None = None
    """format: a pattern that the whole answer must match; . matches line ends too."""
    tags: Names = ()
    """format: tags that stand once each, in this order, with something in them and nothing outside: [think, answer]."""
    target: int | None = Field(default=None, ge=1)
    """length: earns 1 at this length, and less the farther from it."""
    tolerance: int | None = Field(default=None, ge=1)
    """length: this far from the target it is 0 (default: the target)."""
    max: int | None = Field(default=None, ge=1)
    """length: -1 beyond this (DAPO's soft punishment of overlong answers)."""
    buffer: int = Field(default=0, ge=0)
    """length: from MAX - BUFFER on, the punishment grows from 0 to -1."""
    unit: Literal["tokens", "words", "characters"] = "tokens"
    """length: what is counted."""
    json_schema: dict[str, Any] | None = None
    """json: schema that the answer must satisfy, in place of that of FIELD (default: any JSON)."""
    timeout: float = Field(default=5.0, gt=0, le=600)
    """tests: seconds for a program and its tests."""
    partial: bool = False
    """tests: where the field is a list, earn the share that passes, not all or nothing."""
    path: str | None = None
    """model: folder of a reward model; judge: endpoint's URL, or model folder; python: file with the function."""
    judge_model: str | None = None
    """judge: model to ask for at the endpoint (default: the one that it lists)."""
    api_key_env: str | None = None
    """judge: environment variable with the endpoint's key (default: BOTTEGA_API_KEY, if it is set)."""
    function: str = "reward"
    """python: function (text, row, finished) -> number."""

    @model_validator(mode="after")
    def _consistent(self) -> RewardSettings:
        own = BELONGS[self.type]
        if foreign := sorted(self.model_fields_set - own - FOR_ALL):
            raise ValueError(f"{foreign[0]!r} is no setting of {self.type}: {did_you_mean(foreign[0], own)}")
        needs: dict[RewardType, tuple[str, ...]] = {
            "format": ("pattern", "tags"), "length": ("target", "max"), "model": ("path",), "judge": ("path",),
            "python": ("path",),
        }  # fmt: skip
        wanted = needs.get(self.type, ())
        given = [name for name in wanted if getattr(self, name)]
        if wanted and len(given) != 1:
            raise ValueError(f"{self.type} needs {' or '.join(wanted)}{', not both' if given else ''}")
        if self.max is not None and self.buffer >= self.max:
            raise ValueError(f"buffer is {self.buffer}, and must be below max, which is {self.max}")
        for name in ("pattern", "extract"):
            _require_pattern(name, getattr(self, name))
        return self

    @property
    def row_field(self) -> str | None:
        """The field of a prompt's row that it reads, if it reads one."""
        if "field" not in BELONGS[self.type] or self.texts or self.json_schema is not None:
            return None
        if self.type in ("json", "judge"):
            return self.field
        return self.field or ("tests" if self.type == "tests" else "answer")

    @property
    def scores_unfinished(self) -> bool:
        """Whether an answer that was cut off is scored like any other."""
        return self.unfinished == "score" or (self.unfinished is None and self.type in ("length", "model"))

    def files(self) -> dict[str, Path]:
        """Files and folders that it reads, by setting."""
        is_url = self.type == "judge" and str(self.path).startswith(("http://", "https://"))
        return {} if self.path is None or is_url else {"path": Path(self.path)}


def names_of(rewards: tuple[RewardSettings, ...]) -> list[str]:
    """A name for each, no two alike; raises ValueError if two were given the same."""
    given = [each.name for each in rewards if each.name]
    if twice := next((name for name in given if given.count(name) > 1), None):
        raise ValueError(f"two rewards are called {twice!r}")
    names: list[str] = []
    for each in rewards:
        name, number = each.name or each.type, 2
        while not each.name and (name in names or name in given):
            name, number = f"{each.type}{number}", number + 1
        names.append(name)
    return names


def _require_pattern(name: str, pattern: str | None) -> None:
    if pattern is None or (name == "extract" and pattern in EXTRACTORS):
        return
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name} {pattern!r} is no regular expression: {error}") from None
    if name == "extract" and compiled.groups > 1:
        raise ValueError(f"extract {pattern!r} has {compiled.groups} groups, and one says what counts: write (?:…)")
