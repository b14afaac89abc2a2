"""`bottega data check`: what it finds in data made wrong on purpose, and that `data prepare` then does the same."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.core.progress import Quiet
from bottega.core.verb import execute
from bottega.core.view import Spans
from bottega.data.config import CheckData, PrepareData
from bottega.data.examples import Examples
from bottega.tokenizer import training
from bottega.tokenizer.chat import encode_chat
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.verbs.registry import VERBS


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    training.write_folder(training.train(iter(["the cat sat on the mat and the dog sat too"] * 5), 300), folder)
    return folder


def check(data: Path, **settings: Any) -> dict[str, Any]:
    verb = VERBS["data check"]
    plan = verb.make_plan(CheckData.parse({"data": data, **settings}), Specs())
    return execute(verb, plan, Quiet()).data


def prepare(data: Path, out: Path, **settings: Any) -> dict[str, Any]:
    verb = VERBS["data prepare"]
    plan = verb.make_plan(PrepareData.parse({"data": data, "out": out, **settings}), Specs())
    return execute(verb, plan, Quiet()).data


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


Q, A = turn("user", "the cat"), turn("assistant", "sat on the mat")


def counts(rows: dict[str, Any]) -> dict[str, int]:
    return {reason: row["count"] for reason, row in rows.items()}


def test_every_fault_of_conversations_is_found_with_its_place(tmp_path: Path, tokenizer: Path) -> None:
    rows: list[Any] = [
        {"messages": [Q, A]},
        {"messages": [Q, A]},  # 1: again
        {"messages": [A]},
        {"messages": [Q, Q, A]},
        {"messages": [Q, A, A]},
        {"messages": [Q, A, turn("system", "s"), Q, A]},
        {"messages": [Q, A, Q]},
        {"messages": [Q, turn("assistant", ""), Q, A]},
        {"messages": [turn("user", " "), A]},
        {"messages": [Q, turn("tool", "2"), A]},
        {"messages": [Q, {**A, "weight": 0}]},  # 10: nothing to train on
        {"messages": [Q]},
        {"messages": [Q, turn("assistant", " ")]},
        {"messages": [turn("wizard", "x"), A]},
        {"messages": [Q, A], "tools": [{"name": "f"}]},
        {"colour": "blue"},
        "{broken\n",
    ]
    found = check(written(tmp_path / "c.jsonl", rows), tokenizer=tokenizer)
    assert (found["form"], found["format"], found["unit"]) == ("chat", "messages", "tokens")
    assert (found["rows"], found["examples"], found["formats"]) == (16, 10, {"messages": 10})
    assert counts(found["doubtful"]) == {
        "the same as an earlier one": 1,
        "begins with the assistant": 1,
        "two messages of the user in a row": 1,
        "two messages of the assistant in a row": 1,
        "a system message that is not the first": 1,
        "does not end with the assistant": 1,
        "an empty message of the assistant": 1,
        "an empty question": 1,
        "a tool's answer that nobody called for": 1,
    }
    assert found["doubtful"]["the same as an earlier one"]["examples"] == ["c.jsonl#1"]
    rejected = counts(found["rejected"])
    assert rejected == {
        "no token to train on": 1,
        "no answer of the assistant": 2,
        "a message of an unknown role": 1,
        "the chat template refuses these messages: this chat template has no place for tools"
        " (tools: text writes them as text)": 1,
        "of no known format": 1,
        "broken JSON row": 1,
    }
    manifest = prepare(tmp_path / "c.jsonl", tmp_path / "out", tokenizer=tokenizer, kind="chat")
    assert manifest["dropped"] == found["rejected"]
    assert (manifest["documents"], manifest["tokens"]) == (found["examples"], found["total_length"])
    assert manifest["trained_tokens"] == found["trained"]


def test_one_example_is_shown_with_the_mask_it_will_have(tmp_path: Path, tokenizer: Path) -> None:
    data = written(tmp_path / "c.jsonl", [{"messages": [Q, A]}])
    verb = VERBS["data check"]
    result = execute(verb, verb.make_plan(CheckData(data=data, tokenizer=tokenizer), Specs()), Quiet())
    shown = [block for block in result.view if isinstance(block, Spans)]
    chat = encode_chat(Tokenizer.load(tokenizer), [Q, A])
    assert "".join(text for text, style in shown[0].spans if style == "trained") == "sat on the mat<|im_end|>"
    assert "".join(text for text, _ in shown[0].spans) == chat.text
    (document,) = result.data["example"]["documents"]
    assert (document["ids"], document["mask"]) == (chat.ids, chat.mask)


def test_without_a_tokenizer_characters_are_counted_and_the_answer_is_shown(tmp_path: Path) -> None:
    data = written(tmp_path / "p.jsonl", [{"prompt": "q", "chosen": "good", "rejected": "bad"}] * 2)
    verb = VERBS["data check"]
    result = execute(verb, verb.make_plan(CheckData(data=data), Specs()), Quiet())
    assert (result.data["unit"], result.data["form"]) == ("characters", "pairs")
    shown = [block for block in result.view if isinstance(block, Spans)]
    assert [block.spans for block in shown] == [[("q", "muted"), (word, "trained")] for word in ("good", "bad")]
    with pytest.raises(UserError, match="need a tokenizer"):
        check(data, row_length=10)


def test_pairs_are_measured(tmp_path: Path, tokenizer: Path) -> None:
    draw = random.Random(0)
    rows: list[Any] = []
    for _ in range(60):
        prompt, chosen, rejected = ("the cat sat " * draw.randint(1, 9) for _ in range(3))
        rows.append({"prompt": prompt, "chosen": chosen + "x", "rejected": rejected + "y"})
    rows += [{"prompt": "q", "chosen": "a", "rejected": "a"}, {"prompt": "q", "chosen": "a", "rejected": ""}]
    data = written(tmp_path / "p.jsonl", rows)
    found = check(data, tokenizer=tokenizer, row_length=40)
    assert counts(found["rejected"]) == {"chosen and rejected are the same": 1, "an empty answer": 1}
    out = tmp_path / "out"
    manifest = prepare(data, out, tokenizer=tokenizer, kind="pairs")
    assert manifest["dropped"] == found["rejected"]
    examples = Examples(out, row_length=10_000, seed=0)
    sizes = np.array([[int(d.mask.sum()) for d in examples.documents(i)] for i in range(examples.count)])
    assert found["pairs"]["chosen_longer_share"] == round(float((sizes[:, 0] > sizes[:, 1]).mean()), 4)
    assert found["pairs"]["chosen_mean"] == round(float(sizes[:, 0].mean()), 1)
    lengths = [n for i in range(examples.count) for n in examples.lengths(i)]
    assert found["lengths"]["p90"] == round(float(np.percentile(lengths, 90)), 1)
    assert found["lengths"]["max"] == max(lengths) == manifest["longest"]
    # What rows of this length will do is what reading them does.
    cut = Examples(out, row_length=40, seed=0)
    told = counts(found["doubtful"])
    assert told["dropped: 40 tokens leave nothing to train on"] == cut.dropped > 0
    assert told["longer than 40 tokens: its end is cut off"] == cut.truncated > 0


def test_labels_and_missing_stop_tokens_are_counted(tmp_path: Path, tokenizer: Path) -> None:
    rows = [{"prompt": "q", "completion": "a", "label": number % 3 == 0} for number in range(9)]
    data = written(tmp_path / "k.jsonl", rows)
    found = check(data, tokenizer=tokenizer, train_on_eos="none")
    assert found["labels"] == {"true": 3, "false": 6}
    assert counts(found["doubtful"]) == {"the same as an earlier one": 8, "trains no stop token": 9}
    assert "trains no stop token" not in check(data, model=tokenizer)["doubtful"]
    assert check(data, rows=4)["rows"] == 4


def test_text_is_checked_as_documents(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "d").mkdir()
    for number in range(3):
        (tmp_path / "d" / f"{number}.txt").write_text("the cat sat " * (1 + 40 * (number == 2)))
    found = check(tmp_path / "d", tokenizer=tokenizer, row_length=16)
    assert (found["form"], found["examples"]) == ("text", 3)
    assert counts(found["doubtful"]) == {
        "the same as an earlier one": 1,
        "longer than 16 tokens: cut into pieces": 1,
    }


def test_parts_of_a_data_set_that_are_read_together_are_named(tmp_path: Path, tokenizer: Path) -> None:
    for name in ("train", "test"):
        written(tmp_path / f"{name}.jsonl", [{"messages": [Q, turn("assistant", name)]}])
    found = check(tmp_path, tokenizer=tokenizer)
    assert (found["splits"], found["examples"]) == (["test", "train"], 2)
    assert check(tmp_path / "train.jsonl", tokenizer=tokenizer)["splits"] == []


def test_what_cannot_be_checked_is_the_users_error(tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        check(tmp_path / "none")
    data = written(tmp_path / "c.jsonl", [{"messages": [Q, A]}])
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match="conversations have no form"):
        check(data, tokenizer=bare)
    with pytest.raises(UserError, match="both"):
        check(data, tokenizer=bare, model=bare)
