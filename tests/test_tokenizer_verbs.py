"""`tokenizer train` and `tokenizer inspect`: what they read, write, refuse and show."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bottega.core.dial import dial
from bottega.core.errors import UserError
from bottega.core.plan import Plan, Specs
from bottega.core.progress import Quiet
from bottega.core.record import read_record
from bottega.core.verb import Result, Verb, execute
from bottega.core.view import Spans
from bottega.data.spec import CorpusSpec
from bottega.tokenizer import texts, training
from bottega.tokenizer.config import InspectTokenizer, TrainTokenizer
from bottega.tokenizer.inspect_verb import plan_inspect
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.tokenizer.train_verb import plan_train

TRAIN = Verb(
    "tokenizer train", "", "bottega.tokenizer.config:TrainTokenizer", "bottega.tokenizer.train_verb:plan_train",
    "bottega.tokenizer.train_verb:run_train",
)  # fmt: skip
INSPECT = Verb(
    "tokenizer inspect", "", "bottega.tokenizer.config:InspectTokenizer", "bottega.tokenizer.inspect_verb:plan_inspect",
    "bottega.tokenizer.inspect_verb:run_inspect",
)  # fmt: skip
WORDS = [
    f"{a}{b}{c}" for a in ("ta", "re", "mo", "si") for b in ("n", "l", "rk") for c in ("a", "ing", "or", "é", "🙂")
]


def prose(seed: int, words: int = 3000) -> str:
    source = random.Random(seed)
    return " ".join(source.choice(WORDS) + source.choice(["", ".\n", ","]) for _ in range(words))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for name, seeds in (("train.jsonl", range(20)), ("heldout.jsonl", range(50, 53))):
        rows = [{"id": str(seed), "text": prose(seed, 200), "source": "x"} for seed in seeds]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "notes.txt").write_text("never read: the folder is a corpus" * 100)
    return folder


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "tokenizer"
    execute(TRAIN, plan_train(TrainTokenizer(data=corpus, out=out, vocab_size=330), Specs()), Quiet())
    return out


def inspect(**settings: Any) -> Result:
    return execute(INSPECT, plan_inspect(InspectTokenizer.parse(settings), Specs()), Quiet())


def test_the_plan_predicts_the_tokenizer(corpus: Path, trained: Path) -> None:
    plan = plan_train(TrainTokenizer(data=corpus, out=trained, vocab_size=330), Specs())
    predicted, found = plan.produces, TokenizerSpec.read(trained)
    assert isinstance(predicted, TokenizerSpec)
    assert replace(predicted, hash=found.hash, template_hash=found.template_hash) == found
    assert plan.inputs == {"data": corpus}


def test_metrics_are_measured_on_train_and_heldout(trained: Path, corpus: Path) -> None:
    record = read_record(trained)
    assert record is not None
    tokenizer = Tokenizer.load(trained)
    for name in ("train", "heldout"):
        rows = [json.loads(line)["text"] for line in (corpus / f"{name}.jsonl").read_text().splitlines()]
        tokens = sum(len(tokenizer.encode(row)) for row in rows)
        size = sum(len(row.encode()) for row in rows)
        assert record.metrics[name]["bytes_per_token"] == pytest.approx(size / tokens, abs=1e-4)
        assert record.metrics[name]["tokens_per_word"] == pytest.approx(
            tokens / sum(len(row.split()) for row in rows), abs=1e-4
        )


def test_training_is_deterministic(
    corpus: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    execute(TRAIN, plan_train(TrainTokenizer(data=corpus, out=tmp_path / "b", vocab_size=330), Specs()), Quiet())
    assert Tokenizer.load(tmp_path / "b").hash == Tokenizer.load(trained).hash


def test_the_size_follows_from_the_dial_unless_given(corpus: Path, tmp_path: Path) -> None:
    def planned(**settings: Any) -> int:
        plan = plan_train(TrainTokenizer(data=corpus, out=tmp_path / "x", **settings), Specs())
        assert isinstance(plan.produces, TokenizerSpec)
        return plan.produces.vocab_size

    assert planned(size="tiny") == dial("tiny").vocab_size
    assert planned(size="tiny", vocab_size=999) == 999
    with pytest.raises(UserError, match="vocabulary"):
        planned()
    with pytest.raises(UserError, match="vocab_size"):
        TrainTokenizer.parse({"data": corpus, "out": tmp_path, "vocab_size": 10})


def test_a_small_text_gives_a_smaller_vocabulary_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc abc")
    said: list[str] = []

    class Listening(Quiet):
        def say(self, message: str) -> None:
            said.append(message)

    plan = plan_train(TrainTokenizer(data=tmp_path / "a.txt", out=tmp_path / "t", vocab_size=5000), Specs())
    result = execute(TRAIN, plan, Listening())
    assert result.data["vocab_size"] == Tokenizer.load(tmp_path / "t").vocab_size < 270
    assert "instead of 5,000" in said[0]


def test_a_predicted_corpus_can_be_planned(tmp_path: Path) -> None:
    specs = Specs()
    specs.predict(tmp_path / "later", CorpusSpec(9, 10**6, 10**5, has_conversations=None))
    plan = plan_train(TrainTokenizer(data=tmp_path / "later", out=tmp_path / "x", vocab_size=300), specs)
    plan.require()
    assert plan.cost.bytes_read == 900_000 and plan.cost.seconds


def test_files_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.md").write_text("# two\n")
    (tmp_path / "a.txt").write_bytes(b"one \xff\n")
    (tmp_path / "c.jsonl").write_text('{"text": "three"}\n\n{"messages": [{"role": "user", "content": "four"}]}\n')
    (tmp_path / "d.bin").write_bytes(b"no")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "description.txt").write_text("what no hash covers")
    assert list(texts.read_texts(texts.find_files(tmp_path), max_bytes=10**9)) == [
        "one \ufffd\n",
        "# two\n",
        "three",
        "four",
    ]


def test_long_files_come_in_pieces_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "PIECE_BYTES", 1000)
    whole = prose(1) + "x" * 5000
    (tmp_path / "a.txt").write_text(whole)
    seen: list[int] = []
    pieces = list(texts.read_texts([tmp_path / "a.txt"], max_bytes=10**9, progress=seen.append))
    assert "".join(pieces) == whole
    assert max(map(len, pieces)) <= 2000 and sum(seen) == len(whole.encode())


def test_a_sample_is_even(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"{index:05d}"}) for index in range(1000)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    total = (tmp_path / "a.jsonl").stat().st_size
    taken = [int(text) for text in texts.read_texts([tmp_path / "a.jsonl"], max_bytes=total // 10)]
    assert 95 <= len(taken) <= 105
    assert {index // 100 for index in taken} == set(range(10))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text"\n', "line 2"),
        ("a.jsonl", '{"body": "x"}\n', "line 1.*text"),
        ("a.jsonl", "[1]\n", "line 1"),
        ("a.pdf", "x", "cannot read .pdf"),
        ("a.txt", "", "empty"),
    ],
)
def test_wrong_text_is_the_users_error_and_nothing_is_left(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        execute(
            TRAIN,
            plan_train(TrainTokenizer(data=tmp_path / name, out=tmp_path / "t", vocab_size=300), Specs()),
            Quiet(),
        )
    assert not (tmp_path / "t").exists()


def test_a_folder_without_text_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text files"):
        texts.find_files(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        texts.find_files(tmp_path / "none")


def test_a_failure_while_reading_is_not_swallowed() -> None:
    def broken() -> Iterator[str]:
        yield "a b"
        raise UserError("the disk is gone")

    with pytest.raises(UserError, match="the disk is gone"):
        training.train(broken(), 300)


def test_inspect_text(trained: Path, tmp_path: Path) -> None:
    text = "tana 🙂 <|im_end|>"
    result = inspect(tokenizer=trained, text=text)
    tokenizer = Tokenizer.load(trained)
    assert result.data["ids"] == tokenizer.encode(text)
    assert result.data["count"] == len(result.data["ids"]) and result.data["bytes"] == len(text.encode())
    (spans,) = result.view
    assert isinstance(spans, Spans)
    assert {style for _, style in spans.spans} == {"even", "odd"}
    (tmp_path / "a.txt").write_text(text)
    assert inspect(tokenizer=trained, file=tmp_path / "a.txt").data == result.data


def test_inspect_messages_shows_the_mask(trained: Path, tmp_path: Path) -> None:
    conversation = [{"role": "user", "content": "tana?"}, {"role": "assistant", "content": "moring"}]
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(conversation))
    result = inspect(tokenizer=trained, messages=path)
    spans = result.view[0]
    assert isinstance(spans, Spans)
    assert "".join(text for text, style in spans.spans if style == "trained") == "moring<|im_end|>"
    assert [text for text, style in spans.spans if style == "special"] == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    (shown,) = result.data["conversations"]
    assert sum(shown["mask"]) == result.data["trained"] and len(shown["ids"]) == result.data["count"]
    lines = tmp_path / "chat.jsonl"
    conversation[0]["content"] = "tana\u2028?"  # a line's end to Python, but not to JSON lines
    path.write_text(json.dumps(conversation))
    (shown,) = inspect(tokenizer=trained, messages=path).data["conversations"]
    lines.write_text((json.dumps({"messages": conversation}, ensure_ascii=False) + "\n") * 2)
    assert inspect(tokenizer=trained, messages=lines).data["conversations"] == [shown, shown]


def test_inspect_without_anything_shows_the_tokenizer(trained: Path) -> None:
    data = inspect(tokenizer=trained).data
    assert data["vocab_size"] == 330 and data["stop_ids"] == [0, 2] and data["adds_bos"] is True


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"text": "x", "file": "y"}, "text and file"),
        ({"file": "missing"}, "missing"),
        ({"messages": "bad.json"}, "not valid JSON"),
        ({"messages": "odd.json"}, "no conversation"),
        ({"messages": "empty.jsonl"}, "no conversation"),
    ],
)
def test_inspect_refuses(trained: Path, tmp_path: Path, settings: dict[str, str], said: str) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "odd.json").write_text('{"a": 1}')
    (tmp_path / "empty.jsonl").write_text("")
    given = {key: value if key == "text" else tmp_path / value for key, value in settings.items()}
    with pytest.raises(UserError, match=said):
        inspect(tokenizer=trained, **given)


def test_inspect_messages_needs_a_template(trained: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "tokenizer.json").write_bytes((trained / "tokenizer.json").read_bytes())
    (tmp_path / "chat.json").write_text('[{"role": "user", "content": "x"}]')
    plan: Plan = plan_inspect(InspectTokenizer(tokenizer=bare, messages=tmp_path / "chat.json"), Specs())
    with pytest.raises(UserError, match="chat template"):
        plan.require()
