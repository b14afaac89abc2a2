"""`bottega report` on generated runs: what it averages, ranks, refuses and writes."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bottega.cli.render import show
from bottega.core.chart import bar_chart, bar_twin, line_chart, line_twin
from bottega.core.errors import UserError
from bottega.core.markdown import escaped, paragraph, table_markdown
from bottega.core.plan import Specs
from bottega.core.progress import Quiet
from bottega.core.verb import Result, execute
from bottega.core.view import Bar, Bars, Chart, Table, Text
from bottega.evaluate.analysis.calibration import calibration
from bottega.evaluate.figures import is_share, shown_metric, with_interval
from bottega.evaluate.report.autoeval import markdown_table
from bottega.evaluate.report.leaderboard import Leaderboard, leaderboard
from bottega.evaluate.report.paired import comparisons, difference, is_shown, rank
from bottega.evaluate.report.read import read_runs
from bottega.evaluate.report.reliability import reliability_blocks
from bottega.evaluate.statistics import mean_interval, paired_difference, wilson
from bottega.evaluate.tasks.suites import load_suite
from bottega.evaluate.tasks_view import evaluation_tasks_blocks
from bottega.verbs.registry import VERBS
from evaluation_runs import write_perplexities, write_run

HOSTILE = '<script>alert(1)</script>|a*b`c[x](http://evil.example) & "q"'
STRONG, WEAK = {"alpha": 0.8, "beta": 0.7}, {"alpha": 0.4, "beta": 0.35}


class Page(HTMLParser):
    """Tags and the text in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def board_of(*folders: Path, suite: str | None = None) -> Leaderboard:
    models, _ = read_runs(folders)
    board = leaderboard(models, load_suite(suite) if suite else None)
    rank(board.rows)
    return board


def report(**settings: Any) -> Result:
    """What the verb gives for `--json` and what it shows."""
    verb = VERBS["report"]
    config = verb.config_type().parse(settings)
    return execute(verb, verb.make_plan(config, Specs()), Quiet())


def printed(**settings: Any) -> str:
    """The one text that is shown."""
    (block,) = report(**settings).view
    assert isinstance(block, Text)
    return block.text


