"""The report's sections, as blocks for the page, for Markdown and for the terminal. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bottega.core.report import Fact, Section
from bottega.core.view import Bar, Bars, Block, Table, Text, human_bytes, human_count, human_seconds
from bottega.evaluate.figures import half_width, value_text, with_interval
from bottega.evaluate.report.leaderboard import Cell, Column, Leaderboard, Row
from bottega.evaluate.report.paired import compare_task, is_shown
from bottega.evaluate.report.reliability import reliability_blocks
from bottega.evaluate.tasks_view import failures, groups_table, results_table, variants_table

MOST_BARS = 48  # in one figure
MOST_CAUSE = 40  # characters of why a cell is empty
GOODHART = (
    "A benchmark is a sample of what models are asked, not what you will ask. As soon as a score is what models are "
    "chosen, tuned and advertised by, it is worked towards, and says less than it did (Goodhart's law). "
    "Models that come out close here should be tried on your own task before one is preferred.",
    "A model that met these items, or near copies of them, in training may remember instead of solve; a score cannot "
    "tell which. Where you have the training data, search it for the items; where you have not, trust a high score on "
    "an old, public benchmark least.",
    "An interval says how far the luck of which items were drawn reaches. It does not cover wrong answer keys, the "
    "form of the prompt, or the distance between these items and yours.",
)


def report_sections(board: Leaderboard) -> list[Section]:
    """Every section that has something to show, the most important first."""
    models = [row.model for row in board.rows]
    failed = [failures(_named(model)) for model in models if model.data["errors"]]
    sections = [
        Section("Failed tasks", failed),
        Section("Leaderboard", leaderboard_blocks(board)),
        Section("What the scores cannot say", [Text(each) for each in GOODHART]),
        Section("Task by task", task_blocks(board)),
        Section("Calibration", reliability_blocks(models)),
        Section("How much the form of the question matters", [_variants(row) for row in board.rows if _varied(row)]),
        Section("Cost and time", cost_blocks(board)),
        Section("Every figure", every_figure(board)),
        Section("What was measured", [provenance_table(board)]),
    ]
    return [section for section in sections if section.blocks]


def report_facts(board: Leaderboard) -> list[Fact]:
    """The figures at the top of the page."""
    rated = [row for row in board.rows if row.average is not None]
    facts = []
    if rated:
        best = value_text(rated[0].average["value"], share=True) if rated[0].average else ""
        facts.append(Fact("Best average", best, rated[0].model.name))
        level = sum(row.rank == 1 for row in rated)
        if len(rated) > 1:
            note = "not shown to be worse than any other" if level > 1 else "shown to be better than every other"
            facts.append(Fact("In first place", f"{level} of {len(rated)}", note))
    failed = sum(len(row.model.data["errors"]) for row in board.rows)
    tasks = {task for row in board.rows for task in row.model.tasks}
    facts.append(Fact("Tasks", str(len(tasks)), f"{failed} failed" if failed else "none failed"))
    seconds = sum(row.model.data["cost"].get("seconds", 0) for row in board.rows)
    if seconds:
        facts.append(Fact("Measured in", human_seconds(seconds), "all models together"))
    return facts


def leaderboard_blocks(board: Leaderboard) -> list[Block]:
    """The table, the averages as bars, and what is shown about their differences."""
    blocks: list[Block] = [leaderboard_table(board)]
    rated = [row for row in board.rows if row.average is not None]
    if len(rated) > 1:
        bars = [Bar(row.model.name, row.average["value"], *_ends(row.average)) for row in rated if row.average]
        blocks += [Bars("Averages and their 95 % intervals", "average", bars, percent=True), differences_table(rated)]
    without = [f"{row.model.name} has no average. {row.why}." for row in board.rows if row.average is None]
    return [*blocks, *map(Text, without)]


def leaderboard_table(board: Leaderboard) -> Table:
    """Model, rank, average and every column; values with their 95 % intervals, shares in per cent."""
    single = len(board.columns) == 1
    columns = [
        "model",
        "rank",
        *([] if single else ["average"]),
        *(_heading(board, column) for column in board.columns),
    ]
    rows = []
    for row in board.rows:
        average = "none" if row.average is None else with_interval(row.average, share=True)
        cells = [_cell(row.cells[column.name]) for column in board.columns]
        rows.append([row.model.name, row.rank, *([] if single else [average]), *cells])
    return Table("Models by average" if not single else "Models by score", columns, rows, _leaderboard_note(board))


def differences_table(rated: Sequence[Row]) -> Table:
    """Each model's average against the best one's."""
    best, *others = rated
    rows = []
    for row in others:
        found = row.behind_best
        if found is None or found.low is None or found.high is None:
            rows.append([row.model.name, "not known", "", "", "no error is known"])
            continue
        said = f"{best.model.name} is better" if is_shown(found) and found.value > 0 else "no difference shown"
        interval = f"[{0 - 100 * found.high:+.1f}, {0 - 100 * found.low:+.1f}]"
        rows.append([row.model.name, f"{0 - 100 * found.value:+.1f}", interval, found.count, said])
    title = f"Against {best.model.name}, the best average"
    note = "In points of the average. Paired bootstrap: items are drawn, each with both models' answers."
    return Table(title, ("model", "difference", "95 % interval", "items that differ", "what is shown"), rows, note)


def task_blocks(board: Leaderboard) -> list[Block]:
    """Bars of every column over the models, chance marked; with two models each column's paired difference too."""
    groups = [found for column in board.columns if (found := _column_bars(board, column))]
    blocks: list[Block] = []
    figures: list[list[Bar]] = []
    for bars in groups:
        if not figures or len(figures[-1]) + len(bars) > MOST_BARS:
            figures.append([])
        figures[-1] += bars
    for number, bars in enumerate(figures, 1):
        part = f", part {number} of {len(figures)}" if len(figures) > 1 else ""
        note = "The dashed line is what answering at random comes to." if any(b.reference for b in bars) else ""
        title = f"Scores and their 95 % intervals{part}"
        blocks.append(Bars(title, "share of items", bars, percent=True, note=note, reference_label="chance"))
    if len(board.rows) > 1:
        blocks += _task_differences(board)
    return blocks


