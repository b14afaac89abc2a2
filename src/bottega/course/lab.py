"""What a lab yields while it runs.

A lab is a module with a docstring (its title, then what it shows), `BUDGET` in CPU-seconds, a model of settings
`Params`, and `run(params) -> Iterator[Event]`. What runs it (`run_lab`) writes its events as one
line of JSON each, so that a page or a terminal can follow, and read again from any line.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Block, Branch, Chart, Heat, Series, Spans, Table, Text, Tree


@dataclass(frozen=True)
class Say:
    """A sentence: what happens now, or what was just seen."""

    text: str


@dataclass(frozen=True)
class Step:
    """Progress: `done` of `total`."""

    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Axes:
    """A chart that points will be added to; `floors` are horizontal lines with their names."""

    chart: str
    title: str
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    floors: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """A point of a line of a chart that Axes began."""

    chart: str
    series: str
    x: float
    y: float


@dataclass(frozen=True)
class Show:
    """A finished chart, table or text, under a name that the lesson can show it by."""

    name: str
    block: Block


@dataclass(frozen=True)
class Value:
    """A number that the lesson cites. `tolerance` is how far another run may be from it, as a share of it."""

    name: str
    value: float
    unit: str = ""
    tolerance: float = 0.1


@dataclass(frozen=True)
class Effect:
    """What the lab is there to show, and whether it showed it."""

    statement: str
    holds: bool


Event = Say | Step | Axes | Point | Show | Value | Effect
EVENTS: dict[str, type] = {kind.__name__.lower(): kind for kind in (Say, Step, Axes, Point, Show, Value, Effect)}
BLOCKS: dict[str, type] = {kind.__name__.lower(): kind for kind in (Text, Table, Spans, Chart, Bars, Heat, Tree)}


def event_data(event: Event) -> dict[str, Any]:
    """As plain data; `event` names the kind, and a block's `block` its own."""
    data = {"event": type(event).__name__.lower(), **dataclasses.asdict(event)}
    if isinstance(event, Show):
        data["block"] = block_data(event.block)
    return data


def event_from(data: dict[str, Any]) -> Event:
    """The event that `event_data` made `data` of; raises KeyError or TypeError if it made none."""
    values = dict(data)
    kind = EVENTS[values.pop("event")]
    if kind is Show:
        values["block"] = block_from(values["block"])
    return kind(**values)


def block_data(block: Block) -> dict[str, Any]:
    """A block as plain data."""
    return {"block": type(block).__name__.lower(), **dataclasses.asdict(block)}


def block_from(data: dict[str, Any]) -> Block:
    """The block that `block_data` made `data` of."""
    values = dict(data)
    kind = BLOCKS[values.pop("block")]
    if kind is Chart:
        values["series"] = [Series(**each) for each in values["series"]]
    if kind is Bars:
        values["bars"] = [Bar(**each) for each in values["bars"]]
    if kind is Tree:
        values["branches"] = [Branch(**each) for each in values["branches"]]
    return kind(**values)


@dataclass(frozen=True)
class Lab:
    """A loaded lab."""

    title: str
    about: str
    budget: float
    params: type[Config]
    run: Callable[[Any], Iterator[Event]]


def load_lab(path: Path) -> Lab:
    """Load the lab at `path`: this runs its imports."""
    module = load_module(path)
    title, _, about = (module.__doc__ or path.stem).partition("\n")
    return Lab(title.strip().rstrip("."), about.strip(), float(module.BUDGET), module.Params, module.run)


def load_module(path: Path) -> ModuleType:
    """A module of a chapter, by its path: chapters are data, not part of the package."""
    spec = importlib.util.spec_from_file_location(f"bottega_chapter_{path.parent.name}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pydantic look their module up
    spec.loader.exec_module(module)
    return module
