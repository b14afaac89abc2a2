from __future__ import annotations

import ast
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bottega.core.errors import UserError
from bottega.core.plan import Plan, Specs
from bottega.core.progress import Quiet
from bottega.core.verb import Verb, execute, step_hash
from bottega.data import dedup, stdlib
from bottega.data.blocks import paragraphs, python_blocks
from bottega.data.config import CollectData
from bottega.data.facts import MAX_ANSWER
from bottega.data.pairs import _TEST, _TRAIN
from bottega.data.spec import CorpusSpec

COLLECT = Verb(
    "data collect",
    "",
    "bottega.data.config:CollectData",
    "bottega.data.collect:plan_collect",
    "bottega.data.collect:run_collect",
)


def plan(**settings: Any) -> Plan:
    return COLLECT.make_plan(CollectData.parse(settings), Specs())


def collect(**settings: Any) -> dict[str, Any]:
    return execute(COLLECT, plan(**settings), Quiet()).data


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def python_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("python") / "corpus"
    collect(source="python", out=out)
    return out


def check_questions(questions: list[dict[str, Any]]) -> None:
    for question in questions:
        choices = question["choices"]
        assert len(choices) == len(set(choices)) == 4
        assert 0 <= question["answer"] < 4
        assert all(0 < len(choice) <= MAX_ANSWER for choice in choices)
    assert len({question["id"] for question in questions}) == len(questions)


def test_the_plan_of_the_standard_library_predicts_the_corpus(python_corpus: Path) -> None:
    predicted = plan(source="python", out=python_corpus.with_name("other")).produces
    found = CorpusSpec.read(python_corpus)
    assert isinstance(predicted, CorpusSpec)
    assert found.exact
    assert 0.9 < predicted.bytes / found.bytes < 1.1
    assert 0.9 < predicted.documents / found.documents < 1.1
    assert predicted.has_conversations is found.has_conversations is True


def test_families_stand_on_one_side_and_the_share_is_held(python_corpus: Path) -> None:
    train, heldout = rows(python_corpus / "train.jsonl"), rows(python_corpus / "heldout.jsonl")
    assert not {stdlib.family(row["id"]) for row in train} & {stdlib.family(row["id"]) for row in heldout}
    spec = CorpusSpec.read(python_corpus)
    assert 0.06 < spec.heldout_bytes / spec.bytes <= 0.085
    assert spec.bytes == sum(len(row["text"].encode()) for row in train + heldout)
    assert spec.bytes > 5e6
    assert {row["source"] for row in train} == {"python source", "python topics", "python extension modules"}


def test_no_training_block_resembles_a_held_out_one(python_corpus: Path) -> None:
    index = dedup.HeldoutIndex()
    for row in rows(python_corpus / "heldout.jsonl"):
        is_topic = stdlib.module_name(row["id"]) is None
        blocks = paragraphs(row["text"]) if is_topic else python_blocks(row["text"], ast.parse(row["text"]))
        index.add(block.text for block in blocks)
    for row in rows(python_corpus / "train.jsonl")[::4]:
        assert index.find([block.text for block in paragraphs(row["text"])]) == [], row["id"]
    assert json.loads((python_corpus / "corpus.json").read_text())["dropped"]["near_duplicate_blocks"] > 0


def test_questions_are_about_the_right_side_in_other_words(python_corpus: Path) -> None:
    conversations = rows(python_corpus / "conversations.jsonl")
    questions = rows(python_corpus / "questions.jsonl")
    check_questions(questions)
    taught = {row["id"]: row["messages"][1]["content"] for row in conversations}
    asked_in_training = {row["messages"][0]["content"] for row in conversations}
    assert len(taught) == len(conversations) > 5000
    answers_taught = set(taught.values())
    for group in ("seen", "unseen"):
        mine = [question for question in questions if question["group"] == group]
        assert {kind: sum(q["kind"] == kind for q in mine) for kind in ("what", "module", "parameters")} == {
            "what": 100, "module": 100, "parameters": 100
        }  # fmt: skip
        for question in mine:
            fact = question["id"].partition(":")[2]
            right = question["choices"][question["answer"]]
            assert question["question"] not in asked_in_training
            assert (taught.get(fact) == right) if group == "seen" else (fact not in taught)
            if group == "unseen" and question["kind"] == "what":
                assert right not in answers_taught
        # An answer's place and length tell nothing: both would give 25 % to who follows them.
        places = [question["answer"] for question in mine]
        assert all(50 <= places.count(place) <= 100 for place in range(4))
        for strange in (min, max):
            hits = 0
            for question in mine:
                lengths = [len(choice) for choice in question["choices"]]
                hits += lengths.count(strange(lengths)) == 1 and lengths[question["answer"]] == strange(lengths)
            assert hits < 0.32 * len(mine)
    module = next(row for row in conversations if row["id"] == "module:heappush")
    assert module["messages"][1]["content"] == "It is in the heapq module."


