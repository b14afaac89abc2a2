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
from bottega.evaluate.analysis.answers import answers_of
from bottega.evaluate.analysis.compare import compare
from bottega.evaluate.analysis.compare_view import COMPARISON_FILE, comparison_blocks
from bottega.evaluate.analysis.config import AnalyseErrors, CompareRuns
from bottega.evaluate.analysis.errors import analyse, disagreements, export_rows
from bottega.evaluate.analysis.errors_view import ERRORS_FILE, errors_blocks, errors_sections
from bottega.evaluate.analysis.pairing import choose_models
from bottega.evaluate.items import ITEMS_FILE
from bottega.evaluate.spec import EvaluationSpec

REPORT_FILE, EXPORT_FILE = "report.html", "errors.jsonl"
WITH_ITEMS = {"tasks", "choice"}  # parts of an evaluation that keep items


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


def _plan_runs(plan: Plan, runs: Sequence[Path], specs: Specs) -> None:
    """Add the runs as inputs, and checks that they keep items."""
    for number, run in enumerate(runs):
        parts = specs.of(run, EvaluationSpec).parts
        has_items = bool(WITH_ITEMS & set(parts))
        plan.checks.append(
            Check(str(run), has_items, ", ".join(parts) if has_items else "no tasks were measured in it")
        )
        plan.inputs[f"runs.{number}"] = run
