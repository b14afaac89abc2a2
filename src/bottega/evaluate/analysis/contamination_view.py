"""What `bottega contamination` shows, from its data. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bottega.core.view import Bar, Bars, Block, Table, Text
from bottega.evaluate.analysis.contamination import VERDICTS
from bottega.evaluate.figures import interval_text, value_text

CONTAMINATION_FILE = "contamination.json"
MOST_BARS = 40
LONGEST_BEGINNING = 60  # characters of an item; `found.jsonl` has more
SCORES_NOTE = (
    "A score on dirty items that is higher than on clean ones is what memory would do, but no proof of it: the items "
    "may be easier for other reasons. Newcombe's interval for shares."
)
Row = Mapping[str, Any]


def contamination_blocks(data: Row, examples: Sequence[Row]) -> list[Block]:
    """How many items were found, where, what the scores are without them, and what could not be read."""
    blocks: list[Block] = [Text(summary_text(data)), _counts_table(data)]
    bars = [
        Bar(row["task"], row["share_dirty"]["value"], *row["share_dirty"]["ci95"])
        for row in data["tasks"][:MOST_BARS]
        if row["share_dirty"] is not None
    ]
    if any(bar.value for bar in bars):
        blocks.append(Bars("Share of dirty items", "of items that are long enough", bars, percent=True))
    if examples:
        cells = [
            (
                row["task"],
                row["doc_id"],
                row["verdict"],
                f"{row['found']} of {row['ngrams']}",
                row["place"],
                _beginning(row["text"]),
            )
            for row in examples
        ]
        columns = ("task", "item", "", "n-grams found", "first seen at", "looked for")
        blocks.append(Table("Items that were found, the most of them first", columns, cells))
    blocks += _scores(data["scores"])
    if data["no_scores"]:
        blocks.append(Table("Tasks whose scores are not compared", ("task", "why"), list(data["no_scores"].items())))
    if data["skipped"]:
        cells = [(reason, row["count"], ", ".join(row["examples"])) for reason, row in data["skipped"].items()]
        blocks.append(Table("Training text that was not read", ("why", "count", "examples"), cells))
    return blocks


def summary_text(data: Row) -> str:
    """One sentence with the counts over all items."""
    whole = data["tasks"][-1]
    parts = [
        f"Of {whole['items']} items {whole['dirty']} are dirty, {whole['suspect']} suspect, {whole['clean']} clean"
    ]
    if whole["too short"]:
        parts.append(f", and {whole['too short']} too short to tell")
    return "".join([*parts, f" ({data['characters']:,} characters of training text)."])


def contamination_report(folder: Path) -> list[Block]:
    """What a report shows of a finished check."""
    data = json.loads((folder / CONTAMINATION_FILE).read_text("utf-8"))
    return contamination_blocks(data, data["examples"])


def _counts_table(data: Row) -> Table:
    cells = [
        (row["task"], row["items"], *(row[verdict] for verdict in VERDICTS),
         *(("", "") if row["share_dirty"] is None else _shown(row["share_dirty"])))
        for row in data["tasks"]
    ]  # fmt: skip
    note = (
        f"n-grams of {data['ngram']} words, shorter texts as a whole from {data['shortest']} words on. Clean: none is "
        f"found; dirty: {100 * data['dirty']:g} % or more are; suspect: some; shares are of items long enough to tell."
    )
    by_prompt = data["tasks"][-1]["by_prompt"]
    if by_prompt:
        note += f" {by_prompt} items were looked for by their whole prompt: no text of the document stands in it."
    columns = ("task", "items", *VERDICTS, "share dirty", "95 % interval")
    return Table("Items in the training text", columns, cells, note)


def _scores(rows: Sequence[Row]) -> list[Block]:
    cells = []
    for row in rows:
        if row["dirty"] is None and row["suspect"] is None:
            continue
        difference = "" if row["difference"] is None else f"{row['difference']:+.3f}"
        interval = "" if row["ci95"] is None else f"[{row['ci95'][0]:+.3f}, {row['ci95'][1]:+.3f}]"
        cells.append(
            (row["model"], row["task"], row["metric"], *(_score(row[verdict]) for verdict in VERDICTS[:3]), difference,
             interval)
        )  # fmt: skip
    if not cells:
        return [Text("No item of a scored task was found: there are no scores to compare.")] if rows else []
    columns = ("model", "task", "metric", *VERDICTS[:3], "dirty − clean", "95 % interval")
    return [Table("Scores with and without what was found", columns, cells, SCORES_NOTE)]


def _score(figure: Row | None) -> str:
    if figure is None:
        return "no items"
    interval = "" if figure["ci95"] is None else f" [{figure['ci95'][0]:.3f}, {figure['ci95'][1]:.3f}]"
    return f"{figure['value']:.3f}{interval}, {figure['items']} items"


def _beginning(text: str) -> str:
    """The beginning of the text on one line."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_BEGINNING else f"{text[: LONGEST_BEGINNING - 1]}…"


def _shown(figure: Row) -> tuple[str, str]:
    return value_text(figure["value"], share=True), interval_text(figure, share=True)
