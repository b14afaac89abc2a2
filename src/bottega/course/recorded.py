"""What labs printed when their chapter was written: the numbers, charts and tables that a lesson shows.

`recorded/LAB.json` beside a lab holds the hash of the lab's source, the settings, the CPU-seconds, every value with its
unit and tolerance, every figure by name, and the effects. `bottega course check` runs the lab again and compares.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottega.core.atomic import write_text
from bottega.core.errors import BottegaError, UserError, did_you_mean
from bottega.core.hashing import digest_bytes
from bottega.core.view import Block, Chart, Series
from bottega.course.lab import Axes, Effect, Event, Point, Show, Value, block_data, block_from
from bottega.course.library import Chapter, LabFile

ROUNDING = 1e-9  # two machines may differ in the last digits of what has no tolerance
DIGITS = 7  # significant, of recorded figures: enough to draw, and the same on most machines


@dataclass(frozen=True)
class Recording:
    """One run of a lab."""

    source: str
    """SHA-256 of the lab's file."""
    params: dict[str, Any] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    values: dict[str, Value] = field(default_factory=dict)
    figures: dict[str, Block] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()

    def value(self, name: str) -> Value:
        """The value called `name`; raises UserError with the nearest one."""
        if name not in self.values:
            raise UserError(f"no value {name!r} was recorded", hint=did_you_mean(name, self.values))
        return self.values[name]

    def figure(self, name: str) -> Block:
        """The chart or table called `name`; raises UserError with the nearest one."""
        if name not in self.figures:
            raise UserError(f"no figure {name!r} was recorded", hint=did_you_mean(name, self.figures))
        return self.figures[name]


def recording_of(
    lab: LabFile, events: Iterable[Event], params: Mapping[str, Any], cpu_seconds: float = 0.0
) -> Recording:
    """What a run's events come to; raises BottegaError where two values or figures have one name."""
    events = list(events)
    values: dict[str, Value] = {}
    for event in events:
        if isinstance(event, Value):
            if event.name in values:
                raise BottegaError(f"{lab.id} yields two values {event.name!r}")
            values[event.name] = event
    effects = tuple(event for event in events if isinstance(event, Effect))
    return Recording(source_hash(lab), dict(params), round(cpu_seconds, 1), values, figures_of(events), effects)


def figures_of(events: Iterable[Event]) -> dict[str, Block]:
    """Every block by its name: what was shown, and each chart of axes and points."""
    blocks: dict[str, Block] = {}
    axes: dict[str, Axes] = {}
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for event in events:
        name = event.chart if isinstance(event, Axes) else event.name if isinstance(event, Show) else ""
        if name and (name in blocks or name in axes):
            raise BottegaError(f"two figures are called {name!r}")
        if isinstance(event, Axes):
            axes[name] = event
        elif isinstance(event, Point):
            points.setdefault(event.chart, {}).setdefault(event.series, []).append((event.x, event.y))
        elif isinstance(event, Show):
            blocks[name] = event.block
    return {**{name: chart_of(each, points.get(name, {})) for name, each in axes.items()}, **blocks}


def chart_of(axes: Axes, points: Mapping[str, list[tuple[float, float]]]) -> Chart:
    """The chart that axes and points make; a floor is a line from end to end."""
    series = [Series(name, line) for name, line in points.items()]
    xs = [x for line in points.values() for x, _ in line]
    if xs:
        ends = (min(xs), max(xs))
        series += [Series(name, [(x, y) for x in ends], baseline=True) for name, y in axes.floors.items()]
    return Chart(axes.title, axes.x_label, axes.y_label, series, axes.log_x, axes.log_y)


def source_hash(lab: LabFile) -> str:
    """What the recorded numbers are of."""
    return digest_bytes(lab.path.read_bytes())


def recording_path(lab: LabFile) -> Path:
    """Where a lab's run is recorded."""
    return lab.path.parent / "recorded" / f"{lab.name}.json"


def write_recording(lab: LabFile, recording: Recording) -> Path:
    """Write `recorded/LAB.json`."""
    path = recording_path(lab)
    path.parent.mkdir(exist_ok=True)
    data = {
        "source": recording.source,
        "params": recording.params,
        "cpu_seconds": recording.cpu_seconds,
        "values": {
            name: {"value": each.value, "unit": each.unit, "tolerance": each.tolerance}
            for name, each in recording.values.items()
        },
        "figures": {name: block_data(block) for name, block in recording.figures.items()},
        "effects": [{"statement": each.statement, "holds": each.holds} for each in recording.effects],
    }
    write_text(path, compact(_rounded(data)) + "\n")
    return path


def read_recording(lab: LabFile) -> Recording | None:
    """What was recorded of a lab; None if nothing was, raises UserError if the file is damaged."""
    path = recording_path(lab)
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text("utf-8"))
        return Recording(
            data["source"],
            data["params"],
            data["cpu_seconds"],
            {name: Value(name, **each) for name, each in data["values"].items()},
            {name: block_from(each) for name, each in data["figures"].items()},
            tuple(Effect(**each) for each in data["effects"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}", hint="Record the lab again.") from None


def cited(chapter: Chapter, what: str) -> tuple[Recording, str]:
    """The recording and name that `LAB.NAME` stands for; raises UserError where there is none."""
    lab, dot, name = what.partition(".")
    if not dot or lab not in chapter.labs:
        raise UserError(f"{what!r} is not LAB.NAME of a lab of {chapter.id}", hint=did_you_mean(lab, chapter.labs))
    recording = read_recording(chapter.labs[lab])
    if recording is None:
        raise UserError(f"nothing was recorded of the lab {lab!r}", hint=f"bottega course check {chapter.id} --record")
    return recording, name


def format_value(value: Value, specification: str = "") -> str:
    """A recorded value as a lesson shows it: as the format says, else whole numbers whole and others to four digits."""
    if specification:
        return format(round(value.value) if specification[-1] == "d" else value.value, specification)
    whole = value.value == round(value.value) and abs(value.value) < 1e15
    return f"{round(value.value):,}" if whole else f"{value.value:.4g}"


def differs(new: Value, old: Value) -> bool:
    """Whether a value is farther from the recorded one than its tolerance allows."""
    if math.isnan(new.value) and math.isnan(old.value):
        return False
    room = max(old.tolerance, ROUNDING) * (abs(old.value) or 1.0)
    return not abs(new.value - old.value) <= room


def _rounded(value: Any) -> Any:
    """Numbers to a few significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        exact = {"value"} & set(value)
        return {
            key: each if key in exact and isinstance(each, float) else _rounded(each) for key, each in value.items()
        }
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def compact(value: Any, depth: int = 0) -> str:
    """JSON with a line for each entry of the outer levels, so that a change is seen where it is."""
    if depth < 3 and isinstance(value, Mapping) and value:
        indent = "  " * (depth + 1)
        lines = [f"{indent}{json.dumps(key)}: {compact(each, depth + 1)}" for key, each in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + "  " * depth + "}"
    return json.dumps(value, ensure_ascii=False)
