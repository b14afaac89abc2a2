"""Suites: tasks with their numbers of examples, in the sections of a table. Imports no torch.

The sections and metrics of `nous` and the leaderboards are those that LLM AutoEval's tables have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from bottega.core.errors import UserError, did_you_mean

FILE = Path(__file__).parent / "suites.yaml"


@dataclass(frozen=True)
class SuiteEntry:
    """A task of a suite, under a section; `metric` is the one that the table shows."""

    section: str
    task: str
    num_fewshot: int | None
    metric: str | None


@dataclass(frozen=True)
class Suite:
    """A suite's entries in order."""

    name: str
    description: str
    entries: tuple[SuiteEntry, ...]

    @property
    def sections(self) -> list[str]:
        """The sections, in order."""
        return list(dict.fromkeys(entry.section for entry in self.entries))


@lru_cache(maxsize=1)
def _suites() -> dict[str, Suite]:
    found = {}
    for name, data in yaml.safe_load(FILE.read_text("utf-8")).items():
        entries = tuple(
            SuiteEntry(section["name"], task["task"], task.get("num_fewshot"), task.get("metric"))
            for section in data["sections"]
            for task in section["tasks"]
        )
        found[name] = Suite(name, data.get("description", ""), entries)
    return found


def load_suite(name: str) -> Suite:
    """A suite by its name; raises UserError with the nearest one."""
    if name not in _suites():
        raise UserError(f"there is no suite {name!r}", hint=did_you_mean(name, _suites()))
    return _suites()[name]


def suite_names() -> list[str]:
    """The suites that there are."""
    return list(_suites())
