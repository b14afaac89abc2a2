"""Labs: their facts without running them, their events from a process that can be stopped, what is recorded."""

import json
import math
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bottega.core.errors import BottegaError, UserError
from bottega.core.view import Bar, Bars, Chart, Table
from bottega.course import run_lab as labs
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value
from bottega.course.lab_facts import models_of, read_facts
from bottega.course.library import Chapter, LabFile, load_course
from bottega.course.recorded import (
    cited,
    differs,
    figures_of,
    format_value,
    read_recording,
    recording_of,
    recording_path,
    write_recording,
)
from bottega.course.run_lab import LabProcess, run_lab
from bottega.course.schema import ChapterData

LAB = '''
"""Halve a number.

Again and again.
"""

import os
import time
from typing import Literal

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Table
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value

BUDGET = 5


class Params(Config):
    """What can be changed."""

    steps: int = Field(default=3, ge=1, le=50)
    """How often."""
    way: Literal["down", "up"] = "down"
    """Which way."""
    name: str = "x"
    """What it is called."""


def run(params):
    print("no event")
    os.system("echo no event either")
    yield Say("begun")
    yield Axes("halves", "Halves", "step", "value", floors={"zero": 0.0})
    value = 1.0
    for step in range(params.steps):
        value = value / 2 if params.way == "down" else value * 2
        yield Point("halves", params.name, step, value)
        yield Step(step + 1, params.steps)
        {body}
    yield Show("table", Table("Values", ["value"], [[value]]))
    yield Value("last", value, "units", 0.01)
    yield Effect("it fell", value < 1)
'''


def make_lab(folder: Path, body: str = "pass") -> LabFile:
    path = folder / "lab.py"
    path.write_text(textwrap.dedent(LAB).replace("{body}", body).lstrip())
    return LabFile("tiny", "lab", path)


def test_facts_are_read_without_running(tmp_path: Path):
    facts = read_facts(make_lab(tmp_path).path)
    assert (facts.title, facts.about, facts.budget) == ("Halve a number", "Again and again.", 5.0)
    assert [(each.name, each.kind, each.default, each.about) for each in facts.settings] == [
        ("steps", "int", 3, "How often."),
        ("way", "choice", "down", "Which way."),
        ("name", "str", "x", "What it is called."),
    ]
    assert facts.settings[0].limits == {"ge": 1, "le": 50} and facts.settings[1].choices == ("down", "up")
    (tmp_path / "lab.py").write_text("x = 1")
    with pytest.raises(BottegaError, match="BUDGET"):
        read_facts(tmp_path / "lab.py")


def test_facts_agree_with_what_the_labs_say_themselves():
    from bottega.course.lab import load_lab

    for chapter in load_course().chapters.values():
        for lab in chapter.labs.values():
            if "import torch" in lab.path.read_text():  # the others load at once
                continue
            facts, loaded = read_facts(lab.path), load_lab(lab.path)
            assert (facts.title, facts.about, facts.budget) == (loaded.title, loaded.about, loaded.budget)
            defaults = loaded.params().model_dump()
            assert {each.name: each.default for each in facts.settings} == defaults, lab.id


def test_events_come_one_by_one_and_prints_are_no_events(tmp_path: Path):
    events = list(run_lab(make_lab(tmp_path), {"steps": 2, "way": "up"}))
    assert events == [
        Say("begun"),
        Axes("halves", "Halves", "step", "value", floors={"zero": 0.0}),
        Point("halves", "x", 0, 2.0),
        Step(1, 2),
        Point("halves", "x", 1, 4.0),
        Step(2, 2),
        Show("table", Table("Values", ["value"], [[4.0]])),
        Value("last", 4.0, "units", 0.01),
        Effect("it fell", False),
    ]


def test_a_wrong_setting_is_the_users_error(tmp_path: Path):
    with pytest.raises(UserError, match="steps"):
        list(run_lab(make_lab(tmp_path), {"steps": 0}))
    with pytest.raises(UserError, match="unknown setting 'stepz'") as caught:
        list(run_lab(make_lab(tmp_path), {"stepz": 1}))
    assert "'steps'" in caught.value.hint


