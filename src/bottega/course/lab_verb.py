"""`bottega course lab`: run a lab in the terminal, with the numbers as they come and the figures at the end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from bottega.core.errors import UserError, did_you_mean
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.progress import Bar, Reporter
from bottega.core.schema import Config, parse_scalar
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Table, Text, human_seconds
from bottega.course.lab import Effect, Event, Point, Say, Step, Value, event_data
from bottega.course.lab_facts import LabFacts, read_facts
from bottega.course.library import LabFile, load_course
from bottega.course.recorded import figures_of, format_value
from bottega.course.run_lab import LabProcess


class RunLab(Config):
    """Settings of `bottega course lab`."""

    lab: str = ""
    """CHAPTER/LAB; without one, the labs there are."""
    changes: tuple[str, ...] = ()
    """Settings of the lab, NAME=VALUE (--plan tells them)."""


def plan_lab(config: RunLab, specs: Specs) -> Plan:  # noqa: ARG001 (a verb's plan has this form)
    """Say what the lab shows, what can be changed, and what it costs."""
    if not config.lab:
        return Plan("course lab", config, work=["list the labs"], cost=Cost(seconds=0.1))
    facts = read_facts(load_course().lab(config.lab).path)
    params = params_of(config, facts)
    rows = [
        (each.name, params.get(each.name, each.default), _allowed(each.limits, each.choices), each.about)
        for each in facts.settings
    ]
    plan = Plan("course lab", config, work=[f"{facts.title}. {' '.join(facts.about.split())}"])
    plan.checks = [
        Check("settings", True, ", ".join(f"{name}={value}" for name, value in params.items()) or "the lab's own")
    ]
    plan.cost = Cost(seconds=facts.budget)
    plan.figures = {"settings": [vars(each) for each in facts.settings], "params": params}
    plan.tables = [Table("What can be changed", ["setting", "value", "allowed", ""], rows)] if rows else []
    return plan


def params_of(config: RunLab, facts: LabFacts) -> dict[str, Any]:
    """The changed settings; raises UserError for a name that the lab does not have."""
    known = {each.name: each for each in facts.settings}
    found: dict[str, Any] = {}
    for change in config.changes:
        name, equals, text = change.partition("=")
        if not equals or name not in known:
            raise UserError(f"{config.lab} has no setting {change!r}", hint=did_you_mean(name, known))
        found[name] = text if known[name].kind == "str" else parse_scalar(text)
    return found


def run_lab_verb(plan: Plan, context: Context) -> Result:
    """Run it, and show what it showed."""
    config = plan.config
    assert isinstance(config, RunLab)
    course = load_course()
    if not config.lab:
        return _listing([lab for chapter in course.chapters.values() for lab in chapter.labs.values()])
    lab = course.lab(config.lab)
    params = params_of(config, read_facts(lab.path))
    with LabProcess(lab, params) as process:
        events = list(_told(process, context.reporter))
    effects = [event for event in events if isinstance(event, Effect)]
    values = [event for event in events if isinstance(event, Value)]
    data = {
        "lab": lab.id,
        "params": params,
        "cpu_seconds": round(process.cpu_seconds, 1),
        "values": {each.name: {"value": each.value, "unit": each.unit} for each in values},
        "effects": [vars(each) for each in effects],
        "events": [event_data(event) for event in events],
    }
    # With other settings an effect may be gone: that is what the settings are for.
    failed = not params and not all(effect.holds for effect in effects)
    return Result(data, _view(events, process.cpu_seconds), exit_status=int(failed))


def _told(events: Iterator[Event] | LabProcess, reporter: Reporter) -> Iterator[Event]:
    """Tell of each event as it comes: a bar for steps, with the newest points beside it."""
    bar: Bar | None = None
    done, newest = 0, {}
    with contextlib.ExitStack() as stack:
        for event in events:
            if isinstance(event, Say):
                reporter.say(event.text)
            elif isinstance(event, Point):
                newest[event.series] = f"{event.series} {event.y:.4g}"
            elif isinstance(event, Step):
                if bar is None or event.done <= done:
                    stack.close()
                    bar, done = stack.enter_context(reporter.bar("running", event.total, "steps")), 0
                bar.advance(event.done - done, event.note or " · ".join(newest.values()))
                done = event.done
            yield event


def _view(events: list[Event], cpu_seconds: float) -> list[Block]:
    blocks: list[Block] = list(figures_of(events).values())
    values = [(each.name, format_value(each), each.unit) for each in events if isinstance(each, Value)]
    if values:
        blocks.append(Table("Numbers", ["value", "", ""], values))
    effects = [("✓" if each.holds else "✗ not here", each.statement) for each in events if isinstance(each, Effect)]
    if effects:
        blocks.append(Table("What it showed", ["", ""], effects))
    return [*blocks, Text(f"{human_seconds(cpu_seconds)} of processor time")]


def _listing(labs: list[LabFile]) -> Result:
    facts = [(lab, read_facts(lab.path)) for lab in labs]
    rows = [(lab.id, each.title, each.budget) for lab, each in facts]
    note = "bottega course lab CHAPTER/LAB [NAME=VALUE …]; --plan tells what can be changed."
    table = Table("Labs", ["lab", "shows", "at most, CPU-seconds"], rows, note)
    return Result(
        {"labs": [{"id": lab.id, "title": each.title, "budget": each.budget} for lab, each in facts]}, [table]
    )


def _allowed(limits: dict[str, Any], choices: tuple[Any, ...]) -> str:
    if choices:
        return " | ".join(map(json.dumps, choices))
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "max_length": "at most", "min_length": "at least"}
    return ", ".join(f"{signs.get(name, name)} {value}" for name, value in limits.items())
