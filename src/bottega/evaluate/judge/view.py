"""A judge's figures as blocks for people; from `judge.json` alone, so that a report can show them again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bottega.core.view import Bar, Bars, Block, Table, Text

FIGURES_FILE = "judge.json"
Figure = Mapping[str, Any]
MOST_COLUMNS = 8
# A style's slope is shown as the chance to win of an answer with this x (twice as long; three against none).
SHOWN_AT = {"length": 1 / 3, "headers": 3 / 4, "lists": 3 / 4, "bold": 3 / 4}


def judge_report(folder: Path) -> list[Block]:
    """What a report shows of a folder that `bottega judge --out` wrote."""
    return judge_blocks(json.loads((folder / FIGURES_FILE).read_text("utf-8")))


def judge_blocks(data: Figure) -> list[Block]:
    """The models, their differences, and how far the judge can be trusted."""
    compared = data["mode"] == "pairwise"
    name, write = ("points", _percent) if compared else ("score", _number)
    blocks: list[Block] = [_models(data, name, write)]
    if (bars := _bars(data, name)).bars:
        blocks.append(bars)
    if any(row["categories"] for row in data["models"]):
        blocks.append(_categories(data, write))
    if compared:
        blocks.append(_matches(data))
    elif data["differences"]:
        blocks.append(_differences(data))
    blocks += [_trust(data), Text(_reading(data))]
    if data["failures"]:
        rows = [(count, cause) for cause, count in data["failures"].items()]
        blocks.append(Table("Without a judgement", ("judgements", "cause"), rows))
    return blocks


def _models(data: Figure, name: str, write: Callable[[float], str]) -> Table:
    turns = list(dict.fromkeys(turn for row in data["models"] for turn in row.get("turns", {})))
    rows = []
    for row in data["models"]:
        each = [_with_interval(row["turns"].get(turn), write) for turn in turns]
        missing = [row["without_score"]] if name == "score" else []
        figure = row[name]
        rows.append((row["model"], _value(figure, write), _interval(figure, write), *each, figure["count"], *missing))
    heads = {"score": "score (1 to 10)", "points": "points (a tie is half a win)"}
    columns = ("model", heads[name], "95 % interval", *(f"turn {turn}" for turn in turns), "questions")
    columns += ("without score",) if name == "score" else ()
    note = f"Judged by {data['judge']}. Intervals are over questions."
    note += "" if name == "score" else " A win counts only if the judge says so in both orders."
    return Table("Models", columns, rows, note)


def _bars(data: Figure, name: str) -> Bars:
    bars = [
        Bar(row["model"], row[name]["value"], row[name]["low"], row[name]["high"])
        for row in data["models"]
        if row[name]["count"]
    ]
    if name == "score":
        return Bars("Scores and their 95 % intervals", "score", bars, from_zero=False)
    return Bars("Points and their 95 % intervals", "share of the points", bars, percent=True)


def _categories(data: Figure, write: Callable[[float], str]) -> Table:
    shown = data["models"][:MOST_COLUMNS]
    names = list(dict.fromkeys(name for row in data["models"] for name in row["categories"]))
    rows = [(name, *(_with_interval(row["categories"].get(name), write) for row in shown)) for name in names]
    note = f"The first {MOST_COLUMNS} models." if len(data["models"]) > MOST_COLUMNS else ""
    return Table("By category", ("category", *(row["model"] for row in shown)), rows, note)


def _differences(data: Figure) -> Table:
    rows = [
        (
            row["first"],
            row["second"],
            _value(row["difference"], "{:+.2f}".format),
            _interval(row["difference"], "{:+.2f}".format),
            row["difference"]["count"],
            _verdict(row["shown"], row["difference"]),
        )
        for row in data["differences"]
    ]
    columns = ("model", "over", "points of 10", "95 % interval", "questions", "")
    return Table("Differences", columns, rows, "On the same questions (paired bootstrap); each on its own at 95 %.")


def _matches(data: Figure) -> Table:
    rows = []
    for row in data["matches"]:
        counts = (row["wins"], row["ties"], row["losses"], row["undecided"])
        points = (_value(row["points"], _percent), _interval(row["points"], _percent))
        rows.append((row["first"], row["second"], *counts, *points, _verdict(row["shown"], row["points"])))
    columns = ("model", "against", "wins", "ties", "losses", "undecided", "points", "95 % interval", "")
    note = "Undecided: the judge was not understood in one of the orders; such pairs count nowhere."
    return Table("Who beat whom", columns, rows, note)


def _trust(data: Figure) -> Table:
    """A row for each thing that may be wrong with the judge."""
    rows: list[Sequence[Any]] = []
    if position := data.get("position"):
        rows += [
            _row("agrees with itself in both orders", position["consistent"], _percent),
            _row("the same as Cohen's kappa", position["kappa"], _number),
            _row("prefers what is shown first (1), second (−1)", position["bias"], _signed),
        ]
    if correlation := data.get("length_correlation"):
        rows.append(_row("correlation of score and length", correlation, _signed))
    rows += _style_rows(data["style"]) if data["comparisons"] else []
    if own := data["own"]:
        rows.append(_row(f"points it gives itself ({own['model']})", own["points"], _percent))
        rows.append(_row("more than people give it, in points", own["over_people"], _signed))
    if people := data["people"]:
        rows += [
            _row("agrees with people", people["agreement"], _percent),
            _row("the same where both name a winner", people["agreement_on_winners"], _percent),
            _row("agrees with people, Cohen's kappa", people["kappa"], _number),
        ]
    columns = ("", "value", "95 % interval", "of")
    return Table("How far to trust the judge", columns, rows, _counts_note(data["calls"]))


def _style_rows(style: Figure) -> list[Sequence[Any]]:
    """Slopes as the chance to win of an answer that differs in nothing else."""
    named = {
        "headers": "wins with three headers against none",
        "lists": "wins with three list items against none",
        "bold": "wins with three bold passages against none",
    }
    rows = [_row("wins if twice as long, between the same two models", _at(style["length"], "length"), _percent)]
    if slope := style["format"].get("length"):
        rows.append(_row("the same, equally formatted", _at(slope, "length"), _percent))
    rows += [
        _row(f"{text}, equally long", _at(slope, name), _percent)
        for name, text in named.items()
        if (slope := style["format"].get(name))
    ]
    return rows


def _at(slope: Figure | None, style: str) -> Figure | None:
    """The chance to win where the style's difference is SHOWN_AT, instead of log-odds."""
    if slope is None:
        return None
    x = SHOWN_AT[style]
    ends = {end: 0.5 + 0.5 * math.tanh(x * slope[end] / 2) for end in ("value", "low", "high")}
    return {**slope, **ends}


