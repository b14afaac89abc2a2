"""The plan of a verb: what will be checked, done, written and spent, before a byte of weights is read.

A plan is made from a config and from *specs*, small descriptions of artefacts read from
headers or predicted by the plan of an earlier step. So a whole chain can be planned before
anything exists.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

from bottega.core.errors import UserError
from bottega.core.view import Block, Table, human_bytes, human_count, human_seconds

if TYPE_CHECKING:
    from bottega.core.schema import Config


_ONLY_PLANNING: ContextVar[bool] = ContextVar("only_planning", default=False)


@contextlib.contextmanager
def only_planning() -> Iterator[None]:
    """Inside, plans are made that will not be run: nothing may be fetched or written for them."""
    token = _ONLY_PLANNING.set(True)
    try:
        yield
    finally:
        _ONLY_PLANNING.reset(token)


def is_only_planning() -> bool:
    """Whether the plan that is being made will not be run."""
    return _ONLY_PLANNING.get()


class Spec(Protocol):
    """What an artefact is: read from a folder's headers, or predicted by a plan."""

    kind: ClassVar[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read from an existing artefact; raises UserError if it is none of this kind."""
        ...


@runtime_checkable
class HoldsText(Protocol):
    """A spec of text, for those who plan with it and stand on a floor below it."""

    @property
    def training_bytes(self) -> int:
        """Bytes of text, without what is held out."""
        ...


S = TypeVar("S", bound=Spec)
PROCESS_BYTES = 400 * 2**20  # the interpreter with torch loaded, and the allocator's slack


class Specs:
    """Artefact specs by path: those that earlier steps of a chain will make, then those on disk."""

    def __init__(self) -> None:
        self._predicted: dict[Path, Spec] = {}

    def predict(self, path: Path, spec: Spec) -> None:
        """Remember that `path` will hold `spec`."""
        self._predicted[path.resolve()] = spec

    def is_predicted(self, path: Path) -> bool:
        """Whether `path` is the output of a step that has been planned and not yet run."""
        return path.resolve() in self._predicted

    def predicted_training_bytes(self, path: Path) -> int:
        """Bytes of text to train on that an earlier step will write at `path`, 0 if that is not known."""
        spec = self._predicted.get(path.resolve())
        return spec.training_bytes if isinstance(spec, HoldsText) else 0

    def of(self, path: Path, kind: type[S]) -> S:
        """The spec of the artefact at `path`; raises UserError if it is missing or of another kind.

        What will be a model has a tokenizer too: its spec's attribute of that name.
        """
        predicted = self._predicted.get(path.resolve())
        if predicted is None:
            return kind.read(path)
        for spec in (predicted, getattr(predicted, kind.kind, None)):
            if isinstance(spec, kind):
                return spec
        raise UserError(f"{path} will be {_a(predicted.kind)}, but {_a(kind.kind)} is needed here")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@dataclass(frozen=True)
class Check:
    """One thing that was checked from headers; a failed one stops the verb."""

    name: str
    passed: bool
    detail: str = ""
    warns: bool = False
    """Passed, and yet the user is told before the work begins."""

    @property
    def verdict(self) -> str:
        """For people: ok, note, or FAILS."""
        return "FAILS" if not self.passed else "note" if self.warns else "ok"


@dataclass(frozen=True)
class Cost:
    """What a verb will spend. Bytes, FLOPs and seconds; None where it cannot be said."""

    bytes_read: int = 0
    bytes_written: int = 0
    peak_memory: int | None = None
    flops: float = 0.0
    seconds: float | None = None


@dataclass
class Plan:
    """The plan of one verb; `run` takes it and nothing else."""

    verb: str
    config: Config
    out: Path | None = None
    inputs: dict[str, Path] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    work: list[str] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    produces: Spec | None = None
    details: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    """What else is foreseen, JSON-able: `--plan --json` shows it …"""
    tables: list[Table] = field(default_factory=list)
    """… and what of it people are shown."""

    def require(self) -> None:
        """Raise UserError naming every failed check."""
        failed = [check for check in self.checks if not check.passed]
        if failed:
            raise UserError(
                f"{self.verb}: " + "; ".join(f"{check.name}: {check.detail}" for check in failed),
                hint="Nothing was read or written. Run the same command with --plan to see all checks.",
            )

    def as_data(self) -> dict[str, Any]:
        """The plan as JSON-able data (`--plan --json`)."""
        return {
            "verb": self.verb,
            "out": str(self.out) if self.out else None,
            "inputs": {name: str(path) for name, path in self.inputs.items()},
            "checks": [vars(check) for check in self.checks],
            "work": self.work,
            "cost": vars(self.cost),
            **self.figures,
            "config": self.config.as_data(),
        }

    def view(self) -> list[Block]:
        """The plan for people."""
        rows: list[Sequence[Any]] = [("does", line) for line in self.work]
        rows += [("reads", str(path)) for path in self.inputs.values()]
        if self.out:
            rows.append(("writes", str(self.out)))
        rows += [(check.verdict, f"{check.name}: {check.detail}") for check in self.checks]
        rows.append(("cost", cost_line(self.cost)))
        return [Table(f"Plan: {self.verb}", ("", ""), rows), *self.tables]


def cost_line(cost: Cost) -> str:
    """One line for people: time, memory, disk, FLOPs."""
    parts = [f"about {human_seconds(cost.seconds)}" if cost.seconds is not None else "time not estimated"]
    if cost.peak_memory is not None:
        parts.append(f"peak memory about {human_bytes(cost.peak_memory)}")
    if cost.bytes_read or cost.bytes_written:
        parts.append(f"reads {human_bytes(cost.bytes_read)}, writes {human_bytes(cost.bytes_written)}")
    if cost.flops:
        parts.append(f"{human_count(cost.flops)}FLOP")
    return ", ".join(parts)
