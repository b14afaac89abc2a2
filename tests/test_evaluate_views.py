"""What is shown of evaluations in words where there is no figure, and how it stands in 80 columns."""

from __future__ import annotations

import io
import math
from typing import Any

from rich.console import Console

from bottega.cli.render import show
from bottega.core.view import Bar, Bars, Block, Table
from bottega.evaluate.analysis.contamination_view import contamination_blocks
from bottega.evaluate.analysis.errors_view import MOST_ROWS, errors_blocks, errors_report_blocks
from bottega.evaluate.judge.view import judge_blocks
from bottega.evaluate.tasks_view import evaluation_tasks_blocks, failures, variants_table, without_average

FIGURE = {"value": 0.35, "stderr": 0.1, "ci95": [0.181, 0.567]}


def shown(*blocks: Block) -> str:
    console = Console(file=io.StringIO(), width=80)
    show(blocks, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def model(**more: Any) -> dict[str, Any]:
    tasks = {"bare": {"num_fewshot": 0, "main_metric": "acc"}, "drawn": {"num_fewshot": 4, "main_metric": "acc"}}
    results = {task: {"acc": FIGURE} for task in tasks}
    return {"model": "m", "results": results, "tasks": tasks, "groups": {}, "group_tasks": {}, "errors": {}, **more}


def test_other_examples_vary_nothing_where_none_are_drawn() -> None:
    results = {task: {"acc": {**FIGURE, "value": 0.5}} for task in ("bare", "drawn")}
    drawn = {"variant": "examples drawn with seed 2", "results": results, "errors": {}}
    bare, varied = variants_table(model(variants=[drawn])).rows
    assert bare[4:] == ("", "", "not varied") and varied[4:] == ("35.0 %", "50.0 %", "")
    note = variants_table(model(variants=[drawn])).note
    assert "the model has none" in note and "Not varied: no examples are drawn." in note
    table = variants_table(model(variants=[drawn, {**drawn, "variant": "as plain text"}]))
    assert table.rows[0][4:] == ("35.0 %", "50.0 %", "") and "the model has none" not in table.note
    assert "Not varied" not in table.note


def test_a_group_with_a_failed_member_says_why_it_has_no_average() -> None:
    members = {"mmlu": ["bare", "mmlu_x"], "whole": ["bare", "drawn"]}
    errors = {"mmlu_x": "task mmlu_x: there is no split 'test'", "mmlu": "task mmlu_x: is another"}
    found = model(group_tasks=members, errors=errors, groups={"whole": {"acc": FIGURE}})
    assert without_average(found) == ["mmlu: no average, because mmlu_x failed"]
    assert "mmlu: no average, because mmlu_x failed" in shown(*evaluation_tasks_blocks({"models": [found]}))
    text = shown(failures(found))
    assert "mmlu_x failed: there is no split 'test'\n" in text and "mmlu failed: task mmlu_x: is another" in text


def test_many_failed_members_are_counted() -> None:
    names = [f"t{number}" for number in range(9)]
    (line,) = without_average(model(group_tasks={"g": names}, errors=dict.fromkeys(names, "no data")))
    assert line == "g: no average, because t0, t1, t2 and 6 more failed"


def group(kind: str, name: str, items: int, mistakes: int) -> dict[str, Any]:
    return {
        "kind": kind, "name": name, "items": items, "mistakes": mistakes, "share": FIGURE, "rest": 0.2,
        "difference": 0.15, "ci95": [0.05, 0.25], "p_value": 0.001, "p_adjusted": 0.002, "shown": True,
    }  # fmt: skip


def test_errors_are_few_in_the_terminal_and_all_in_the_report() -> None:
    places = [("A of 2", 60, 20), ("B of 2", 40, 5)]
    groups = [group("place of the right answer", *place) for place in places]
    groups += [group("column label", name, items, 9) for name, items in (("x", 30), ("y", 70))]
    groups += [group("column topic", f"topic {number}", 10 + number, 3) for number in range(7)]
    found = {"model": "m", "mistakes": 25, "items": 100, "share": FIGURE, "left_out": {}, "groups": groups,
             "words": [], "words_compared": 3, "positions": [], "confident": []}  # fmt: skip
    data = {"models": [found], "disagreements": None}
    terminal, report = errors_blocks(data), errors_report_blocks(data)
    (few, few_bars), (every, every_bars) = (
        [block for block in blocks if isinstance(block, Table | Bars)] for blocks in (terminal, report)
    )
    assert isinstance(few, Table) and isinstance(every, Table)
    assert len(few.rows) == MOST_ROWS and few.note.startswith("6 more in the report") and len(every.rows) == 11
    assert isinstance(few_bars, Bars) and isinstance(every_bars, Bars)
    assert len(few_bars.bars) == MOST_ROWS and len(every_bars.bars) == 11
    assert "column label: x" in [row[0] for row in every.rows]


def test_text_of_contaminated_items_is_cut() -> None:
    whole = {"task": "t", "items": 1, "dirty": 1, "suspect": 0, "clean": 0, "too short": 0, "share_dirty": None,
             "by_prompt": 0}  # fmt: skip
    data = {"tasks": [whole], "characters": 9, "ngram": 8, "shortest": 5, "dirty": 0.5, "scores": [], "no_scores": {},
            "skipped": {}}  # fmt: skip
    row = {"task": "t", "doc_id": 0, "verdict": "dirty", "found": 1, "ngrams": 1, "place": "a", "text": "word\n" * 90}
    (table,) = [block for block in contamination_blocks(data, [row]) if "found" in getattr(block, "title", "")]
    assert isinstance(table, Table) and len(table.rows[0][-1]) == 60 and "\n" not in table.rows[0][-1]


def test_intervals_and_words_stay_whole_in_80_columns() -> None:
    metric = "exact_match,first-number"
    cells = [("smoke_completion", metric, "35.0 %", "[18.1, 56.7] %", "25.0 %", "30.0 %", "no examples are drawn")]
    columns = ("task", "metric", "as asked first", "95 % interval", "lowest", "highest", "")
    text = shown(Table("T", columns, cells))
    assert "[18.1, 56.7] %" in text and max(map(len, text.splitlines())) <= 80
    words = [word for line in text.splitlines() for word in line.split()]
    assert {"completion", "number", "35.0", "examples"} <= {part for word in words for part in word.split("-")}
    bars = [Bar("TinyStories-656K", 0.35, 0.181, 0.567, group=f"smoke_completion, {metric}", reference=0.25)]
    text = shown(Bars("B", "share of items", bars, percent=True, reference_label="chance"))
    assert "18.1 to 56.7 %" in text and max(map(len, text.splitlines())) <= 80 and "●" in text
    assert "TinyStories-" in text and "number" in text and "completion" in text


def test_a_judge_that_is_never_understood_draws_no_bars() -> None:
    nothing = {"value": math.nan, "low": None, "high": None, "count": 0}
    found = {"model": "m", "points": nothing, "turns": {}, "categories": {}}
    match = {"first": "m", "second": "n", "wins": 0, "ties": 0, "losses": 0, "undecided": 9, "points": nothing}
    calls = {"total": 18, "failed": 0, "unusable": 18, "cut_off": 0, "prompt_tokens": 0, "completion_tokens": 0}
    data = {"mode": "pairwise", "judge": "j", "models": [found, {**found, "model": "n"}], "calls": calls,
            "matches": [{**match, "shown": False}], "position": None, "style": {"length": None, "format": {}},
            "comparisons": 0, "own": None, "people": None, "failures": {}}  # fmt: skip
    blocks = judge_blocks(data)
    assert not any(isinstance(block, Bars) for block in blocks)
    text = shown(*blocks)
    assert "cannot be said: no verdict" in text and "no difference" not in text and "No bias" not in text