def _reading(data: Figure) -> str:
    """What is shown and what is not, in words."""
    if not any(row[key]["count"] for row in data["models"] for key in ("score", "points") if key in row):
        return "Which model is better, and what moves the judge, cannot be said: no verdict of it could be read."
    said = []
    position = data.get("position")
    if position and _excludes(position["bias"], 0):
        place = "first" if position["bias"]["value"] > 0 else "second"
        said.append(f"The judge is moved by the place: it prefers what is shown {place}.")
    length = data["style"]["length"]
    if length is not None and _excludes(length, 0):
        said.append(f"It prefers the {'longer' if length['value'] > 0 else 'shorter'} answer.")
    elif length is None and data["comparisons"]:
        said.append("Whether it prefers longer answers cannot be said: too few differ in length.")
    if (correlation := data.get("length_correlation")) and _excludes(correlation, 0):
        more = "higher" if correlation["value"] > 0 else "lower"
        said.append(f"Longer answers of a model get {more} scores, which may be merit.")
    if not data["comparisons"]:
        said.append("What else moves the judge shows only where it judges two models.")
    own = data["own"]
    if own and own["over_people"] is None:
        said.append("It judged its own answers. Whether it favours them shows only against people's votes (--votes).")
    elif own and _excludes(own["over_people"], 0):
        said.append(f"It gives its own answers {'more' if own['over_people']['value'] > 0 else 'less'} than people do.")
    return " ".join(said) or "No bias of the judge is shown; that is not the same as none."


def _counts_note(calls: Figure) -> str:
    parts = [
        f"Of {calls['total']} judgements, {calls['failed']} failed and {calls['unusable']} could not be understood."
    ]
    if calls["cut_off"]:
        parts.append(f"{calls['cut_off']} were cut off by --max-tokens.")
    if calls["completion_tokens"]:
        parts.append(f"{calls['prompt_tokens']:,} + {calls['completion_tokens']:,} tokens.")
    return " ".join(parts)


def _row(name: str, figure: Figure | None, write: Callable[[float], str]) -> Sequence[Any]:
    if figure is None or not figure["count"]:
        return (name, "cannot be said", "", None if figure is None else 0)
    return (name, _value(figure, write), _interval(figure, write), figure["count"])


def _excludes(figure: Figure, value: float) -> bool:
    return figure["low"] is not None and not figure["low"] <= value <= figure["high"]


def _with_interval(figure: Figure | None, write: Callable[[float], str]) -> str:
    return "" if figure is None else f"{_value(figure, write)} {_interval(figure, write)}".strip()


def _value(figure: Figure, write: Callable[[float], str]) -> str:
    return write(figure["value"]) if figure["count"] else "none"


def _interval(figure: Figure, write: Callable[[float], str]) -> str:
    return "" if figure["low"] is None else f"[{write(figure['low'])}, {write(figure['high'])}]"


def _verdict(shown: bool, figure: Figure) -> str:
    if not figure["count"]:
        return "cannot be said"
    return "" if shown else "no difference shown"


def _number(value: float) -> str:
    return f"{value:.2f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
