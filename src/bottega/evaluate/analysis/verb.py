"""`bottega compare`, `bottega errors`, `bottega contamination`: plans and runs. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bottega.core.atomic import write_json, write_text
from bottega.core.errors import UserError
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.report import Section, write_report
from bottega.core.verb import Context, Result
from bottega.core.view import human_bytes
from bottega.data.sources import Skipped
from bottega.evaluate.analysis.answers import answers_of
from bottega.evaluate.analysis.compare import compare
from bottega.evaluate.analysis.compare_view import COMPARISON_FILE, comparison_blocks
from bottega.evaluate.analysis.config import AnalyseErrors, CheckContamination, CompareRuns
from bottega.evaluate.analysis.contamination import (
    contamination_data,
    item_rows,
    passages,
    scores,
    size_of,
    sought_of_run,
    sought_of_tasks,
)
from bottega.evaluate.analysis.contamination_view import CONTAMINATION_FILE, contamination_blocks
from bottega.evaluate.analysis.errors import analyse, disagreements, export_rows
from bottega.evaluate.analysis.errors_view import ERRORS_FILE, errors_blocks, errors_sections
from bottega.evaluate.analysis.overlap import Overlap
from bottega.evaluate.analysis.pairing import choose_models
from bottega.evaluate.items import ITEMS_FILE
from bottega.evaluate.spec import EvaluationSpec
from bottega.evaluate.tasks.load import load_tasks

REPORT_FILE, EXPORT_FILE, FOUND_FILE = "report.html", "errors.jsonl", "contamination.jsonl"
ITEM_PARTS = frozenset({"tasks"})  # parts of an evaluation that keep items with their texts
ANSWER_PARTS = ITEM_PARTS | {"choice"}  # parts that keep answers
BYTES_PER_SECOND = 1e7


def plan_compare(config: CompareRuns, specs: Specs) -> Plan:
    """Check that the runs have items."""
    plan = Plan("compare", config, config.out, cost=Cost(bytes_written=1 << 18 if config.out else 0))
    _plan_runs(plan, config.runs, specs)
    plan.work = ["pair the items that both models were asked alike", "compare task by task, and over all tasks"]
    return plan


def run_compare(plan: Plan, context: Context) -> Result:
    """Pair, compare, write, show."""
    config = plan.config
    assert isinstance(config, CompareRuns)
    models = choose_models(config.runs, config.models)
    if len(models) < 2:
        raise UserError(
            f"there is one model, {models[0].name}, to compare" + (" (both runs are of it)" if config.runs[1:] else ""),
            hint="Give the run of another model, or name two with --models.",
        )
    data = compare(*models, metric=config.metric, seed=config.seed)
    blocks = comparison_blocks(data)
    if plan.out is not None:
        write_json(context.out / COMPARISON_FILE, data)
        title = f"{data['first']['model']} against {data['second']['model']}"
        write_report(context.out / REPORT_FILE, "Comparison", [Section("Item by item", blocks)], subtitle=title)
    return Result(data, blocks)


def plan_errors(config: AnalyseErrors, specs: Specs) -> Plan:
    """Check that the runs have items."""
    size = sum((run / ITEMS_FILE).stat().st_size for run in config.runs if (run / ITEMS_FILE).is_file())
    plan = Plan("errors", config, config.out, cost=Cost(bytes_read=size, bytes_written=size if config.out else 0))
    _plan_runs(plan, config.runs, specs)
    plan.work = ["group the items, and hold each group's share of mistakes against the rest's"]
    return plan


def run_errors(plan: Plan, context: Context) -> Result:
    """Read, group, write, show."""
    config = plan.config
    assert isinstance(config, AnalyseErrors)
    models = choose_models(config.runs, config.models)
    answers, found = {}, []
    for model in models:
        answers[model.name], left_out = answers_of(model, config.metric)
        found.append(analyse(model.name, answers[model.name], left_out, config.most))
    first, *others = answers.values()
    apart = disagreements(first, others[0], config.most) if others else None
    data = {"models": found, "disagreements": apart}
    if plan.out is not None:
        write_json(context.out / ERRORS_FILE, data)
        rows = export_rows(answers, found)
        write_text(context.out / EXPORT_FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        write_report(context.out / REPORT_FILE, "Mistakes", errors_sections(data), subtitle=" and ".join(answers))
    return Result(data, errors_blocks(data))


def plan_contamination(config: CheckContamination, specs: Specs) -> Plan:
    """Check that items and training text are there."""
    sizes = {path: size_of(path) for path in config.against}
    read = sum(size or 0 for size in sizes.values())
    plan = Plan("contamination", config, config.out)
    if config.run is not None:
        _plan_runs(plan, [config.run], specs, ITEM_PARTS)
    else:
        names = ", ".join(load_tasks(config.tasks).tasks)
        plan.checks.append(Check("tasks", True, names))
    if config.data is not None:
        plan.inputs["data"] = config.data
    for number, (path, size) in enumerate(sizes.items()):
        detail = "there is no such file or folder" if size is None else human_bytes(size) if size else "empty"
        plan.checks.append(Check(str(path), bool(size), detail))
        plan.inputs[f"against.{number}"] = path
    if len(sizes) < len(config.against):
        plan.checks.append(Check("against", False, "a path is given twice"))
    plan.work = [f"look for the items' n-grams of {config.ngram} words in {human_bytes(read)} of text"]
    written = 1 << 20 if config.out else 0
    plan.cost = Cost(bytes_read=read, bytes_written=written, seconds=2.0 + read / BYTES_PER_SECOND)
    return plan


def run_contamination(plan: Plan, context: Context) -> Result:
    """Take the items, stream the training text, judge, write, show."""
    config = plan.config
    assert isinstance(config, CheckContamination)
    sought = sought_of_run(config.run) if config.run is not None else sought_of_tasks(config.tasks, config.data)
    overlap = Overlap([each.parts for each in sought], config.ngram, config.shortest)
    skipped, characters = Skipped(), 0
    with context.reporter.bar("reading", None, "characters") as bar:
        for passage in overlap.scanned(passages(config.against, skipped)):
            characters += len(passage.text)
            bar.advance(len(passage.text))
    rows = item_rows(sought, overlap, config.dirty)
    found = sorted((row for row in rows if row["found"]), key=lambda row: -row["share"])
    compared, left_out = scores(config.run, rows, config.metric) if config.run is not None else ([], {})
    data = {
        "ngram": config.ngram,
        "shortest": config.shortest,
        "dirty": config.dirty,
        "characters": characters,
        **contamination_data(sought, rows),
        "scores": compared,
        "no_scores": left_out,
        "examples": found[: config.most],
        "skipped": skipped.as_data(),
    }
    blocks = contamination_blocks(data, data["examples"])
    if plan.out is not None:
        write_json(context.out / CONTAMINATION_FILE, data)
        not_clean = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows if row["verdict"] != "clean")
        write_text(context.out / FOUND_FILE, "".join(not_clean))
        write_report(context.out / REPORT_FILE, "Contamination", [Section("Items in training text", blocks)])
    return Result(data, blocks)


def _plan_runs(plan: Plan, runs: Sequence[Path], specs: Specs, wanted: frozenset[str] = ANSWER_PARTS) -> None:
    """Add the runs as inputs, and checks that they keep what is wanted."""
    for number, run in enumerate(runs):
        parts = specs.of(run, EvaluationSpec).parts
        has_items = bool(wanted & set(parts))
        plan.checks.append(
            Check(str(run), has_items, ", ".join(parts) if has_items else "no tasks were measured in it")
        )
        plan.inputs[f"runs.{number}"] = run
