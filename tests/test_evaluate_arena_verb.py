"""`bottega arena` from file to table, report and preferences."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from arena_votes import battles, votes_of
from bottega import verbs
from bottega.cli.render import show
from bottega.core.chart import bar_chart, bar_twin
from bottega.core.errors import UserError
from bottega.core.view import Bar, Bars
from bottega.evaluate.arena.view import arena_blocks, arena_report
from bottega.evaluate.arena.votes import Vote


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    path = tmp_path / "votes.jsonl"
    found = [
        *votes_of(battles((200, 0, 0), 300, 0, 0.1)),
        *[Vote("best", "m0", "a", judge="z", answer_a="Four", answer_b="Five")] * 9,
    ]
    path.write_text("".join(json.dumps(vote.as_row()) + "\n" for vote in found))
    return path


def shown(data: dict[str, Any]) -> str:
    written = io.StringIO()
    show(arena_blocks(data), Console(width=200, file=written))
    return written.getvalue()


def test_arena_writes_ratings_report_and_preferences(tmp_path: Path, votes: Path) -> None:
    out, preferences = tmp_path / "out", tmp_path / "new" / "preferences.jsonl"
    settings = {"votes": [str(votes)], "anchor": "m1", "resamples": 200, "out": str(out)}
    data = verbs.arena(**settings, preferences=str(preferences))
    assert json.loads((out / "ratings.json").read_text()) == data
    rows = [json.loads(line) for line in preferences.read_text().splitlines()]
    assert len(rows) == data["preferences"]["rows"] and set(rows[0]) == {"prompt", "chosen", "rejected"}
    assert data["preferences"] == {"rows": 300 - data["ties"], "ties": data["ties"], "incomplete": 9}
    assert data["models"][0] == {**data["models"][0], "model": "best", "rating": None, "unrated": "above"}
    page = (out / "report.html").read_text()
    assert "Who beat whom" in page and "no difference shown" in page and "lost nothing" in page
    assert [type(block) for block in arena_report(out)] == [type(block) for block in arena_blocks(data)]


def test_what_is_shown(votes: Path) -> None:
    data = verbs.arena(votes=[str(votes)], anchor="m1", resamples=200, style_control=True)
    text = shown(data)
    assert "wins against m1" in text and "∞]" in text and "What style is worth" in text and "as voted" in text
    first = next(line for line in text.splitlines() if " m0 " in line)
    row = next(row for row in data["models"] if row["model"] == "m0")
    assert f"{row['rating']:.0f}" in first and f"[{row['low']:.0f}, {row['high']:.0f}]" in first
    assert "Not drawn, for want of a finite rating: 1." in text
    assert {"all", "person", "z"} <= {line.split()[0] for line in text.splitlines() if line.split()}


def test_many_models_and_judges_are_shown_in_part(tmp_path: Path) -> None:
    found = votes_of(battles([0.0] * 15, 900, 0))
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({**vote.as_row(), "judge": f"user{place % 30}"}) + "\n"
                            for place, vote in enumerate(found)))  # fmt: skip
    data = verbs.arena(votes=[str(path)], resamples=100)
    text = shown(data)
    assert "Columns: the first 12 models." in text and "The 10 of 30 judges with the most votes." in text
    assert len(data["judges"]) == 30 and len(data["wins"]["models"]) == 15


def test_the_same_seed_gives_the_same(votes: Path) -> None:
    one, two, other = (
        verbs.arena(votes=[str(votes)], resamples=100, style_control=True, seed=seed) for seed in (1, 1, 2)
    )
    assert one == two and [row["rating"] for row in one["models"]] == [row["rating"] for row in other["models"]]
    assert one["models"][1]["low"] != other["models"][1]["low"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"votes": []}, "votes"),
        ({"votes": ["none.jsonl"]}, "none.jsonl: there is no such file"),
        ({"votes": ["votes.jsonl", "votes.jsonl"]}, "given twice"),
        ({"votes": ["empty.jsonl"]}, "empty.jsonl: empty"),
        ({"anchor_rating": 1114}, "give anchor too"),
        ({"anchor": "m9"}, "no vote is about the anchor 'm9'"),
        ({"anchor": "best"}, "has no finite rating"),
        ({"resamples": 99}, "resamples"),
        ({"k": 0}, "k: "),
        ({"style_control": True, "votes": ["bare.jsonl"]}, "style_control needs the answers"),
        ({"preferences": "votes.jsonl", "overwrite": True}, "is a file of votes"),
        ({"preferences": "empty.jsonl"}, "exists already"),
        ({"preferences": "out/p.jsonl", "out": "out"}, "lies in out"),
    ],
)
def test_mistakes_are_refused(
    tmp_path: Path, votes: Path, settings: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    Path("bare.jsonl").write_text('{"model_a": "x", "model_b": "y", "winner": "a"}\n')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=said):
        verbs.arena(**{"votes": ["votes.jsonl"], **settings})
    assert sorted(tmp_path.rglob("*")) == before


def test_points_have_no_zero_and_open_ends_have_arrows() -> None:
    bars = [Bar("closed", 1100.0, 1050.0, 1150.0), Bar("open", 900.0, None, 950.0), Bar("bare", 1000.0)]
    block = Bars("Ratings", "rating", bars, from_zero=False)
    drawing = bar_chart(block, "x")
    assert drawing.count("<circle") == 3 and "<rect" not in drawing and ">0</text>" not in drawing
    assert drawing.count('class="whisker"') == 2 and drawing.count("l5 4") == 1
    assert "open: 900 (open to 950)" in drawing and "closed: 1100 (1050 to 1150)" in drawing
    assert [row[-2:] for row in bar_twin(block).rows] == [[1050.0, 1150.0], [None, 950.0], [None, None]]
    assert bar_chart(Bars("Empty", "rating", [], from_zero=False), "x").endswith("</svg>")
