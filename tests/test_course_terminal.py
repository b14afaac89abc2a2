"""The course's commands in the terminal, on the same state as the pages; what is taken along, and what is proved."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from bottega.course.learner.learner import Learner
from bottega.course.library import load_course
from conftest import Call
from test_course_learner import answer_right, right_answer

EXERCISE = "architecture/top-p"


@pytest.fixture
def workspace(bottega: Call, tmp_path: Path) -> Path:  # commands run in tmp_path
    return tmp_path / "workspace"


def learner_of(workspace: Path) -> Learner:
    return Learner.open(load_course(), workspace / "course")


def test_list_and_start(bottega: Call, workspace: Path) -> None:
    status, out, _ = bottega("course", "list", "--json")
    chapters = {each["id"]: each for each in json.loads(out)["chapters"]}
    assert status == 0 and len(chapters) == 19 and chapters["architecture"]["written"]
    assert json.loads(bottega("course", "start", "--json")[1])["tasks"][0]["kind"] == "placement"
    status, out, _ = bottega("course", "start", EXERCISE, "--json")
    assert Path(json.loads(out)["file"]).read_text() == load_course().exercise(EXERCISE).task
    status, _, err = bottega("course", "start", "architecture/top-q")
    assert status == 2 and "top-p" in err


def test_watch_checks_the_learners_own_file(bottega: Call, workspace: Path) -> None:
    path = learner_of(workspace).file_of(EXERCISE)
    status, out, _ = bottega("course", "watch", EXERCISE, "--once")
    assert status == 1 and "✗" in out and "Not yet" in out
    path.write_text(load_course().exercise(EXERCISE).solution)
    status, out, _ = bottega("course", "watch", EXERCISE, "--once")
    assert status == 0 and "All checks pass" in out
    assert EXERCISE in learner_of(workspace).state().solved
    assert "nucleus is the *smallest* set" in bottega("course", "hint", EXERCISE)[1].replace("\n", " ")


def test_quiz_and_review_ask_here(bottega: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(workspace)
    asked = learner.question(learner.items_of("beam-search")[0].id)
    chapter, item = learner.course.items[asked.item]
    place = right_answer(chapter, item, asked.seed)
    typed = str(place + 1) if isinstance(place, int) else str(place)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"nonsense words\n{typed}\n"))
    status, out, _ = bottega("course", "quiz", "beam-search", "--count", "1", "--json")
    assert status == 0 and json.loads(out) == {"asked": 1, "right": 1}
    assert learner.state().of("beam-search").answers == 1
    assert json.loads(bottega("course", "review", "--json")[1]) == {"asked": 0, "right": 0}
    status, _, err = bottega("course", "quiz", "beem-search")
    assert status == 2 and "beam-search" in err


def test_events_travel_once_and_cards_are_for_anki(bottega: Call, workspace: Path, tmp_path: Path) -> None:
    learner = learner_of(workspace)
    for item in ("lens", "families", "first-loss", "why-decoders"):
        answer_right(learner, item)
    assert bottega("course", "export", tmp_path / "mine.jsonl")[0] == 0
    other = tmp_path / "other"
    for expected in (4, 0):
        out = bottega("course", "import", tmp_path / "mine.jsonl", "--workspace", other, "--json")[1]
        assert json.loads(out)["count"] == expected
    assert learner_of(other).state().asked == learner.state().asked
    (tmp_path / "wrong.jsonl").write_text("{}\n")
    assert bottega("course", "import", tmp_path / "wrong.jsonl")[0] == 2
    bottega("course", "anki", tmp_path / "cards.csv")
    head, rows = (tmp_path / "cards.csv").read_text().split("#tags column:3\n")
    assert head == "#separator:Comma\n#html:true\n#columns:Front,Back,Tags\n"
    csv.field_size_limit(1 << 20)  # the reader of foreign tables lowers it
    cards = list(csv.reader(io.StringIO(rows)))
    assert len(cards) == 4 and all(len(card) == 3 and card[2].startswith("bottega::architecture ") for card in cards)


def test_a_certificate_holds_until_it_is_touched(bottega: Call, workspace: Path, tmp_path: Path) -> None:
    learner = learner_of(workspace)
    assert learner.grade(EXERCISE, learner.course.exercise(EXERCISE).solution).passed
    answer_right(learner, "lens")
    path = tmp_path / "certificate.json"
    assert bottega("course", "certificate", path, "--name", "Ada")[0] == 0
    status, out, _ = bottega("course", "verify", path)
    assert status == 0 and "It holds" in out
    for change, said in (
        (lambda data: data["concepts"].update({"top-k-and-nucleus": 0.99}), "do not follow"),
        (lambda data: data["exercises"].update({EXERCISE: "def top_p(p, q): return p"}), "does not pass its checks"),
        (lambda data: data["exercises"].clear(), "not those that were solved"),
        (lambda data: data.update(name="Bob"), "changed after it was written"),
    ):
        data = json.loads(path.read_text())
        change(data)
        (tmp_path / "forged.json").write_text(json.dumps(data))
        status, out, _ = bottega("course", "verify", tmp_path / "forged.json")
        assert status == 1 and said in out.replace("\n", " "), said
    (tmp_path / "none.json").write_text("[]")
    assert bottega("course", "verify", tmp_path / "none.json")[0] == 2


def test_ask_cites_and_abstains(bottega: Call) -> None:
    data = json.loads(bottega("course", "ask", "What does FlashAttention make linear?", "--json")[1])
    assert data["abstained"] is False and data["citations"][0]["anchor"] == "/course/architecture#cost"
    data = json.loads(bottega("course", "ask", "How do I cook pasta?", "--json")[1])
    assert data["abstained"] is True and data["citations"] == []
