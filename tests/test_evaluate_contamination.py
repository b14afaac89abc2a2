"""`bottega contamination`: what was planted is found where it is, by brute force too, and nothing else is."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats import proportion

from bottega import verbs
from bottega.core.errors import UserError
from bottega.data.sources import Skipped
from bottega.evaluate.analysis import overlap as overlap_module
from bottega.evaluate.analysis.contamination import passages, sought_of_tasks
from bottega.evaluate.analysis.contamination_view import contamination_report
from bottega.evaluate.analysis.overlap import Overlap, Passage
from bottega.evaluate.analysis.words import words
from bottega.evaluate.items import Item, items_text

SHORT = st.lists(st.sampled_from("abc"), max_size=7)
TEXTS = st.lists(st.lists(SHORT, max_size=3), min_size=1, max_size=5)
LARGE = st.lists(st.tuples(st.lists(st.sampled_from([*"abc", "z", "\n"]), max_size=30), st.booleans()), max_size=4)
VOCABULARY = [f"w{number}" for number in range(3000)]


def plain_grams(part: list[str], size: int, shortest: int) -> set[tuple[str, ...]]:
    size = min(size, len(part))
    return {tuple(part[n : n + size]) for n in range(len(part) - size + 1)} if len(part) >= shortest else set()


def by_brute_force(
    texts: list[list[list[str]]], documents: list[list[str]], size: int, shortest: int
) -> list[tuple[int, int]]:
    """Distinct n-grams of each text that are found, and all of them."""
    there = {tuple(one[n : n + length]) for one in documents for length in range(1, size + 1) for n in range(len(one))}
    found = []
    for parts in texts:
        own = set().union(*(plain_grams(part, size, shortest) for part in parts)) if parts else set()
        found.append((len(own & there), len(own)))
    return found


@settings(max_examples=300, deadline=None)
@given(TEXTS, LARGE, st.integers(2, 5), st.integers(1, 3), st.integers(1, 12))
def test_overlap_equals_brute_force(
    texts: list[list[list[str]]], large: list[tuple[list[str], bool]], size: int, shortest: int, batch: int
) -> None:
    shortest = min(size, shortest)
    given_passages, documents = [], []
    for number, (tokens, continues) in enumerate(large):
        continues = continues and bool(given_passages)
        given_passages.append(Passage(f"p{number}", " ".join(tokens), 1, continues))
        own = [token for token in tokens if token != "\n"]
        if continues:
            documents[-1] += own
        else:
            documents.append(own)
    found = Overlap(texts, size, shortest)
    before = overlap_module.BATCH
    overlap_module.BATCH = batch  # so that batches end everywhere
    try:
        assert list(found.scanned(given_passages)) == given_passages
    finally:
        overlap_module.BATCH = before
    expected = by_brute_force(texts, documents, size, shortest)
    assert list(zip(found.found().tolist(), found.totals.tolist(), strict=True)) == expected
    assert [place is not None for place in found.places] == [count > 0 for count, _ in expected]


def test_a_passage_without_words_is_no_place() -> None:
    given_passages = [
        Passage("a#0", "?"),
        Passage("a#1", "… !"),
        Passage("a#2", "x y z"),
        Passage("b", "\n-\n\nu v w", 5),
    ]
    found = Overlap([[["x", "y"]], [["u", "v", "w"]], [["z", "u"]]], 3, 2)
    assert len(list(found.scanned(given_passages))) == 4
    assert found.places == ["a#2", "b:8", None]


@given(st.text(), st.text(alphabet=st.characters(max_codepoint=127)))
def test_words_are_lower_case_and_without_punctuation(text: str, ascii_text: str) -> None:
    for each in (text, ascii_text):
        plain = re.sub(r"[^\w\s]|_", "", each.lower())
        plain = re.sub("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])", r" \1 ", plain)
        assert words(each) == plain.split()


def prose(generator: np.random.Generator, count: int) -> list[str]:
    return generator.choice(VOCABULARY, count).tolist()


def write_run(folder: Path, questions: list[str], right: list[float]) -> Path:
    """A run of one model; the prompt has an example before the question."""
    items = [
        Item(model="m", task="t", doc_id=n, doc={"question": text, "label": n % 4},
             prompt=f"Q: {questions[0]}\nA: yes\n\nQ: {text}\nA:", prompt_hash=str(n), gold=0, target="yes",
             choices=["yes", "no"], loglikelihoods=[-1.0, -2.0], greedy=[True, False], metrics={"acc": value})
        for n, (text, value) in enumerate(zip(questions, right, strict=True))
    ]  # fmt: skip
    folder.mkdir()
    results = {"t": {"acc": {"value": float(np.mean(right)), "stderr": None, "ci95": None}}}
    (folder / "evaluation.json").write_text(json.dumps({"models": [{"model": "m", "results": results}]}))
    (folder / "items.jsonl").write_text(items_text(items))
    return folder


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Path, Path]:
    """A run whose items 0–19 stand in the text, 20–29 by half; right more often where they do."""
    generator = np.random.default_rng(0)
    questions = [" ".join(prose(generator, 30)) for _ in range(200)]
    questions[199] = "Too short to tell, this one."
    right = [float(generator.random() < (0.95 if n < 20 else 0.4)) for n in range(200)]
    many = prose(generator, 12 * 4000)
    lines = [" ".join(many[12 * n : 12 * n + 12]) for n in range(4000)]
    for n in range(20):
        lines[100 + 50 * n] = f"(“{questions[n].upper()},”)"
    for n in range(20, 30):
        half = questions[n].split()[:18]
        lines[2000 + 50 * n] = f"{lines[2000 + 50 * n]}: {' '.join(half[:9])},"
        lines[2001 + 50 * n] = f"— {' '.join(half[9:])}!"  # over the end of a line
    text = tmp_path / "train.txt"
    text.write_text("\n".join(lines))
    return write_run(tmp_path / "run", questions, right), text


def test_planted_items_are_found_where_they_are(tmp_path: Path, planted: tuple[Path, Path]) -> None:
    run, text = planted
    data = verbs.contamination(run=str(run), against=[str(text)], out=str(tmp_path / "out"), most=200)
    row = data["tasks"][0]
    assert (row["dirty"], row["suspect"], row["clean"], row["too short"]) == (20, 10, 169, 1)
    low, high = proportion.proportion_confint(20, 199, method="wilson")
    assert row["share_dirty"]["ci95"] == pytest.approx([low, high])
    found = {each["doc_id"]: each for each in data["examples"]}
    assert set(found) == set(range(30))
    for n in range(20):
        assert (found[n]["place"], found[n]["share"]) == (f"{text}:{101 + 50 * n}", 1.0)
    for n in range(20, 30):
        assert found[n]["place"] == f"{text}:{2001 + 50 * n}" and found[n]["found"] == 6 and found[n]["ngrams"] == 18
    lines = [json.loads(line) for line in (tmp_path / "out" / "contamination.jsonl").read_text().splitlines()]
    assert [each["doc_id"] for each in lines] == [*range(30), 199]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Of 200 items 20 are dirty, 10 suspect, 169 clean, and 1 too short to tell" in page
    assert len(contamination_report(tmp_path / "out")) == 5


def test_scores_with_and_without_what_was_found(planted: tuple[Path, Path]) -> None:
    run, text = planted
    row = verbs.contamination(run=str(run), against=[str(text)])["scores"][0]
    values = [json.loads(line)["metrics"]["acc"] for line in (run / "items.jsonl").read_text().splitlines()]
    dirty, clean = (round(sum(values[:20])), 20), (round(sum(values[30:199])), 169)
    assert row["dirty"]["value"] == dirty[0] / 20 and row["clean"]["items"] == 169
    low, high = proportion.confint_proportions_2indep(*dirty, *clean, method="newcomb", compare="diff")
    assert row["ci95"] == pytest.approx([low, high]) and low > 0.2
    assert row["difference"] == pytest.approx(dirty[0] / 20 - clean[0] / 169)


def test_what_is_not_there_is_not_found(tmp_path: Path, planted: tuple[Path, Path]) -> None:
    other = tmp_path / "other.txt"
    other.write_text(" ".join(prose(np.random.default_rng(9), 36_000)))
    data = verbs.contamination(run=str(planted[0]), against=[str(other)])
    assert data["tasks"][0]["clean"] == 199 and not data["examples"] and data["scores"][0]["dirty"] is None


def test_the_example_in_the_prompt_is_not_the_item(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    questions = [" ".join(prose(generator, 20)) for _ in range(6)]
    run = write_run(tmp_path / "run", questions, [1.0] * 6)
    text = tmp_path / "t.txt"
    text.write_text(questions[0])  # which stands in every prompt
    data = verbs.contamination(run=str(run), against=[str(text)])
    assert [row["doc_id"] for row in data["examples"]] == [0] and data["tasks"][0]["by_prompt"] == 0


def test_shorter_ngrams_find_more_and_the_threshold_decides(planted: tuple[Path, Path]) -> None:
    run, text = planted
    palm = verbs.contamination(run=str(run), against=[str(text)], ngram=8, dirty=0.4)["tasks"][0]
    # Of 23 8-grams 11 are found of those that are there by half.
    assert (palm["dirty"], palm["suspect"]) == (30, 0)
    assert verbs.contamination(run=str(run), against=[str(text)], ngram=8, dirty=0.5)["tasks"][0]["suspect"] == 10
    assert verbs.contamination(run=str(run), against=[str(text)], ngram=20)["tasks"][0]["suspect"] == 0
    brief = verbs.contamination(run=str(run), against=[str(text)], shortest=5)["tasks"][0]
    assert brief["too short"] == 0


def test_rows_folders_corpora_and_conversations(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    questions = [" ".join(prose(generator, 16)) for _ in range(8)]
    run = write_run(tmp_path / "run", questions, [1.0] * 8)
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    half = questions[2].split()
    rows = [{"text": "x"}, {"text": questions[1]}, {"text": " ".join(half[:8])}, {"text": " ".join(half[8:])}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "deep" / "page.html").write_text(f"<html><body><p>{questions[3]}</p></body></html>")
    chat = {"messages": [{"role": "user", "content": questions[4]}, {"role": "assistant", "content": "No."}]}
    with gzip.open(folder / "chat.jsonl.gz", "wt") as file:
        file.write(json.dumps(chat) + "\n")
    (folder / "image.png").write_bytes(b"\x89PNG")
    (folder / "broken.jsonl").write_text("{\n")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "corpus.json").write_text("{}")
    (corpus / "train.jsonl").write_text(json.dumps({"text": questions[5]}) + "\n")
    (corpus / "conversations.jsonl").write_text(json.dumps(chat | {"messages": [
        {"role": "user", "content": questions[6]}, {"role": "assistant", "content": "Yes."}]}) + "\n")  # fmt: skip
    (corpus / "heldout.jsonl").write_text(json.dumps({"text": questions[7]}) + "\n")
    data = verbs.contamination(run=str(run), against=[str(folder), str(corpus)])
    assert {row["doc_id"]: row["place"] for row in data["examples"]} == {
        1: f"{folder}/rows.jsonl#1",  # 2 stands there over two rows, which are no text that goes on
        3: f"{folder}/deep/page.html:1",
        4: f"{folder}/chat.jsonl.gz#0",
        5: f"{corpus}/train.jsonl#0",
        6: f"{corpus}/conversations.jsonl#0",
    }
    assert {reason: row["count"] for reason, row in data["skipped"].items()} == {
        "unknown kind .png": 1, "broken JSON row": 1, "nothing in it": 1,
    }  # fmt: skip


def test_a_long_file_is_read_in_pieces_that_hang_together(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    many = prose(generator, 9 * 80_000)
    lines = [" ".join(many[9 * n : 9 * n + 9]) for n in range(80_000)]
    text = tmp_path / "long.txt"
    text.write_text("\n".join(lines))
    pieces = list(passages([text], Skipped()))
    assert len(pieces) > 2 and [piece.continues for piece in pieces] == [False, *[True] * (len(pieces) - 1)]
    borders = [piece.first_line or 0 for piece in pieces[1:]]
    wanted = [[" ".join(lines[line - 2 : line]).split()] for line in (1000, *borders, 80_000)]
    found = Overlap(wanted, 13, 8)
    for _ in found.scanned(iter(pieces)):
        pass
    assert (found.found() == found.totals).all() and (found.totals == 6).all()
    assert found.places == [f"{text}:{line - 1}" for line in (1000, *borders, 80_000)]


def test_items_of_tasks_need_no_model(tmp_path: Path) -> None:
    data = tmp_path / "data" / "Rowan" / "hellaswag"
    data.mkdir(parents=True)
    docs = [
        {"ind": n, "activity_label": "Removing ice", "ctx_a": f"Then, the man number {n} writes over the snow covering "
         "the window of a car, and a woman wearing winter clothes smiles.", "ctx_b": "then", "ctx": "",
         "endings": [f"ending {n}", "b", "c", "d"], "label": "0", "split": "val", "source_id": "a~b"}
        for n in range(3)
    ]  # fmt: skip
    (data / "validation.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    text = tmp_path / "t.txt"
    text.write_text("\n\n".join(["Nothing.", docs[1]["ctx_a"]]))
    found = verbs.contamination(tasks=["hellaswag"], data=str(tmp_path / "data"), against=[str(text)])
    assert {row["doc_id"]: row["verdict"] for row in found["examples"]}[1] == "dirty" and found["scores"] == []
    # The others have n-grams of the same sentence, behind the number.
    assert found["tasks"][0]["dirty"] + found["tasks"][0]["suspect"] == 3
    sought = sought_of_tasks(["hellaswag"], tmp_path / "data")
    assert all(each.own for each in sought) and sought[2].parts[-1] == ["ending", "2"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"against": ["t.txt"]}, "give a run or tasks, and not both"),
        ({"run": "run", "tasks": ["arc_easy"], "against": ["t.txt"]}, "give a run or tasks, and not both"),
        ({"run": "run"}, "'against' is required"),
        ({"run": "run", "against": []}, "at least 1 item"),
        ({"run": "run", "against": ["none.txt"]}, "none.txt: there is no such file or folder"),
        ({"run": "run", "against": ["t.txt", "t.txt"]}, "a path is given twice"),
        ({"run": "run", "against": ["empty.txt"]}, "empty.txt: empty"),
        ({"run": "run", "against": ["blank.txt"]}, "blank.txt has no text to look in (nothing in it: blank.txt)"),
        (
            {"run": "run", "against": ["binary.txt"]},
            "binary.txt has no text to look in (binary: binary.txt; nothing in it: binary.txt)",
        ),
        ({"run": "none", "against": ["t.txt"]}, "none has no evaluation.json"),
        ({"run": "bare", "against": ["t.txt"]}, "bare has no items.jsonl"),
        ({"run": "run", "against": ["t.txt"], "metric": "f1"}, "'f1' is no mean over the items of any task"),
        ({"tasks": ["arc_easy"], "against": ["t.txt"], "metric": "acc"}, "metric is of a run"),
        ({"tasks": ["arc_easyy"], "against": ["t.txt"]}, "there is no task 'arc_easyy'"),
        ({"tasks": ["arc_easy"], "against": ["t.txt"]}, "task arc_easy needs documents"),
        ({"run": "run", "data": "x", "against": ["t.txt"]}, "data is where tasks have their documents"),
        ({"run": "run", "against": ["t.txt"], "ngram": 3}, "ngram"),
        ({"run": "run", "against": ["t.txt"], "ngram": 6, "shortest": 7}, "shortest 7 is longer than an n-gram of 6"),
        ({"run": "run", "against": ["t.txt"], "dirty": 0.0}, "dirty"),
    ],
)
def test_wrong_inputs(settings: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"), ["what is it"], [1.0])
    Path("bare").mkdir()
    Path("bare/evaluation.json").write_text(Path("run/evaluation.json").read_text())
    for name, content in (("t.txt", b"a text"), ("empty.txt", b""), ("blank.txt", b" \n"), ("binary.txt", b"\0\1\2")):
        Path(name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        verbs.contamination(**settings)
    assert said in raised.value.message


def test_what_was_measured_but_is_no_mean_is_named(planted: tuple[Path, Path]) -> None:
    run, text = planted
    path = run / "evaluation.json"
    path.write_text(path.read_text().replace('"value": ', '"value": 7'))
    data = verbs.contamination(run=str(run), against=[str(text)])
    assert data["scores"] == [] and data["no_scores"] == {"t, m": "its metric is no mean over its items"}


def test_the_plan_says_how_long_it_takes(planted: tuple[Path, Path]) -> None:
    plan = verbs.plan("contamination", run=str(planted[0]), against=[str(planted[1])])
    assert plan["cost"]["bytes_read"] == planted[1].stat().st_size and plan["cost"]["seconds"] > 0
