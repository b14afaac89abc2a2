"""An arena's ratings as blocks for people; from `ratings.json` alone, so that a report can show them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottega.core.view import Bar, Bars, Block, Table, Text

RATINGS_FILE = "ratings.json"
# Columns of the matrix of wins; of more models the best are shown.
MOST_COLUMNS = 12
MOST_JUDGES = 10
UNRATED = {"above": "lost nothing", "below": "won nothing", "unknown": "not placed"}


def arena_report(folder: Path) -> list[Block]:
    """What a report shows of a folder that `bottega arena --out` wrote."""
    return arena_blocks(json.loads((folder / RATINGS_FILE).read_text("utf-8")))


def arena_blocks(data: dict[str, Any]) -> list[Block]:
    """Ratings with their intervals, who beat whom, the style's part, and the position's."""
    styles = style_tables(data) if data["style"] else []
    return [rating_table(data), rating_points(data), win_table(data), *styles, position_table(data), elo_table(data)]


def rating_table(data: dict[str, Any]) -> Table:
    """A row per model, the best first."""
    against = data["anchor"] or "the average"
    columns = ("rank", "model", "rating", "95 % interval", "votes", f"wins against {against}", "over the next")
    rows = []
    for row in data["models"]:
        rate = row["win_rate"]
        rows.append(
            (
                row["rank"],
                row["model"],
                UNRATED[row["unrated"]] if row["unrated"] else round(row["rating"]),
                "set" if row["model"] == data["anchor"] else _interval(row["low"], row["high"]),
                row["votes"],
                f"{_percent(rate['value'])} [{_percent(rate['low'])}, {_percent(rate['high'])}]",
                _over_next(row["over_next"]),
            )
        )
    style = ", style controlled" if data["style"] else ""
    return Table(f"Ratings (Bradley-Terry{style})", columns, rows, _note(data))


def rating_points(data: dict[str, Any]) -> Bars:
    """Rated models as points with their intervals."""
    bars = [
        Bar(
            row["model"],
            round(row["rating"]),
            _rounded(row["low"]),
            _rounded(row["high"]),
            baseline=row["model"] == data["anchor"],
        )
        for row in data["models"]
        if not row["unrated"]
    ]
    left_out = len(data["models"]) - len(bars)
    note = f"Not drawn, for want of a finite rating: {left_out}." if left_out else ""
    return Bars("Ratings and their 95 % intervals", "rating", bars, note=note, from_zero=False)


def win_table(data: dict[str, Any]) -> Table:
    """Share of the points that the row's model took from the column's, and the number of votes."""
    wins = data["wins"]
    place = {name: number for number, name in enumerate(wins["models"])}
    order = [place[row["model"]] for row in data["models"]]
    shown = order[:MOST_COLUMNS]
    rows: list[Sequence[Any]] = []
    for one in order:
        cells = []
        for other in shown:
            votes = wins["votes"][one][other]
            cells.append(f"{wins['points'][one][other] / votes:.0%} of {votes}" if votes else "")
        rows.append((wins["models"][one], *cells))
    note = "Share of its votes with the column's model that the row's model won; a tie is half a win."
    note += f" Columns: the first {MOST_COLUMNS} models." if len(order) > MOST_COLUMNS else ""
    return Table("Who beat whom", ("", *(wins["models"][other] for other in shown)), rows, note)


def style_tables(data: dict[str, Any]) -> list[Block]:
    """What each style was worth, and what the ratings would be without taking it out."""
    effects, without = data["style"]["styles"], data["style"]["without"]
    rows = [
        (
            name,
            f"{effect['points']:+.0f}",
            _interval(effect["low"], effect["high"]),
            f"×{effect['odds']:.2f}",
            "no effect shown" if effect["low"] <= 0 <= effect["high"] else "",
        )
        for name, effect in effects.items()
    ]
    note = "For one standard deviation more of it than the other answer has, all else equal."
    before = [
        (row["model"], _rounded(row["rating"]), _rounded(without[row["model"]]["rating"]))
        for row in data["models"]
    ]  # fmt: skip
    return [
        Table("What style is worth", ("style", "points", "95 % interval", "odds of winning", ""), rows, note),
        Table("With and without style", ("model", "style controlled", "as voted"), before),
    ]


def position_table(data: dict[str, Any]) -> Table:
    """How often the first answer won, over all votes and by judge."""
    judges = sorted(data["judges"].items(), key=lambda item: -item[1]["votes"]) if len(data["judges"]) > 1 else []
    rows = []
    for name, found in [("all", data["position"]), *judges[:MOST_JUDGES]]:
        if found["first_won"] is None:
            rows.append((name, found["votes"], found["decided"], "", "", "", ""))
            continue
        low, high, expected = found["low"], found["high"], found["expected"]
        is_shown = expected is not None and not low <= expected <= high
        rows.append(
            (
                name,
                found["votes"],
                found["decided"],
                _percent(found["first_won"]),
                f"[{_percent(low)}, {_percent(high)}]",
                _percent(expected),
                "bias" if is_shown else "no bias shown",
            )
        )
    columns = ("judge", "votes", "with a winner", "first answer won", "95 % interval", "expected", "")
    note = "Expected: by the ratings of the models that happened to be shown first."
    note += f" The {MOST_JUDGES} of {len(judges)} judges with the most votes." if len(judges) > MOST_JUDGES else ""
    return Table("Position", columns, rows, note)


def elo_table(data: dict[str, Any]) -> Table:
    """Elo ratings, which hang on the order of the votes."""
    rows = [
        (row["model"], round(row["elo"]["value"]), _interval(row["elo"]["low"], row["elo"]["high"]))
        for row in sorted(data["models"], key=lambda row: -row["elo"]["value"])
    ]
    order = "time" if data["elo"]["order"] == "time" else "the files"
    note = f"K = {data['elo']['k']:g}, vote after vote in the order of {order}, everyone from 1000."
    return Table("Elo", ("model", "rating", "95 % interval"), rows, note)


def preference_text(data: dict[str, Any]) -> Text:
    """What became of the votes as preference data."""
    found = data["preferences"]
    return Text(
        f"{found['rows']} votes written as preferences; left out: {found['ties']} without a winner, "
        f"{found['incomplete']} without a common prompt and both answers."
    )


def _note(data: dict[str, Any]) -> str:
    parts = [f"{data['votes']} votes, {data['ties'] + data['both_bad']} of them without a winner (half a win each)."]
    if data["not_blind"]:
        parts.append(f"{data['not_blind']} votes were not blind and are left out.")
    if data["anchor"]:
        parts.append(f"{data['anchor']} is set to {data['anchor_rating']:.0f}.")
    parts.append("Rank: one more than the number of models that are shown to be better.")
    if any(row["unrated"] for row in data["models"]):
        parts.append("Who lost or won nothing against the rated models has no finite rating, only a bound.")
    return " ".join(parts)


def _over_next(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return ""
    if difference["value"] is None:
        return "shown" if difference["shown"] else "no difference shown"
    text = f"{difference['value']:+.0f} {_interval(difference['low'], difference['high'])}"
    return text if difference["shown"] else f"{text}: no difference shown"


def _interval(low: float | None, high: float | None) -> str:
    return f"[{'−∞' if low is None else f'{low:.0f}'}, {'∞' if high is None else f'{high:.0f}'}]"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)
