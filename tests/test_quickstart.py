"""The shipped quickstart, in a process of its own and on generated documents: its report says what is true of it."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bottega.core.record import Record
from bottega.verbs.reports import _made_from
from conftest import generated_text, peak_of_command

# The whole chain at `small` may take 4 GB (benchmarks/quickstart.py); this one is far smaller.
MOST_MEMORY = 2 * 2**30


@dataclass(frozen=True)
class Run:
    """The words of the report, the metrics of each step, and the peak memory of the process in bytes."""

    words: str
    metrics: dict[str, dict[str, Any]]
    peak_memory: int


def quickstart(root: Path, documents: list[str]) -> Run:
    """`bottega run quickstart` on these documents, cut short."""
    folder = root / "notes"
    folder.mkdir()
    for number, text in enumerate(documents):
        (folder / f"{number:02d}.md").write_text(text)
    words = ["run", "quickstart", "--text", str(folder), "--size", "tiny", "--workspace", str(root / "workspace")]
    peak = peak_of_command([*words, "--quiet", "train.tokens=4096"], root)
    made = root / "workspace" / "quickstart"
    page = (made / "report.html").read_text()
    text = html.unescape(re.sub(r"<[^>]+>", " ", page[page.index("<body>") :]))
    steps = {path.parent.name: json.loads(path.read_text())["metrics"] for path in made.glob("*/record.json")}
    return Run(" ".join(text.split()), steps, peak)


@pytest.fixture(scope="module")
def with_headings(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return quickstart(tmp_path_factory.mktemp("headings"), [generated_text(seed) for seed in range(40)])


@pytest.fixture(scope="module")
def without_headings(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plain = [re.sub(r"(?m)^#.*$", "", generated_text(seed)) for seed in range(40)]
    return quickstart(tmp_path_factory.mktemp("plain"), plain)


def test_the_report_of_own_documents_speaks_of_them(with_headings: Run) -> None:
    assert "Made from the documents in notes." in with_headings.words
    assert "Python's standard library" not in with_headings.words
    assert with_headings.metrics["corpus"]["conversations"]["count"] > 0
    assert with_headings.metrics["model"]["trained_tokens"] > 0


def test_every_limit_is_one_of_what_was_measured(with_headings: Run) -> None:
    words, evaluation = with_headings.words, with_headings.metrics["evaluation"]
    poorer = evaluation["bits_per_byte_difference"] > 0
    assert ("Fine-tuning made it a poorer reader" in words) == poorer
    assert evaluation["choice"]["questions"] > 0 and "Never seen in training" in words
    for sentence in (
        "Multiple choice is easier than answering.",
        "Good figures on these questions",
        "In its own words",
    ):
        assert sentence in words


def test_documents_without_headings_give_a_report_without_fine_tuning(without_headings: Run) -> None:
    words, metrics = without_headings.words, without_headings.metrics
    assert metrics["model"]["copied"] and metrics["evaluation"]["bits_per_byte_difference"] == 0
    assert "this is the model it started from, unchanged" in words
    assert "The corpus has no questions: nothing was asked." in words
    assert "It does not reason" in words
    untrue = "Fine-tuning made it", "It is for questions", "answers alone", "Multiple choice", "these questions"
    for sentence in (*untrue, "how an answer looks", "assistant"):
        assert sentence not in words, sentence


def test_the_subtitle_names_the_source() -> None:
    record = Record("data collect", 1, "", {"source": "python"}, {})
    assert _made_from({"corpus": record}) == "Made from this Python's standard library."
    assert _made_from({"corpus": None}) == ""


def test_the_memory_of_the_whole_chain_is_bounded(with_headings: Run, without_headings: Run) -> None:
    assert 100 * 2**20 < max(with_headings.peak_memory, without_headings.peak_memory) < MOST_MEMORY
