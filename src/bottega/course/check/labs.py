"""Rules of labs: within the budget, every effect holds, every number within its tolerance of the recorded one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from bottega.core.errors import BottegaError
from bottega.core.workspace import workspace_path
from bottega.course.check.problem import Problem, line_of
from bottega.course.lab_facts import read_facts
from bottega.course.library import LabFile
from bottega.course.recorded import (
    Recording,
    differs,
    read_recording,
    recording_of,
    recording_path,
    source_hash,
    write_recording,
)
from bottega.course.run_lab import LabProcess

LARGEST_BUDGET = 45


def lab_problems(lab: LabFile) -> Iterator[Problem]:
    """What can be seen of a lab without running it."""
    try:
        facts = read_facts(lab.path)
        recording = read_recording(lab)
    except BottegaError as error:
        yield Problem(lab.path, 0, "lab-reads", error.message, error.hint)
        return
    if facts.budget > LARGEST_BUDGET:
        message = f"a budget of {facts.budget:g} CPU-seconds; at most {LARGEST_BUDGET}"
        yield Problem(lab.path, line_of(lab.path, "BUDGET"), "lab-budget", message)
    if not facts.about:
        yield Problem(lab.path, 1, "lab-about", "the docstring says what it is called, not what it shows")
    for setting in facts.settings:
        if not setting.about:
            line = line_of(lab.path, "class Params", f"{setting.name}:")
            yield Problem(lab.path, line, "lab-setting", f"nothing says what the setting {setting.name} is")
    fix = f"bottega course check {lab.id} --record"
    if recording is None:
        yield Problem(recording_path(lab), 0, "lab-recorded", f"no run of {lab.id} was recorded", fix)
    elif recording.source != source_hash(lab):
        yield Problem(recording_path(lab), 0, "lab-recorded", f"{lab.id} has changed since it was recorded", fix)
    elif not all(effect.holds for effect in recording.effects):
        yield Problem(recording_path(lab), 0, "lab-effect", f"{lab.id} was recorded without its effect", fix)


def run_problems(lab: LabFile, *, record: bool = False) -> Iterator[Problem]:
    """Run a lab and compare with what was recorded; with `record`, record it instead."""
    try:
        recording = run(lab)
        old = None if record else read_recording(lab)
    except BottegaError as error:
        yield Problem(lab.path, 0, "lab-runs", error.message, error.hint.rpartition("\n")[2])
        return
    found = [*_own(lab, recording), *(_compared(lab, recording, old) if old is not None else ())]
    yield from found
    if record and not found:
        write_recording(lab, recording)


def run(lab: LabFile) -> Recording:
    """Run a lab as it is; once more if it had to make a model of the course first, which is not its own work."""
    models = workspace_path() / "course" / "models"
    before = _folders(models)
    recording = _run(lab)
    return recording if _folders(models) == before else _run(lab)


def _run(lab: LabFile) -> Recording:
    with LabProcess(lab) as process:
        events = list(process)
    params = {setting.name: setting.default for setting in read_facts(lab.path).settings}
    return recording_of(lab, events, params, process.cpu_seconds)


def _folders(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()} if path.is_dir() else set()


def _own(lab: LabFile, recording: Recording) -> Iterator[Problem]:
    budget = read_facts(lab.path).budget
    if recording.cpu_seconds > budget:
        message = f"{lab.id} took {recording.cpu_seconds} CPU-seconds, its budget is {budget:g}"
        yield Problem(lab.path, line_of(lab.path, "BUDGET"), "lab-budget", message)
    if not recording.effects:
        yield Problem(lab.path, 0, "lab-effect", f"{lab.id} asserts nothing of what it shows", "yield Effect(…)")
    for effect in recording.effects:
        if not effect.holds:
            line = line_of(lab.path, effect.statement)
            yield Problem(lab.path, line, "lab-effect", f"{lab.id} did not show: {effect.statement}")
    for value in recording.values.values():
        if not math.isfinite(value.value):
            line = line_of(lab.path, f'"{value.name}"')
            yield Problem(lab.path, line, "lab-value", f"{lab.id}: {value.name} is {value.value}")


def _compared(lab: LabFile, new: Recording, old: Recording) -> Iterator[Problem]:
    path, fix = recording_path(lab), f"bottega course check {lab.id} --record"
    for what, ours, theirs in (("value", new.values, old.values), ("figure", new.figures, old.figures)):
        for name in sorted(set(ours) ^ set(theirs)):
            state = "is new" if name in ours else "is no longer there"
            yield Problem(path, 0, "lab-recorded", f"{lab.id}: the {what} {name} {state}", fix)
    for name in sorted(set(new.values) & set(old.values)):
        value, recorded = new.values[name], old.values[name]
        if differs(value, recorded):
            message = f"{lab.id}: {name} is {value.value:.6g}, recorded {recorded.value:.6g}"
            message += f" (tolerance {recorded.tolerance:.0%})"
            line = line_of(path, f'"{name}"')
            yield Problem(path, line, "lab-value", message, "Record it again, or find out what changed.")
