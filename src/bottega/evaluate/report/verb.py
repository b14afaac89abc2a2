"""`bottega report RUNS…`: evaluations side by side. Imports no torch."""

from __future__ import annotations

import csv
import io
from typing import Any

from bottega.core.atomic import write_json, write_text
from bottega.core.markdown import render_markdown
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.report import write_report
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Text
from bottega.evaluate.figures import higher_is_better
from bottega.evaluate.report.autoeval import autoeval_table
from bottega.evaluate.report.config import ReportRuns
from bottega.evaluate.report.leaderboard import Leaderboard, leaderboard
from bottega.evaluate.report.paired import rank
from bottega.evaluate.report.read import read_runs
from bottega.evaluate.report.view import leaderboard_blocks, report_facts, report_sections
from bottega.evaluate.spec import EvaluationSpec
from bottega.evaluate.tasks.suites import load_suite, suite_names
from bottega.evaluate.tasks_view import failures

HTML_FILE, MARKDOWN_FILE, CSV_FILE, JSON_FILE, TABLE_FILE = (
    "report.html", "report.md", "report.csv", "report.json", "table.md",
)  # fmt: skip
CSV_COLUMNS = (
    "model", "task", "metric", "value", "stderr", "low", "high", "higher_is_better", "chance", "items",
    "num_fewshot", "failed",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run what begins so


def plan_report(config: ReportRuns, specs: Specs) -> Plan:
    """Check that the runs are evaluations, and the suites known."""
    checks = []
    for run in config.runs:
        spec = specs.of(run, EvaluationSpec)
        checks.append(Check(str(run), bool(spec.parts), ", ".join(spec.parts) or "nothing was measured in it"))
    for name in filter(None, (config.suite, config.table)):
        load_suite(name)
    return Plan(
        verb="report",
        config=config,
        out=config.out,
        inputs={f"runs.{number}": run for number, run in enumerate(config.runs)},
        checks=checks,
        work=["compare every two models with averages, item by item"],
        cost=Cost(bytes_written=1 << 20),
    )


def run_report(plan: Plan, context: Context) -> Result:
    """Read, compare, write, show."""
    config = plan.config
    assert isinstance(config, ReportRuns)
    models, suite = read_runs(config.runs)
    name = config.suite or (suite if suite in suite_names() else None)
    board = leaderboard(models, load_suite(name) if name else None)
    rank(board.rows)
    data = report_data(board, name)
    tables = [autoeval_table(row.model, load_suite(config.table)) for row in board.rows] if config.table else []
    if plan.out is not None:
        sections, facts, subtitle = report_sections(board), report_facts(board), _subtitle(board, name)
        write_report(context.out / HTML_FILE, config.title, sections, subtitle=subtitle, facts=facts)
        markdown = render_markdown(config.title, sections, subtitle=subtitle, facts=facts)
        write_text(context.out / MARKDOWN_FILE, markdown)
        write_text(context.out / CSV_FILE, figures_csv(board))
        write_json(context.out / JSON_FILE, data)
        if tables:
            write_text(context.out / TABLE_FILE, "\n\n".join(tables) + "\n")
    return Result(data, _shown(config, board, tables))


def report_data(board: Leaderboard, suite: str | None) -> dict[str, Any]:
    """The leaderboard as plain data (`--json`)."""
    return {
        "suite": suite,
        "columns": [{"name": each.name, "left_out": each.left_out or None} for each in board.columns],
        "models": [
            {
                "model": row.model.name,
                "rank": row.rank,
                "average": row.average,
                "no_average": row.why or None,
                "columns": {
                    name: {**cell.figure, "metric": cell.metric} if cell.figure else {"cause": cell.cause}
                    for name, cell in row.cells.items()
                },
                "errors": row.model.data["errors"],
                "cost": row.model.data["cost"],
            }
            for row in board.rows
        ],
    }


def figures_csv(board: Leaderboard) -> str:
    """Every metric of every task as a row; a failed task has its cause and no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in board.rows:
        data = row.model.data
        for task, results in {**data["results"], **data["groups"]}.items():
            facts = data["tasks"].get(task, {})
            for metric, figure in results.items():
                low, high = figure.get("ci95") or ("", "")
                direction = int(higher_is_better(facts, metric))
                more = [facts.get(key, "") for key in ("chance", "items", "num_fewshot")]
                found = [figure["value"], figure.get("stderr"), low, high, direction, *more, ""]
                writer.writerow([*map(_plain, (row.model.name, task, metric)), *found])
        for task, cause in data["errors"].items():
            writer.writerow([*map(_plain, (row.model.name, task)), *[""] * (len(CSV_COLUMNS) - 3), _plain(cause)])
    return text.getvalue()


def _shown(config: ReportRuns, board: Leaderboard, tables: list[str]) -> list[Block]:
    if config.csv:
        return [Text(figures_csv(board).rstrip("\n"))]
    if tables:
        return [Text("\n\n".join(tables))]
    failed = [failures({**row.model.data, "model": row.model.name}) for row in board.rows if row.model.data["errors"]]
    return [*leaderboard_blocks(board), *failed]


def _subtitle(board: Leaderboard, suite: str | None) -> str:
    count = len(board.rows)
    what = f"the suite {suite}" if suite else f"{len(board.columns)} {'task' if len(board.columns) == 1 else 'tasks'}"
    return f"{count} {'model' if count == 1 else 'models'} on {what}."


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
