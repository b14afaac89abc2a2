"""What `bottega compare` shows, from its data. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bottega.core.view import Bar, Bars, Block, Table, Text
from bottega.evaluate.analysis.compare import NO_DIFFERENCE
from bottega.evaluate.figures import difference_text

COMPARISON_FILE = "comparison.json"
MOST_BARS = 60
NOTE = (
    "A minus B on the items that both were asked alike, by the paired bootstrap; shares in points, perplexities as "
    "their ratio A / B. Holm's p is corrected for the number of tasks; under 0.05 a difference is shown. Detectable: "
    "what four of five samples of this size would have shown. Less may be there and not be seen."
)
TESTS_NOTE = "McNemar: exact, of the items that one alone has right. Sign flips: differences with random signs."


def comparison_blocks(data: Mapping[str, Any]) -> list[Block]:
    """The verdict, the tasks as a table and as intervals, the tests, and what was not compared."""
    rows = [(row["task"], row) for row in data["tasks"]]
    if data["overall"] is not None:
        rows.insert(0, (f"mean of {len(data['overall']['tasks'])}", data["overall"]))
    blocks: list[Block] = [Text(verdict_text(data)), _differences(data, rows)]
    if bars := difference_bars(data):
        blocks.append(bars)
    blocks.append(_scores(rows))
    refused = [(row["task"], reason, count) for row in data["tasks"] for reason, count in row["refused"].items()]
    if refused:
        blocks.append(Table("Items that are not compared", ("task", "why", "items"), refused))
    if data["not_compared"]:
        blocks.append(Table("Tasks that are not compared", ("task", "why"), list(data["not_compared"].items())))
    return blocks


def _differences(data: Mapping[str, Any], rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    cells = [
        (
            name,
            row["items"],
            _amount(row, row["difference"]),
            _interval(row),
            f"{row['p_holm']:.2g}" if "p_holm" in row else f"{row['p_value']:.2g}",
            row["verdict"],
            "" if row["detectable"] is None else _amount(row, row["detectable"], sign=""),
        )
        for name, row in rows
    ]
    columns = ("task", "items", "A − B", "95 % interval", "Holm's p", "what is shown", "detectable")
    return Table(f"A: {data['first']['model']}, B: {data['second']['model']}", columns, cells, NOTE)


def _scores(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    cells = []
    for name, row in rows:
        scores = [f"{100 * row[side]:.1f} %" if row["is_share"] else f"{row[side]:.4g}" for side in ("first", "second")]
        alone = ["" if row.get(side) is None else row[side] for side in ("only_first", "only_second")]
        arrow = "" if row["higher_is_better"] else " (lower is better)"
        cells.append((name, row.get("metric", "") + arrow, *scores, *alone, row["test"], f"{row['p_value']:.2g}"))
    columns = ("task", "metric", "A", "B", "A alone right", "B alone right", "test", "p")
    return Table("Scores and tests", columns, cells, TESTS_NOTE)


def verdict_text(data: Mapping[str, Any]) -> str:
    """One sentence or two: over all tasks if there are several, and in which of them."""
    rows, overall = data["tasks"], data["overall"]
    whole = overall or (rows[0] if len(rows) == 1 else None)
    parts = []
    if whole is not None:
        unit = " points" if whole["is_share"] else ""
        figures = f"{_amount(whole, whole['difference'])} {_interval(whole)}".rstrip() + unit
        parts.append(f"{'Over all tasks' if overall else whole['task']}: {_named(data, whole)}, {figures}.")
        if not whole["shown"] and whole["detectable"] is not None:
            parts.append(f"So many items would show a difference of {_amount(whole, whole['detectable'], '')}{unit}.")
    if len(rows) > 1:
        shown = [f"{row['task']} ({_named(data, row)})" for row in rows if row["shown"]]
        parts.append(f"Task by task: {', '.join(shown) or NO_DIFFERENCE}.")
    return " ".join(parts)


def difference_bars(data: Mapping[str, Any]) -> Bars | None:
    """The differences of shares with their intervals, zero marked; None if there is no share."""
    rows = [(row["task"], row) for row in data["tasks"] if row["is_share"]]
    if data["overall"] is not None:
        rows.insert(0, ("mean of the tasks", data["overall"]))
    if not rows:
        return None
    bars = []
    for name, row in rows[:MOST_BARS]:
        low, high = row["ci95"] or (None, None)
        bars.append(Bar(name, row["difference"], low, high, reference=0.0))
    more = f" The first {MOST_BARS} of {len(rows)}." if len(rows) > MOST_BARS else ""
    return Bars(
        "Differences and their 95 % intervals",
        "A − B",
        bars,
        percent=True,
        from_zero=False,
        reference_label="no difference",
        note=f"The intervals are each task's own, not corrected for their number.{more}",
    )


def comparison_report(folder: Path) -> list[Block]:
    """What a report shows of a finished comparison."""
    return comparison_blocks(json.loads((folder / COMPARISON_FILE).read_text("utf-8")))


def _named(data: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The verdict with the model's name."""
    sides = {"A": data["first"]["model"], "B": data["second"]["model"]}
    return f"{sides[row['verdict'][0]]} is better" if row["shown"] else row["verdict"]


def _amount(row: Mapping[str, Any], value: float, sign: str = "+") -> str:
    return difference_text(value, share=row["is_share"], is_ratio=row.get("is_ratio", False), sign=sign)


def _interval(row: Mapping[str, Any]) -> str:
    if row["ci95"] is None:
        return ""
    return f"[{_amount(row, row['ci95'][0])}, {_amount(row, row['ci95'][1])}]"