def test_phrasings_for_testing_are_not_those_for_training() -> None:
    for kind, phrasings in _TRAIN.items():
        assert len(phrasings) >= 3
        assert len(_TEST[kind]) >= 3
        assert not set(phrasings) & set(_TEST[kind])


def notes(folder: Path, count: int = 40) -> Path:
    """Markdown files whose paragraphs share no more than a few words."""
    random = Random(4)
    syllables = ["ba", "lo", "mi", "ter", "nu", "sa", "ver", "qui", "do", "ran"]

    def word() -> str:
        return "".join(random.choices(syllables, k=random.randint(2, 4)))

    def sentence() -> str:
        return " ".join(word() for _ in range(random.randint(6, 14))).capitalize() + "."

    folder.mkdir()
    for i in range(count):
        parts = [f"# About {word()}", sentence(), f"## Use of {word()}", sentence(), "- a list\n- without prose"]
        (folder / f"note_{i}.md").write_text("\n\n".join(parts))
    return folder


def test_a_folder_with_headings_gives_conversations_and_questions(tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = collect(source=str(notes(tmp_path / "notes")), out=out, held_out=0.2)
    assert manifest["conversations"]["kinds"].keys() == {"section"}
    assert manifest["questions"]["seen"] > 20
    assert manifest["questions"]["unseen"] > 8
    check_questions(rows(out / "questions.jsonl"))
    for row in rows(out / "conversations.jsonl")[:10]:
        place, heading = row["id"].removeprefix("section:").split(":")
        file = tmp_path / "notes" / f"{place.replace(' ', '_')}.md"
        assert f"# {heading}\n\n{row['messages'][1]['content']}" in file.read_text()
        assert f'"{heading}"' in row["messages"][0]["content"]
    assert not (out / "staged.jsonl").exists()


def test_near_and_exact_duplicates_do_not_cross_the_split(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    common = "This very long paragraph is the same in all of the documents, word for word and comma for comma, always."
    for i in range(60):
        (folder / f"{i:02d}.txt").write_text(f"{common}\n\nOnly here stands the number {i}.\n")
    (folder / "copy.txt").write_text((folder / "05.txt").read_text())
    manifest = collect(source=str(folder), out=tmp_path / "out")
    assert manifest["dropped"]["exact_duplicate_documents"] == 1
    assert manifest["dropped"]["near_duplicate_blocks"] == manifest["train"]["documents"]
    assert all(common not in row["text"] for row in rows(tmp_path / "out" / "train.jsonl"))
    assert all(common in row["text"] for row in rows(tmp_path / "out" / "heldout.jsonl"))


def test_one_book_is_split_in_parts_and_the_manifest_says_why_there_is_no_fine_tuning(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(f"Sentence {i} of a story about {i * i}." for i in range(3000)))
    manifest = collect(source=str(book), out=tmp_path / "out")
    assert manifest["dropped"]["near_duplicate_bytes"] == 0
    assert 0.05 < manifest["split"]["share"] <= 0.085
    assert manifest["conversations"]["count"] == manifest["questions"]["count"] == 0
    assert "no fine-tuning" in manifest["fine_tuning"]
    assert CorpusSpec.read(tmp_path / "out").has_conversations is False


def test_given_conversations_are_kept_on_the_training_side_only(tmp_path: Path) -> None:
    data = tmp_path / "chats.jsonl"
    chats = [{"prompt": f"Question {i}?", "completion": f"Answer {i}."} for i in range(50)]
    data.write_text("\n".join(map(json.dumps, chats)))
    out = tmp_path / "out"
    collect(source=str(data), out=out, held_out=0.2)
    given = rows(out / "conversations.jsonl")
    assert {row["id"] for row in given} == {row["id"] for row in rows(out / "train.jsonl")}
    assert given[0]["kind"] == "given"


def test_the_same_input_gives_the_same_corpus_and_hash(tmp_path: Path) -> None:
    source = str(notes(tmp_path / "notes"))
    contents = []
    for name in ("a", "b"):
        collect(source=source, out=tmp_path / name)
        contents.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir() if p.name != "record.json"})
    assert contents[0] == contents[1]
    before = step_hash(COLLECT, plan(source=source, out=tmp_path / "c"))
    assert before == step_hash(COLLECT, plan(source=source, out=tmp_path / "d"))
    (tmp_path / "notes" / "note_0.md").write_text("Something else.")
    assert before != step_hash(COLLECT, plan(source=source, out=tmp_path / "c"))


def test_nothing_readable_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        collect(source=str(tmp_path / "none"), out=tmp_path / "out")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.txt").write_bytes(b"\0\0\0")
    with pytest.raises(UserError, match=r"nothing readable .*binary"):
        collect(source=str(tmp_path / "bad"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="lies in the source"):
        collect(source=str(notes(tmp_path / "notes")), out=tmp_path / "notes" / "out")