def test_a_lab_that_fails_says_why(tmp_path: Path):
    with pytest.raises(BottegaError, match="ZeroDivisionError") as caught:
        list(run_lab(make_lab(tmp_path, "1 / 0")))
    assert "lab.py" in caught.value.hint and caught.value.exit_status == 1


def limited(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    command = labs.lab_command
    monkeypatch.setattr(labs, "lab_command", lambda *given: [*command(*given)[:-1], str(seconds)])


def test_processor_time_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limited(monkeypatch, 1)
    with pytest.raises(BottegaError, match="used up its processor time"):
        list(run_lab(make_lab(tmp_path, "while True: pass")))


def test_waiting_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limited(monkeypatch, 1)
    monkeypatch.setattr(labs, "wall_limit", lambda _: 1.0)
    with pytest.raises(BottegaError, match="took too long"):
        list(run_lab(make_lab(tmp_path, "time.sleep(60)")))


@pytest.mark.skipif(sys.platform != "linux", reason="memory that is written is counted on Linux")
def test_memory_is_limited(tmp_path: Path):
    with pytest.raises(BottegaError, match="MemoryError"):
        list(run_lab(make_lab(tmp_path, "bytearray(9 << 30)")))


def test_leaving_kills_the_whole_group(tmp_path: Path):
    body = "import subprocess; child = subprocess.Popen(['sleep', '60']); yield Say(str(child.pid)); time.sleep(60)"
    started = time.monotonic()
    with LabProcess(make_lab(tmp_path, body)) as process:
        said = (event.text for event in process if isinstance(event, Say))
        assert next(said) == "begun"
        child = int(next(said))
        os.kill(child, 0)
    for _ in range(100):
        if state_of(child) in ("", "Z"):
            break
        time.sleep(0.02)
    assert state_of(child) in ("", "Z") and time.monotonic() - started < 20


def state_of(process: int) -> str:
    """A process's letter in ps; empty if it is none."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True)
    return found.stdout.strip()[:1]


def test_processor_time_is_counted(tmp_path: Path):
    with LabProcess(make_lab(tmp_path)) as process:
        list(process)
    assert 0.02 < process.cpu_seconds < 20


def test_it_takes_the_same_way_without_a_gpu_and_with_one_thread(tmp_path: Path):
    body = "yield Say(os.environ['CUDA_VISIBLE_DEVICES'] + os.environ['OMP_NUM_THREADS'])"
    assert Say("1") in list(run_lab(make_lab(tmp_path, body)))


def test_models_of_the_course_are_made_before_the_clock_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from bottega.course import companion

    lab = make_lab(tmp_path, "companion(); companion('new'); other('small')")
    assert models_of(lab.path) == ("pretrained", "new")
    made: list[str] = []

    def make(stage, reporter):
        made.append(stage)
        reporter.say(f"Making {stage}")
        with reporter.bar("training", 10) as bar:
            bar.advance(3, "loss 1")
            bar.advance(3)
            bar.advance(4)

    monkeypatch.setattr(companion, "companion", make)
    told: list[Event] = []
    labs.make_models(lab.path, told.append)
    assert made == ["pretrained", "new"]
    assert told[:3] == [Say("Making pretrained"), Step(3, 10, "loss 1"), Step(10, 10)]
    assert labs.wall_limit(lab) > labs.wall_limit(make_lab(tmp_path)) + 600


EVENTS = [
    Axes("c", "Chart", "x", "y", log_x=True, floors={"floor": 0.5}),
    Point("c", "a", 1, 2.0),
    Point("c", "a", 2, 1 / 3),
    Show("bars", Bars("Bars", "share", [Bar("one", 1 / 3, 0.1, None)])),
    Value("third", 1 / 3, "nats", 0.05),
    Value("count", 3, "words", 0),
    Effect("it holds", True),
]


def test_what_is_recorded_is_read_back(tmp_path: Path):
    lab = make_lab(tmp_path)
    recording = recording_of(lab, EVENTS, {"steps": 3}, 1.234)
    assert write_recording(lab, recording) == recording_path(lab) == tmp_path / "recorded" / "lab.json"
    back = read_recording(lab)
    assert back is not None
    assert back.values == recording.values and back.effects == recording.effects and back.params == {"steps": 3}
    assert back.source == recording.source and back.cpu_seconds == 1.2
    chart, bars = back.figure("c"), back.figure("bars")
    assert isinstance(chart, Chart) and chart.log_x and [each.name for each in chart.series] == ["a", "floor"]
    assert [tuple(point) for point in chart.series[0].points] == [(1, 2.0), (2, 0.3333333)]
    assert [tuple(point) for point in chart.series[1].points] == [(1, 0.5), (2, 0.5)] and chart.series[1].baseline
    assert isinstance(bars, Bars) and bars.bars[0].high is None
    assert len(json.loads(recording_path(lab).read_text())["figures"]) == 2


def test_citations_lead_to_what_was_recorded(tmp_path: Path):
    data = ChapterData.parse({"id": "tiny", "part": "scientist", "number": 1, "title": {"en": "T"}, "leaves": []})
    lab, chapter = make_lab(tmp_path), Chapter(tmp_path, data)
    with pytest.raises(UserError, match="nothing was recorded"):
        cited(chapter, "lab.third")
    write_recording(lab, recording_of(lab, EVENTS, {}))
    recording, name = cited(chapter, "lab.third")
    assert format_value(recording.value(name)) == "0.3333"
    with pytest.raises(UserError, match="no value 'thirds'"):
        recording.value("thirds")
    with pytest.raises(UserError, match=r"not LAB\.NAME"):
        cited(chapter, "labor.third")
    recording_path(lab).write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        cited(chapter, "lab.third")


def test_two_things_of_one_name_are_an_error(tmp_path: Path):
    with pytest.raises(BottegaError, match="two figures"):
        figures_of([Show("c", Table("", [], [])), EVENTS[0]])
    with pytest.raises(BottegaError, match="two values"):
        recording_of(make_lab(tmp_path), [Value("a", 1), Value("a", 2)], {})


@pytest.mark.parametrize(
    ("value", "specification", "expected"),
    [(104896, "", "104,896"), (0.123456, "", "0.1235"), (0.5, ".0%", "50%"), (3.0, "d", "3"), (12.0, ".1f", "12.0")],
)
def test_values_are_written_as_asked(value: float, specification: str, expected: str):
    assert format_value(Value("v", value), specification) == expected


@pytest.mark.parametrize(
    ("new", "old", "tolerance", "expected"),
    [(1.04, 1, 0.05, False), (1.06, 1, 0.05, True), (3, 3, 0, False), (3.1, 3, 0, True), (math.nan, 1, 1, True),
     (0.04, 0, 0.05, False), (0.06, 0, 0.05, True), (math.nan, math.nan, 0, False), (-1.04, -1, 0.05, False)],
)  # fmt: skip
def test_values_may_differ_by_their_tolerance(new: float, old: float, tolerance: float, expected: bool):
    assert differs(Value("v", new), Value("v", old, tolerance=tolerance)) is expected


def test_the_verb_follows_a_lab(capsys: pytest.CaptureFixture[str]):
    from bottega.cli.main import build_app

    def call(*words: str) -> str:
        with pytest.raises(SystemExit) as caught:
            build_app(["course", "lab"])(["course", "lab", *words])
        assert caught.value.code == 0
        return capsys.readouterr().out

    assert "architecture/merges" in call()
    plan = json.loads(call("architecture/merges", "--plan", "--json", "stories=30"))
    assert plan["params"] == {"stories": 30} and [each["name"] for each in plan["settings"]] == ["stories", "text"]
    data = json.loads(call("architecture/merges", "--json", "stories=30"))
    assert data["params"] == {"stories": 30} and data["events"][0]["event"] == "say" and data["effects"]
    assert "What it showed" in call("architecture/merges", "stories=30")
