"""What `bottega errors` shows, from its data. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bottega.core.report import Section
from bottega.core.view import Bar, Bars, Block, Table, Text
from bottega.evaluate.figures import interval_text, value_text

ERRORS_FILE = "errors.json"
MOST_BARS, LONGEST_TAIL = 24, 80
MOST_ROWS = 5  # of a table or bars in the terminal
GROUPS_NOTE = (
    "Each group against the other items that have such a value. Share of mistakes with Wilson's interval, difference "
    "in points with Newcombe's; p is corrected for all groups (Benjamini and Hochberg): of those under 0.05, one in "
    "twenty is no difference."
)
WORDS_NOTE = (
    "Log-odds ratio with an informative Dirichlet prior, within tasks (Monroe et al. 2008); z is its distance from no "
    "difference in standard errors, p corrected for all n-grams compared."
)
POSITIONS_NOTE = (
    "How often each place is chosen, in points more than it is right, of the same items; p is McNemar's, by Holm."
)
Row = Mapping[str, Any]


def errors_blocks(data: Mapping[str, Any]) -> list[Block]:
    """What is shown in the terminal: the first rows of everything but the groups that do not differ."""
    return [_first_rows(block) for block in errors_report_blocks(data)]


def errors_report_blocks(data: Mapping[str, Any]) -> list[Block]:
    """The same with all rows."""
    blocks = [block for model in data["models"] for block in _model_blocks(model)]
    return [*blocks, *disagreement_blocks(data)]


def errors_sections(data: Mapping[str, Any]) -> list[Section]:
    """The report: a section for each model, their disagreements, and every group."""
    sections = [Section(f"Mistakes of {model['model']}", _model_blocks(model)) for model in data["models"]]
    if apart := disagreement_blocks(data):
        sections.append(Section("Disagreements", apart))
    groups: list[Block] = [
        _groups_table(f"{kind}: {model['model']}", rows)
        for model in data["models"]
        for kind, rows in _by_kind(model["groups"]).items()
    ]
    return [*sections, *([Section("Every group", groups)] if groups else [])]


def errors_report(folder: Path) -> list[Block]:
    """What a report shows of a finished analysis."""
    return errors_report_blocks(json.loads((folder / ERRORS_FILE).read_text("utf-8")))


def _first_rows(block: Block) -> Block:
    """A table or bars with its first rows, and how many there are more."""
    if isinstance(block, Table) and len(block.rows) > MOST_ROWS:
        note = f"{len(block.rows) - MOST_ROWS} more in the report (--out). {block.note}".strip()
        return replace(block, rows=block.rows[:MOST_ROWS], note=note)
    if isinstance(block, Bars) and len(block.bars) > MOST_ROWS:
        note = f"{len(block.bars) - MOST_ROWS} more in the report (--out). {block.note}".strip()
        return replace(block, bars=block.bars[:MOST_ROWS], note=note)
    return block


def _model_blocks(model: Row) -> list[Block]:
    share = f"{value_text(model['share']['value'], share=True)} {interval_text(model['share'], share=True)}"
    blocks: list[Block] = [Text(f"{model['model']}: {model['mistakes']} mistakes in {model['items']} items, {share}.")]
    if model["left_out"]:
        blocks.append(Table("Tasks that are left out", ("task", "why"), list(model["left_out"].items())))
    if tasks := [row for row in model["groups"] if row["kind"] == "task"]:
        blocks.append(_groups_table("Mistakes by task", tasks))
    blocks += _shown_groups(model)
    blocks += _words(model)
    blocks += _positions(model["positions"])
    if model["confident"]:
        rows = [
            (
                row["task"],
                row["doc_id"],
                value_text(row["confidence"], share=True),
                row["said"],
                row["target"],
                _tail(row),
            )
            for row in model["confident"]
        ]
        columns = ("task", "item", "confidence", "said", "right", "end of the prompt")
        blocks.append(Table("The surest mistakes", columns, rows))
    return blocks


def _shown_groups(model: Row) -> list[Block]:
    others = [row for row in model["groups"] if row["kind"] != "task"]
    tested = [row for row in others if row["p_value"] is not None]
    shown = [row for row in tested if row["shown"]]
    untested = f" {len(others) - len(tested)} were too small to test." if len(tested) < len(others) else ""
    if not shown:
        return [Text(f"None of {len(tested)} other groups is shown to have more or fewer mistakes.{untested}")]
    bars = [
        Bar(f"{row['kind']}: {row['name']}", row["share"]["value"], *row["share"]["ci95"], reference=row["rest"])
        for row in shown[:MOST_BARS]
    ]
    title = f"Groups that differ from the rest ({len(shown)} of {len(tested)} tested)"
    return [
        _groups_table(title, shown, named=True),
        Bars("Share of mistakes in groups that differ", "mistakes", bars, percent=True, reference_label="the rest",
             note=untested.strip()),
    ]  # fmt: skip


def _groups_table(title: str, rows: Sequence[Row], *, named: bool = False) -> Table:
    cells = [
        (
            f"{row['kind']}: {row['name']}" if named else row["name"],
            row["items"],
            value_text(row["share"]["value"], share=True),
            interval_text(row["share"], share=True),
            value_text(row["rest"], share=True),
            *_difference(row),
        )
        for row in rows
    ]
    columns = ("group", "items", "mistakes", "95 % interval", "the rest", "difference", "95 % interval", "p")
    return Table(title, columns, cells, GROUPS_NOTE)


def _difference(row: Row) -> tuple[str, str, str]:
    low, high = row["ci95"]
    interval = "" if low is None else f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    p_value = "too few" if row["p_adjusted"] is None else f"{row['p_adjusted']:.2g}"
    return f"{100 * row['difference']:+.1f}", interval, p_value


def _words(model: Row) -> list[Block]:
    shown = [row for row in model["words"] if row["shown"]]
    if not shown:
        return [Text(f"None of {model['words_compared']} n-grams is shown to be more frequent in mistakes.")]
    cells = [
        (row["words"], row["wrong"], row["right"], f"{row['log_odds']:+.2f}", f"{row['z']:.1f}",
         f"{row['p_adjusted']:.2g}")
        for row in shown
    ]  # fmt: skip
    columns = ("words", "in mistakes", "in right answers", "log-odds", "z", "p")
    return [Table("Words that mistakes have more often", columns, cells, WORDS_NOTE)]


def _positions(rows: Sequence[Row]) -> list[Block]:
    if not rows:
        return []
    cells = [
        (f"{row['position']} of {row['choices']}", row["items"], value_text(row["chosen"]["value"], share=True),
         interval_text(row["chosen"], share=True), value_text(row["right"], share=True), *_difference(row),
         ("chosen too often" if row["difference"] > 0 else "chosen too rarely") if row["shown"] else "not shown")
        for row in rows
    ]  # fmt: skip
    columns = ("place", "items", "chosen", "95 % interval", "right", "difference", "95 % interval", "p", "bias")
    bars = [
        Bar(row["position"], row["chosen"]["value"], *row["chosen"]["ci95"], group=f"of {row['choices']} choices",
            reference=row["right"])
        for row in rows
    ]  # fmt: skip
    return [
        Table("Places among the choices", columns, cells, POSITIONS_NOTE),
        Bars("How often each place is chosen", "chosen", bars, percent=True, reference_label="right"),
    ]


def disagreement_blocks(data: Mapping[str, Any]) -> list[Block]:
    """Who is right where, and examples; nothing of a single model."""
    apart = data["disagreements"]
    if apart is None:
        return []
    first, second = (model["model"] for model in data["models"])
    keys = ("task", "items", "both_right", "only_first", "only_second", "both_wrong")
    rows = [[*(row[key] for key in keys), f"{row['p_value']:.2g}"] for row in apart["tasks"]]
    columns = ("task", "items", "both right", "A alone", "B alone", "both wrong", "McNemar's p")
    left = f" {apart['not_compared']} answers were to items that the other was not asked alike." * bool(
        apart["not_compared"]
    )
    blocks: list[Block] = [Table(f"A: {first}, B: {second}", columns, rows, f"How often who is right.{left}")]
    for key, name in (("only_first", first), ("only_second", second)):
        cells = [(row["task"], row["doc_id"], *row["said"], row["target"], _tail(row)) for row in apart[key]]
        columns = ("task", "item", "A said", "B said", "right", "end of the prompt")
        if cells:
            blocks.append(Table(f"Right by {name} alone", columns, cells))
    return blocks


def _tail(row: Row) -> str:
    """The end of the prompt on one line."""
    text = " ".join(row["prompt"].split())
    return text if len(text) <= LONGEST_TAIL else f"…{text[1 - LONGEST_TAIL :]}"


def _by_kind(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["kind"], []).append(row)
    return found
