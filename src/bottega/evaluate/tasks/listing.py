"""`bottega tasks`: which tasks, groups and suites there are, and whether their documents are. Imports no torch."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.plan import Plan, Specs
from bottega.core.schema import Config, Names
from bottega.core.verb import Context, Result
from bottega.core.view import Table
from bottega.evaluate.tasks.documents import split_files
from bottega.evaluate.tasks.load import Loaded, load_tasks, shipped_names
from bottega.evaluate.tasks.schema import TaskConfig
from bottega.evaluate.tasks.suites import load_suite, suite_names

COLUMNS = ("task", "kind", "examples", "documents")
GROUPED = 12  # without a pattern, so many names with one beginning are one row


class ListTasks(Config):
    """List the tasks that `bottega eval` knows, where their documents belong, and whether they are there."""

    pattern: Names = ()
    """Show only names like this (mmlu_*), or what a file or suite holds (may be given several times)."""
    data: Path | None = None
    """Folder with documents: says of each task whether its split is there."""


def plan_list(config: ListTasks, _specs: Specs) -> Plan:
    """Nothing to check: reading the definitions is the work."""
    return Plan("tasks", config, work=["read the definitions"])


def run_list(plan: Plan, _context: Context) -> Result:
    """The tables of tasks and suites."""
    config = plan.config
    assert isinstance(config, ListTasks)
    loaded = load_tasks(_wanted(config.pattern))
    tasks = [_row(task, config.data) for task in loaded.tasks.values()]
    suites = {} if config.pattern else {name: load_suite(name) for name in suite_names()}
    data: dict[str, Any] = {
        "tasks": tasks,
        "groups": {name: group.members for name, group in loaded.groups.items()},
        "suites": {name: [entry.task for entry in suite.entries] for name, suite in suites.items()},
    }
    view = [_task_table(tasks if config.pattern else _shortened(tasks), loaded)]
    if suites:
        rows = [
            (name, ", ".join(suite.sections), len(suite.entries), suite.description) for name, suite in suites.items()
        ]
        view.append(Table("Suites", ("suite", "sections", "tasks", ""), rows, "bottega eval MODEL --suite NAME"))
    return Result(data, list(view))


def _wanted(patterns: tuple[str, ...]) -> list[str]:
    """Names of tasks that the patterns stand for; raises UserError if one stands for none."""
    if not patterns:
        return shipped_names()
    found: list[str] = []
    for pattern in patterns:
        if pattern in suite_names():
            found += [entry.task for entry in load_suite(pattern).entries]
        elif any(sign in pattern for sign in "*?["):
            found += [name for name in shipped_names() if fnmatchcase(name, pattern)]
        else:
            found.append(pattern)
    if not found:
        raise UserError(f"no task is called like {', '.join(patterns)}", hint="bottega tasks lists them all.")
    return found


def _row(task: TaskConfig, data: Path | None) -> dict[str, Any]:
    place = "/".join(filter(None, (task.dataset_path, task.dataset_name)))
    row: dict[str, Any] = {
        "task": task.task,
        "kind": task.output_type,
        "num_fewshot": task.num_fewshot,
        "documents": f"{place}/{task.split}",
    }
    try:
        row["found"] = [str(file) for file in split_files(task, task.split, data)]
    except UserError:
        row["found"] = []
    return row


def _shortened(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for many tasks whose names begin alike."""
    families: dict[str, list[dict[str, Any]]] = {}
    for task in tasks:
        families.setdefault(task["task"].split("_")[0], []).append(task)
    rows = []
    for name, family in families.items():
        if len(family) < GROUPED:
            rows += family
            continue
        found = [task for task in family if task["found"]]
        place = family[0]["documents"].split("/")[0]
        rows.append({**family[0], "task": f"{name}_* ({len(family)})", "documents": f"{place}/…", "found": found})
    return rows


def _task_table(tasks: list[dict[str, Any]], loaded: Loaded) -> Table:
    rows = [
        (
            task["task"],
            task["kind"],
            "" if task["num_fewshot"] is None else task["num_fewshot"],
            task["documents"] + (" (there)" if task["found"] else ""),
        )
        for task in tasks
    ]
    groups = ", ".join(loaded.groups)
    note = "Documents belong into DATA (--data), as .jsonl, .json, .csv or .parquet."
    return Table("Tasks", COLUMNS, rows, f"{note} Groups: {groups}." if groups else note)