def cost_blocks(board: Leaderboard) -> list[Block]:
    """What the measuring took, model by model."""
    rows = []
    for row in board.rows:
        cost, data = row.model.data["cost"], row.model.data
        if not cost:
            continue
        seconds, tokens = cost.get("seconds"), cost.get("tokens", 0) + cost.get("generated_tokens", 0)
        rows.append(
            [
                row.model.name,
                None if data["parameters"] is None else human_count(data["parameters"]),
                data["dtype"],
                None if seconds is None else human_seconds(seconds),
                *(human_count(cost.get(key, 0)) for key in ("tokens", "cached_tokens", "generated_tokens")),
                human_count(tokens / seconds) if seconds and tokens else None,
                cost.get("reused_items", 0),
                human_bytes(cost["peak_memory"]) if cost.get("peak_memory") else None,
            ]
        )
    if not rows:
        return []
    columns = ("model", "parameters", "precision", "time", "tokens computed", "from cache", "generated")
    note = (
        "From cache: tokens of prompts that were shared and not computed again. Known before: answers taken from an "
        "earlier run, which cost no time; rates are comparable only where there are none. Peak memory is the process's."
    )
    more = ("tokens per second", "known before", "peak memory")
    return [Table("What it took", (*columns, *more), rows, note)]


def every_figure(board: Leaderboard) -> list[Block]:
    """All metrics of all tasks, a table for each model."""
    blocks: list[Block] = []
    for row in board.rows:
        data = _named(row.model)
        blocks += [results_table(data, several=True)] if data["results"] else []
        blocks += [groups_table(data, several=True)] if data["groups"] else []
    return blocks