def edit(folder: Path, change: Any) -> Path:
    path = folder / "evaluation.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return folder


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Every table as rows of cells; fails on rows of another length than the head."""
    found: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        found = found if inside else [*found, []]
        inside = True
        found[-1].append(cells)
    for rows in found:
        assert all(len(row) == len(rows[0]) for row in rows), rows
        assert all(re.fullmatch("-+:?", cell) for cell in rows[1])
    return found


def test_better_models_are_ranked_first_and_equal_ones_share_a_rank(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"weak": WEAK, "strong": STRONG})
    two = write_run(tmp_path / "two", {"twin": {"alpha": 0.8, "beta": 0.71}})
    board = board_of(one, two)
    assert {row.model.name: row.rank for row in board.rows} == {"strong": 1, "twin": 1, "weak": 3}
    assert board.rows[-1].model.name == "weak"
    assert not any(column.left_out for column in board.columns)
    strong = next(row for row in board.rows if row.model.name == "strong")
    values = [cell.figure["value"] for cell in strong.cells.values() if cell.figure]
    assert strong.average is not None and strong.average["value"] == pytest.approx(sum(values) / 2)


def test_difference_is_the_paired_bootstrap(tmp_path: Path) -> None:
    board = board_of(write_run(tmp_path / "run", {"a": {"alpha": 0.6}, "b": {"alpha": 0.5}}, items=300))
    first, second = board.rows
    found = difference(first, second)
    values = [[row.model.items["alpha"][doc_id][1].metrics["acc"] for doc_id in range(300)] for row in (first, second)]
    expected = paired_difference(*values)
    assert found is not None and found.low is not None and expected.low is not None
    assert found.value == pytest.approx(expected.value)
    assert found.low == pytest.approx(expected.low, abs=0.006) and found.high == pytest.approx(expected.high, abs=0.006)
    assert found.count == sum(a != b for a, b in zip(*values, strict=True))


def test_items_that_are_not_the_same_are_compared_as_independent_and_wider(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": {"alpha": 0.6}, "b": {"alpha": 0.5}})
    bare = shutil.copytree(run, tmp_path / "bare")
    (bare / "items.jsonl").unlink()
    other = write_run(tmp_path / "other", {"b": {"alpha": 0.5}}, seed=0)
    rows = [json.loads(line) for line in (other / "items.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"doc": {"question": "another"}}) + "\n" for row in rows]
    (other / "items.jsonl").write_text("".join(lines))
    apart = edit(shutil.copytree(run, tmp_path / "alone"), lambda data: data["models"].pop())
    widths = []
    for folders in ([run], [bare], [apart, other]):
        found = difference(*board_of(*folders).rows)
        assert found is not None and found.low is not None and found.high is not None
        widths.append(found.high - found.low)
    assert widths[0] < 0.7 * widths[1] and widths[1] == pytest.approx(widths[2], rel=0.05)


def test_few_items_show_nothing(tmp_path: Path) -> None:
    board = board_of(write_run(tmp_path / "run", {"a": {"alpha": 1.0}, "b": {"alpha": 0.0}}, items=5))
    found = difference(*board.rows)
    assert found is not None and found.low is not None and found.low > 0 and not is_shown(found)
    assert [row.rank for row in board.rows] == [1, 1]


def test_intervals_of_equal_models_rarely_exclude_zero(tmp_path: Path) -> None:
    shown = 0
    for seed in range(60):
        board = board_of(write_run(tmp_path / str(seed), {"a": {"x": 0.5}, "b": {"x": 0.5}}, items=150, seed=seed))
        shown += is_shown(difference(*board.rows))
    assert shown <= 8  # 3 are expected


def test_model_with_a_failed_task_has_no_average_and_says_why(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"whole": STRONG})
    two = write_run(tmp_path / "two", {"broken": {"alpha": 0.9}}, errors={"broken": {"beta": "no split 'test'"}})
    board = board_of(one, two)
    broken = next(row for row in board.rows if row.model.name == "broken")
    assert broken.average is None and broken.rank is None and "beta: failed: no split 'test'" in broken.why
    assert board.rows[-1] is broken and not any(column.left_out for column in board.columns)
    result = report(runs=[one, two], out=tmp_path / "out")
    entry = next(each for each in result.data["models"] if each["model"] == "broken")
    assert entry["average"] is None and entry["columns"]["beta"] == {"cause": "failed: no split 'test'"}
    assert entry["columns"]["alpha"]["value"] == pytest.approx(0.9, abs=0.06)
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text("utf-8")
        assert "broken has no average" in text and "beta failed: no split" in text
    table = markdown_tables((tmp_path / "out" / "report.md").read_text("utf-8"))[0]
    assert table[-1][0] == "broken" and table[-1][2] == "none" and table[-1][4].startswith("failed: no split")


def test_task_that_not_every_model_was_asked_is_left_out_aloud(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"a": {**STRONG, "gamma": 0.1}})
    board = board_of(one, write_run(tmp_path / "two", {"b": WEAK}))
    assert {column.name: column.left_out for column in board.columns} == {
        "alpha": "", "beta": "", "gamma": "not every model was asked",
    }  # fmt: skip
    assert board.rows[0].average is not None and board.rows[0].average["value"] > 0.6
    view = report(runs=[tmp_path / "one", tmp_path / "two"]).view[0]
    assert isinstance(view, Table) and "Not in the average: gamma (not every model was asked)." in view.note


def test_tasks_that_were_asked_differently_are_not_averaged(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"a": {"alpha": 0.5}}, num_fewshot=5)
    two = write_run(tmp_path / "two", {"b": {"alpha": 0.5}}, num_fewshot=0)
    board = board_of(one, two)
    assert board.columns[0].left_out == "examples before each question: 0 and 5"
    assert all(row.average is None and row.rank is None for row in board.rows)


def test_perplexities_are_shown_and_never_averaged(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        model = data["models"][0]
        model["results"]["wiki"] = {"word_perplexity": {"value": 12.5, "stderr": None, "ci95": None}}
        model["tasks"]["wiki"] = {
            "items": 3, "main_metric": "word_perplexity", "higher_is_better": {"word_perplexity": False},
        }  # fmt: skip

    board = board_of(edit(write_run(tmp_path / "run", {"a": STRONG}), change))
    assert board.columns[-1].left_out == "word_perplexity is no share of items (lower is better)"
    assert board.rows[0].average is not None and board.rows[0].average["value"] < 1


def test_runs_of_one_model_become_one_row_and_others_are_told_apart(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"m": {"alpha": 0.6}}, errors={"m": {"beta": "out of memory"}})
    two = write_run(tmp_path / "two", {"m": {"beta": 0.6}})
    (row,) = board_of(one, two).rows
    assert row.average is not None and row.model.data["errors"] == {} and set(row.model.items) == {"alpha", "beta"}
    assert row.model.data["cost"]["seconds"] == 25 and row.model.data["cost"]["peak_memory"] == 2**30
    three = write_run(tmp_path / "three", {"m": {"alpha": 0.6}})
    assert {row.model.name for row in board_of(one, three).rows} == {"m (one)", "m (three)"}
    other = edit(write_run(tmp_path / "other", {"m": {"beta": 0.6}}), lambda d: d["models"][0].update(model_hash="f"))
    assert len(board_of(one, other).rows) == 2


def test_group_stands_for_its_tasks_and_is_compared_by_their_items(tmp_path: Path) -> None:
    tasks = {"mmlu_a": 0.6, "mmlu_b": 0.5}
    run = write_run(
        tmp_path / "run", {"a": tasks, "b": {name: value - 0.2 for name, value in tasks.items()}},
        groups={"mmlu": list(tasks)},
    )  # fmt: skip
    board = board_of(run)
    assert [column.name for column in board.columns] == ["mmlu"]
    found = difference(*board.rows)
    assert found is not None and is_shown(found) and found.count < 400  # pairs were found
    assert [row.rank for row in board.rows] == [1, 2]


def test_suite_asks_for_its_number_of_examples(tmp_path: Path) -> None:
    tasks = {"arc_challenge": 0.5, "hellaswag": 0.6, "mmlu": 0.3, "truthfulqa_mc2": 0.4, "winogrande": 0.7}
    board = board_of(write_run(tmp_path / "run", {"a": tasks}, num_fewshot=5), suite="openllm")
    cells = board.rows[0].cells
    assert "asked with 5 examples, not 25" in cells["ARC"].cause and cells["MMLU"].figure is not None
    assert "gsm8k not measured" in cells["GSM8K"].cause and board.rows[0].average is None


def test_section_is_the_mean_of_its_tasks(tmp_path: Path) -> None:
    names = list(dict.fromkeys(entry.task for entry in load_suite("smoke").entries))
    run = write_run(tmp_path / "run", {"a": dict.fromkeys(names, 0.5)}, metric="acc", num_fewshot=0, suite="smoke")

    def change(data: dict[str, Any]) -> None:
        for entry in load_suite("smoke").entries:
            model = data["models"][0]
            model["results"][entry.task] = {entry.metric or "acc": model["results"][entry.task]["acc"]}
            model["tasks"][entry.task]["num_fewshot"] = entry.num_fewshot

    result = report(runs=[edit(run, change)])
    assert result.data["suite"] == "smoke"
    columns = result.data["models"][0]["columns"]
    assert list(columns) == ["Knowledge", "Language", "Arithmetic"]
    mean = sum(each["value"] for each in columns.values()) / 3
    assert result.data["models"][0]["average"]["value"] == pytest.approx(mean)


def test_page_is_self_contained_and_hostile_names_arrive_as_text(tmp_path: Path) -> None:
    models = {HOSTILE: {HOSTILE: 0.6, "b": 0.5}, "=cmd()": {HOSTILE: 0.5}}
    run = write_run(tmp_path / "run", models, errors={"=cmd()": {"b": HOSTILE}})
    report(runs=[run], title=HOSTILE, out=tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    page = Page(text)
    assert not {"script", "img", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not {"src", "style"} & attributes.keys(), tag
        assert (attributes.get("href") or "#").startswith("#")
        assert not [each for each in attributes.items() if "://" in (each[1] or "") and each[0] != "xmlns"]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg|evil\.example)", text)
    assert HOSTILE in page.text
    drawings = sum(tag == "svg" for tag, _ in page.tags)
    assert drawings and drawings == sum(tag == "details" for tag, _ in page.tags)  # each has its table twin
    markdown = (tmp_path / "out" / "report.md").read_text("utf-8")
    outside = re.sub(r"```text\n.*?\n```", "", markdown, flags=re.DOTALL)
    assert "<script" not in outside and "](http" not in outside and len(markdown_tables(outside)) > 5
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "report.csv").read_text("utf-8"))))
    assert {row["model"] for row in rows} == {HOSTILE, "'=cmd()"}
    assert [row["value"] for row in rows if row["failed"]] == [""]


def test_report_warns_of_goodhart_and_contamination(tmp_path: Path) -> None:
    report(runs=[write_run(tmp_path / "run", {"a": STRONG})], out=tmp_path / "out")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text("utf-8")
        assert "Goodhart" in text and "met these items" in text


def test_what_eval_measured_on_texts_and_questions_counts_too(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    choice = {
        "questions": 40, "accuracy": 0.5, "accuracy_interval": [0.35, 0.65], "chance": 0.25, "prompt": "plain",
    }  # fmt: skip
    figures = {"bits_per_byte": 1.2, "bits_per_byte_interval": [1.1, 1.3], "bytes": 1000, "documents": 9}
    (folder / "evaluation.json").write_text(json.dumps({**figures, "choice": choice}))
    rows = [
        {"question": f"q{i}", "choices": ["a", "b"], "answer": 0, "predicted": i % 2, "log_likelihoods": [-1.0, -2.0]}
        for i in range(40)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (row,) = board_of(folder).rows
    assert row.model.name == "old" and row.average is not None and row.average["value"] == 0.5
    assert (
        row.cells["text"].figure == {"value": 1.2, "stderr": None, "ci95": [1.1, 1.3]} and not row.cells["text"].share
    )
    assert len(row.model.items["questions"]) == 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(models={}), "models is no list"),
        (lambda data: data["models"][0].pop("model"), r"models\[0\] names no model"),
        (lambda data: data["models"][0].update(errors=[]), r"models\[0\].errors is no object"),
        (lambda data: data["models"][0]["results"].update(x={"acc": {"value": "1"}}), "results.x holds no figures"),
        (lambda data: data["models"][0]["results"].update(x={"acc": {"value": 1, "ci95": [1]}}), "holds no figures"),
        (lambda data: data["models"].clear(), "no run has measured anything"),
    ],
)
def test_damaged_runs_are_refused(tmp_path: Path, change: Any, said: str) -> None:
    run = edit(write_run(tmp_path / "run", {"a": STRONG}), change)
    with pytest.raises(UserError, match=said):
        report(runs=[run])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"suite": "nouss"}, "no suite"),
        ({"table": "openlm"}, "no suite"),
        ({"csv": True, "table": "nous"}, "give one"),
        ({"runs": []}, "runs"),
        ({"runs": ["nowhere"]}, "no evaluation.json"),
        ({"runs": ["run", "run"]}, "given twice"),
    ],
)
def test_mistakes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"), {"a": STRONG})
    with pytest.raises(UserError, match=said):
        report(**{"runs": ["run"], **settings})


def test_value_that_is_not_finite_is_a_failure_not_a_number(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["models"][0]["results"]["alpha"]["acc"]["value"] = float("nan")

    board = board_of(edit(write_run(tmp_path / "run", {"a": STRONG}), change))
    assert board.rows[0].average is None and "alpha: failed: acc is not finite" in board.rows[0].why


def test_autoeval_tables_are_laid_out_as_pytablewriter_does() -> None:
    writer_type = pytest.importorskip("pytablewriter").MarkdownTableWriter

    def expected(columns: list[str], rows: list[list[Any]]) -> str:
        writer = writer_type()
        writer.headers, writer.value_matrix = columns, rows
        return writer.dumps()

    draw = random.Random(0)
    columns = ["Task", "Version", "Metric", "Value", "", "Stderr"]
    for _ in range(60):
        rows = []
        for index in range(draw.randint(1, 8)):
            version = draw.choice([0, 1, 2.0, "Yaml"])
            for place in range(draw.randint(1, 3)):
                value = draw.choice([draw.random() * 100, draw.randint(0, 100), round(draw.random() * 100, 1)])
                error = ["±", f"{draw.random() * 3:.2f}"] if draw.random() < 0.8 else ["", ""]
                first = [f"task_{'x' * draw.randint(0, 9)}{index}", version] if not place else ["", ""]
                rows.append([*first, draw.choice(["acc", "exact_match,strict-match"]), f"{value:.2f}", *error])
        assert markdown_table(columns, rows) == expected(columns, rows)
        scores = [draw.choice([round(draw.random() * 100, 2), 50.0, "failed"]) for _ in range(4)]
        row = [["[m](https://huggingface.co/o/m)", *scores]]
        assert markdown_table(["Model", "A", "BB", "Long name", "D"], row) == expected(
            ["Model", "A", "BB", "Long name", "D"], row
        )


def test_autoeval_table_of_a_suite(tmp_path: Path) -> None:
    suite = load_suite("nous")
    names = {entry.task: 0.5 for entry in suite.entries}
    run = write_run(tmp_path / "run", {"mlabonne/Monarch@main": names}, items=40)

    def change(data: dict[str, Any]) -> None:
        model = data["models"][0]
        for entry in suite.entries:
            model["results"][entry.task] = {entry.metric: model["results"][entry.task]["acc"]}

    run = edit(run, change)
    text = printed(runs=[run], table="nous")
    final, *sections = text.split("\n### ")
    assert [section.split("\n")[0] for section in sections] == ["AGIEval", "GPT4All", "TruthfulQA", "Bigbench"]
    (rows,) = markdown_tables(final)
    assert rows[0] == ["Model", "AGIEval", "GPT4All", "TruthfulQA", "Bigbench", "Average"]
    assert rows[2][0] == "[Monarch](https://huggingface.co/mlabonne/Monarch)"
    averages = [float(re.findall(r"^Average: ([\d.]+)%", section, re.M)[0]) for section in sections]
    assert [float(cell) for cell in rows[2][1:]] == [*averages, round(sum(averages) / 4, 2)]
    assert text.endswith("\n\nElapsed time: 00:00:12") and f"Average score: {rows[2][-1]}%" in text

    def fail(data: dict[str, Any]) -> None:
        data["models"][0]["results"].pop("piqa")
        data["models"][0]["errors"]["piqa"] = "no data | at all"

    text = printed(runs=[edit(run, fail)], table="nous")
    assert "Average: not available (piqa failed: no data \\| at all)" in text
    assert "Average score: Not available due to errors" in text
    assert markdown_tables(text)[0][2][2] == "failed" and len(markdown_tables(text)[0][0]) == 5


def test_terminal_shows_every_metric_with_its_interval_and_failures_last(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": STRONG, "b": WEAK}, errors={"b": {"gamma": "it [bold]broke[/bold]"}})
    data = json.loads((run / "evaluation.json").read_text())
    data["comparisons"] = comparisons(read_runs([run])[0])
    console = Console(width=160, record=True, file=io.StringIO())
    show(evaluation_tasks_blocks(data), console)
    text = console.export_text()
    value = data["models"][0]["results"]["alpha"]["acc"]
    low, high = value["ci95"]
    line = next(line for line in text.splitlines() if line.startswith("alpha  acc"))
    assert f"{100 * value['value']:.1f} %" in line and f"[{100 * low:.1f}, {100 * high:.1f}] %" in line
    assert "25.0 %" in line and line.rstrip().endswith("200")
    assert text.rstrip().endswith("gamma failed: it [bold]broke[/bold]") and "FAILED: 1 task of b" in text
    assert "alpha, acc: a against b +" in text and "a is better." in text
    assert "┊" in text and "●" in text


def test_variants_tell_how_far_the_form_moves_a_figure(tmp_path: Path) -> None:
    figures = [{"acc": {"value": value, "stderr": 0.03, "ci95": [value - 0.06, value + 0.06]}} for value in (0.4, 0.9)]
    variants = [
        {"variant": "seed 1", "results": {"alpha": figures[0]}, "errors": {"beta": "x"}},
        {"variant": "chat", "results": {"alpha": figures[1]}, "errors": {}},
    ]
    run = write_run(tmp_path / "run", {"a": STRONG}, variants=variants)
    report(runs=[run], out=tmp_path / "out")
    tables = markdown_tables((tmp_path / "out" / "report.md").read_text("utf-8"))
    (table,) = [rows for rows in tables if "lowest" in rows[0]]
    assert table[2][4:] == ["40.0 %", "90.0 %", ""] and table[3][6] == "1 failed"


def test_shares_are_told_from_other_figures() -> None:
    figure = {"value": 0.5}
    assert is_share("acc_norm", figure) and is_share("exact_match,strict-match", figure)
    assert not is_share("bleu", figure) and not is_share("acc", {"value": 50.0})
    assert not is_share("brier_score", figure, higher_is_better=False)
    results = {"perplexity": {"value": 9.0}, "acc": {"value": 0.4}}
    facts = {"main_metric": "perplexity", "higher_is_better": {"perplexity": False, "acc": True}}
    assert shown_metric(results, facts) == "acc" and shown_metric(results, facts, "perplexity") == "perplexity"


def test_an_interval_that_reaches_farther_to_one_side_is_not_halved() -> None:
    figure = {"value": 0.0, "stderr": 0.0, "ci95": [0.0, 0.107]}
    assert with_interval(figure, share=True) == "0.0 [0.0, 10.7]"
    assert with_interval({"value": 12.5, "stderr": None, "ci95": None}, share=False) == "12.5"


def test_reference_is_marked_across_its_bar() -> None:
    bars = Bars(
        "t", "v", [Bar("a", 0.5, 0.4, 0.6, reference=0.25), Bar("b", 0.1)], percent=True, reference_label="chance"
    )
    drawing = bar_chart(bars, "x")
    assert drawing.count('class="reference"') == 1 and "chance: 25.0 %" in drawing
    assert bar_twin(bars).columns[-1] == "chance" and [row[-1] for row in bar_twin(bars).rows] == [0.25, None]


def test_markdown_escapes_and_keeps_numbers_right() -> None:
    text = table_markdown(Table("T|*x*", ["a|b", "n"], [["x\ny", 1.5], ["`c`", None]]))
    assert markdown_tables(text)[0] == [["a\\|b", "n"], ["---", "---:"], ["x y", "1.5"], ["\\`c\\`", "–"]]
    assert escaped("truthfulqa_mc2 _x_ a](b) <b>") == "truthfulqa_mc2 \\_x\\_ a]\\(b) &lt;b&gt;"
    assert paragraph("# no\n1. no\n- no\n[a]: no\nyes 1.") == "\\# no  \n1\\. no  \n\\- no  \n\\[a]: no  \nyes 1."


def test_resampling_draws_have_the_bootstraps_spread(tmp_path: Path) -> None:
    board = board_of(write_run(tmp_path / "run", {"a": {"x": 0.7, "y": 0.3}, "b": {"x": 0.5, "y": 0.3}}, items=400))
    found = difference(*board.rows)
    assert found is not None and found.low is not None and found.high is not None
    variance = 0.0
    for task in ("x", "y"):
        items = [row.model.items[task] for row in board.rows]
        each = np.array([items[0][i][1].metrics["acc"] - items[1][i][1].metrics["acc"] for i in range(400)])
        variance += each.var() / 400 / 4
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * variance**0.5, rel=0.06)


def test_calibration_is_drawn_with_intervals_and_tabled(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {f"m{number}": STRONG for number in range(5)})
    models, _ = read_runs([run])
    first, second, table = reliability_blocks(models)
    assert isinstance(first, Chart) and isinstance(second, Chart) and isinstance(table, Table)
    assert [series.name for series in second.series] == ["m4", "right as often as sure"]
    expected = calibration([item for each in models[4].items.values() for _, item in each.values()])
    assert expected is not None and table.rows[4][1] == f"{100 * expected['ece']:.1f} %" and table.rows[4][-1] == 400
    drawing, bins = line_chart(second, "x"), len(expected["bins"])
    assert drawing.count('class="line interval') == bins == drawing.count("<circle")
    twin = line_twin(second)
    assert twin.columns == ["confidence", "m4", "m4, low", "m4, high"]
    assert [row[2] for row in twin.rows] == [each["interval"][0] for each in expected["bins"]]
    (run / "items.jsonl").unlink()
    assert reliability_blocks(read_runs([run])[0]) == []


def test_perplexities_are_compared_document_by_document(tmp_path: Path) -> None:
    texts = ["ü" * (10 * place + 20) for place in range(8)]
    weak = [-1.5 * len(text.encode()) for text in texts]
    strong = [
        value + 0.05 * len(text.encode()) + 0.1 * place
        for place, (value, text) in enumerate(zip(weak, texts, strict=True))
    ]
    gain = sum(strong) - sum(weak)
    size = sum(len(text.encode()) for text in texts)
    for metric, expected in (("byte_perplexity", -gain / size), ("bits_per_byte", -gain / size / np.log(2))):
        run = write_perplexities(tmp_path / metric, {"strong": strong, "weak": weak}, texts, metric=metric)
        (found,) = comparisons(read_runs([run])[0])
        assert found["said"] == "strong is better" and found["value"] == pytest.approx(expected)
        assert found["p_value"] == 2 / 2**8 and found["test"] == "sign flips"
        low, high = found["ci95"]
        assert low < expected < high < 0
        shown = f"×{np.exp(expected):.4g}" if metric == "byte_perplexity" else f"{expected:+.4g}"
        assert found["amount"] == shown and shown in found["text"]


def test_lambadas_perplexity_weighs_every_document_once(tmp_path: Path) -> None:
    weak, strong = [-3.0, -2.0, -4.0, -1.0], [-2.0, -2.5, -3.0, -1.0]
    run = write_perplexities(tmp_path / "run", {"s": strong, "w": weak}, ["a", "bb", "c", "d"], metric="perplexity")
    (found,) = comparisons(read_runs([run])[0])
    assert found["value"] == pytest.approx(-1.5 / 4) and found["p_value"] == 4 / 8  # |sum| >= 1.5 of 1, 1 and ½
    expected = mean_interval(np.subtract(weak, strong))
    assert found["ci95"] == pytest.approx([expected.low, expected.high])
    assert found["said"] == "no difference shown"


def test_no_interval_is_empty_where_no_model_is_right(tmp_path: Path) -> None:
    def none_right(folder: Path) -> Path:
        rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
        lines = [json.dumps(row | {"metrics": {"acc": 0.0}}) + "\n" for row in rows]
        (folder / "items.jsonl").write_text("".join(lines))
        none = {"value": 0.0, "stderr": 0.0, "ci95": [0.0, wilson(0, 32).high]}

        def change(data: dict[str, Any]) -> None:
            for model in data["models"]:
                model["results"] = {task: {"acc": none} for task in model["results"]}

        return edit(folder, change)

    run = write_run(tmp_path / "run", {"a": {"x": 0.5, "y": 0.5}, "b": {"x": 0.5, "y": 0.5}}, items=32)
    board = board_of(none_right(run))
    wilson_high = 3.841459 / (32 + 3.841459)  # z² / (n + z²)
    half = 1.959964 / 34  # Agresti and Min: (0 + 1) / 34 is the variance of two more items, 34 of them
    for found in comparisons([row.model for row in board.rows]):
        assert found["ci95"] == pytest.approx([-half, half], abs=1e-6) and found["p_value"] == 1
    average = board.rows[0].average
    assert average is not None and average["ci95"] == pytest.approx([0.0, wilson_high / 2**0.5], abs=1e-6)
    assert average["stderr"] == pytest.approx(wilson_high / 2 / 1.959964 / 2**0.5, abs=1e-6)
    between = difference(*board.rows)
    assert between is not None and between.high == pytest.approx(half / 2**0.5, abs=1e-6)


def test_a_group_of_which_a_task_failed_is_said_to_have_failed(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"a": STRONG}, groups={"both": ["alpha", "beta"]})
    two = write_run(tmp_path / "two", {"b": {"alpha": 0.5}}, errors={"b": {"beta": "no split"}})
    board = board_of(one, two)
    assert {column.name: column.left_out for column in board.columns} == {"both": "failed for b (beta)"}
    three = write_run(tmp_path / "three", {"c": {"alpha": 0.5}})
    assert board_of(one, two, three).columns[0].left_out == "not every model was asked"