def provenance_table(board: Leaderboard) -> Table:
    """Which weights, in which run."""
    rows = []
    for row in board.rows:
        data = row.model.data
        limit = f"first {data['limit']} items only" if data["limit"] else "whole tasks"
        items = "yes" if row.model.items else "no: differences as of independent samples"
        runs = ", ".join(run.name for run in row.model.runs)
        rows.append([row.model.name, data["model_hash"][:12], runs, limit, items])
    return Table("Models and runs", ("model", "hash", "runs", "extent", "items kept"), rows)


def _column_bars(board: Leaderboard, column: Column) -> list[Bar]:
    bars = []
    for row in board.rows:
        cell = row.cells[column.name]
        if cell.figure is None or not cell.share:
            continue
        group = f"{column.name} ({cell.metric})"
        bars.append(Bar(row.model.name, cell.figure["value"], *_ends(cell.figure), group=group, reference=cell.chance))
    return bars


def _task_differences(board: Leaderboard) -> list[Block]:
    """Every task's paired difference from the first model (of many models from the best only, in one table)."""
    first, *others = [row for row in board.rows if row.cells]
    rows = []
    names = [part for column in board.columns for part in dict.fromkeys(p.task for p in first.cells[column.name].parts)]
    for row in others:
        for name in dict.fromkeys(names):
            found = compare_task(row.model, first.model, name)
            if found is None:
                continue
            label = [row.model.name] if len(others) > 1 else []
            p_value = "" if found["p_value"] is None else f"{found['p_value']:.2g}"
            rows.append([*label, name, found["metric"], found["amount"], found["interval"], p_value, found["said"]])
    if not rows:
        return []
    columns = ("task", "metric", "difference", "95 % interval", "p", "what is shown")
    columns = ("model", *columns) if len(others) > 1 else columns
    subject = "Each model" if len(others) > 1 else others[0].model.name
    note = (
        "The row's model minus the other, on the same items; shares in points, perplexities as their ratio. p is "
        "McNemar's of what is right or wrong, sign flips' of perplexities. With many rows some differences are shown "
        "by luck: of 20 that are none, one."
    )
    return [Table(f"{subject} against {first.model.name}, item by item", columns, rows, note)]


def _variants(row: Row) -> Table:
    return variants_table(_named(row.model))


def _varied(row: Row) -> bool:
    return bool(row.model.data.get("variants"))


def _named(model: Any) -> dict[str, Any]:
    """The model's data under the name that the report gives it."""
    return {**model.data, "model": model.name}


def _ends(figure: Any) -> tuple[float | None, float | None]:
    return tuple(figure["ci95"]) if half_width(figure) is not None else (None, None)


def _heading(board: Leaderboard, column: Column) -> str:
    metrics = list(dict.fromkeys(row.cells[column.name].metric for row in board.rows if row.cells[column.name].metric))
    return f"{column.name}, {metrics[0]}" if len(metrics) == 1 and not _common_metric(board) else column.name


def _common_metric(board: Leaderboard) -> str:
    """The metric of all columns, if they have one."""
    metrics = {cell.metric for row in board.rows for cell in row.cells.values() if cell.figure is not None}
    return metrics.pop() if len(metrics) == 1 else ""


def _cell(cell: Cell) -> str:
    if cell.figure is None:  # the whole cause stands below, and at the top
        return cell.cause if len(cell.cause) <= MOST_CAUSE else f"{cell.cause[:MOST_CAUSE]}…"
    return with_interval(cell.figure, share=cell.share)


def _leaderboard_note(board: Leaderboard) -> str:
    metric = _common_metric(board)
    parts = [f"{metric or 'Value'} [95 % interval]; shares in per cent."]
    if sum(row.rank is not None for row in board.rows) > 1:
        parts.append(
            "Rank: one more than the number of models that are shown to be better (paired bootstrap over the same "
            "items); equal ranks mean that no difference is shown, not that there is none."
        )
    left_out = [f"{column.name} ({column.left_out})" for column in board.columns if column.left_out]
    if left_out:
        parts.append(f"Not in the average: {'; '.join(left_out)}.")
    if any(row.model.data["limit"] for row in board.rows):
        parts.append("Some models answered only the first items of each task: those are not the tasks' scores.")
    return " ".join(parts)
