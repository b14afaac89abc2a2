from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottega.core.errors import UserError
from bottega.core.plan import Plan, Specs
from bottega.core.progress import Quiet
from bottega.core.verb import Verb, execute
from bottega.data.batches import Batches
from bottega.data.config import PrepareData
from bottega.data.prepare import form_checks
from bottega.data.spec import CorpusSpec, TokensSpec
from bottega.tokenizer import training
from bottega.tokenizer.chat import encode_chat
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer

PREPARE = Verb(
    "data prepare",
    "",
    "bottega.data.config:PrepareData",
    "bottega.data.prepare:plan_prepare",
    "bottega.data.prepare:run_prepare",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    training.write_folder(training.train(iter(["the cat sat on the mat and the dog sat too"] * 5), 300), folder)
    return folder


def plan(**settings: Any) -> Plan:
    return PREPARE.make_plan(PrepareData.model_validate(settings), Specs())


def prepare(**settings: Any) -> dict[str, Any]:
    return execute(PREPARE, plan(**settings), Quiet()).data


def chats(path: Path, conversations: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in conversations))
    return path


def test_text_comes_back_from_the_shards(tmp_path: Path, tokenizer: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    texts = [f"The cat number {i} sat on {'many ' * (i % 50)}mats. Ça va? 你好 <|im_end|>" for i in range(700)]
    for i, text in enumerate(texts):
        (folder / f"{i:03d}.txt").write_text(text)
    out = tmp_path / "out"
    manifest = prepare(data=folder, tokenizer=tokenizer, out=out, shard_tokens=20_000)
    assert len(manifest["shards"]) > 2
    spec = TokensSpec.read(out)
    assert (spec.documents, spec.chat, spec.exact) == (700, False, True)
    assert spec.text_bytes == sum(len(text.encode()) for text in texts)
    assert spec.trained_tokens == spec.tokens
    known = Tokenizer.load(tokenizer)
    assert spec.tokenizer_hash == known.hash
    found = []
    for shard in spec.shards:
        ids, offsets = np.load(shard.tokens), np.load(shard.offsets)
        assert ids.dtype == np.uint16
        found += [ids[a:b].tolist() for a, b in pairwise(offsets.tolist())]
    assert [len(ids) for ids in found] and max(map(len, found)) == spec.longest
    assert all(ids[:1] == known.document_prefix() for ids in found)
    assert [known.decode(ids[1:], skip_special=False) for ids in found] == texts


def test_chat_shards_hold_what_encode_chat_gives(tmp_path: Path, tokenizer: Path) -> None:
    conversations = [
        {"messages": [{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": f"the cat {i}"}]}
        for i in range(20)
    ]
    others = [{"instruction": "Say it", "output": "the dog"}, {"conversations": [{"from": "gpt", "value": "mat"}]}]
    bad = [{"messages": [{"role": "user", "content": "only"}]}, {"text": "no conversation"}, "text"]
    out = tmp_path / "out"
    data = chats(tmp_path / "chats.jsonl", [*conversations, *others, *bad])
    manifest = prepare(data=data, tokenizer=tokenizer, out=out, kind="chat")
    assert manifest["formats"] == {"messages": 20, "alpaca": 1, "sharegpt": 1}
    assert sum(row["count"] for row in manifest["dropped"].values()) == 3
    spec = TokensSpec.read(out)
    assert (spec.documents, spec.chat) == (22, True)
    known = Tokenizer.load(tokenizer)
    assert spec.template_hash == known.template_hash
    expected = encode_chat(known, conversations[3]["messages"])
    rows = Batches(out, row_length=64, seed=0).rows(0, 22)
    pairs = []
    for row in rows:
        at = 0
        for length in row.lengths:
            pairs.append((row.tokens[at : at + length].tolist(), row.mask[at : at + length].tolist()))
            at += length
    assert (expected.ids, expected.mask) in pairs
    assert 0 < spec.trained_tokens < spec.tokens
    assert manifest["masked_share"] == round(1 - spec.trained_tokens / spec.tokens, 4)


def corpus(folder: Path, conversations: str = "") -> Path:
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"id": "a", "text": "the cat"}\n{"id": "b", "text": "the dog"}\n')
    (folder / "heldout.jsonl").write_text('{"id": "c", "text": "the mat"}\n')
    (folder / "conversations.jsonl").write_text(conversations)
    (folder / "questions.jsonl").write_text("")
    sides = {"train": {"documents": 2, "bytes": 14}, "heldout": {"documents": 1, "bytes": 7}}
    counts = {"conversations": {"count": conversations.count("\n")}, "questions": {"count": 0}}
    (folder / "corpus.json").write_text(json.dumps({"kind": "corpus", "schema_version": 1, **sides, **counts}))
    return folder


def test_a_corpus_folder_gives_the_side_that_is_asked_for(tmp_path: Path, tokenizer: Path) -> None:
    data = corpus(tmp_path / "corpus")
    assert prepare(data=data, tokenizer=tokenizer, out=tmp_path / "a")["documents"] == 2
    assert prepare(data=data, tokenizer=tokenizer, out=tmp_path / "b", split="heldout")["documents"] == 1


def test_a_corpus_without_conversations_gives_an_empty_folder_with_a_reason(tmp_path: Path, tokenizer: Path) -> None:
    data = corpus(tmp_path / "corpus")
    manifest = prepare(data=data, tokenizer=tokenizer, out=tmp_path / "out", kind="chat")
    assert "no conversations" in manifest["reason"]
    assert TokensSpec.read(tmp_path / "out").documents == 0


def test_a_chain_is_planned_before_anything_exists(tmp_path: Path) -> None:
    specs = Specs()
    specs.predict(tmp_path / "corpus", CorpusSpec(500, 9_000_000, 700_000, True))
    specs.predict(tmp_path / "tok", TokenizerSpec(70_000, True, 0, 1, 0, frozenset({1})))
    for kind, split in (("text", "train"), ("text", "heldout"), ("chat", "train")):
        settings = {"data": tmp_path / "corpus", "tokenizer": tmp_path / "tok", "out": tmp_path / "o", "kind": kind}
        made = PREPARE.make_plan(PrepareData.model_validate(settings | {"split": split}), specs)
        made.require()
        spec = made.produces
        assert isinstance(spec, TokensSpec)
        assert spec.chat is (kind == "chat")
        assert 0 < spec.trained_tokens <= spec.tokens
        assert not spec.exact


def test_what_cannot_be_prepared_is_the_users_error(tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        plan(data=tmp_path / "none", tokenizer=tokenizer, out=tmp_path / "out")
    text = tmp_path / "a.txt"
    text.write_text("the cat")
    assert [check.passed for check in form_checks("chat", text, TokenizerSpec.read(tokenizer))] == [False]
    with pytest.raises(UserError, match=r"is text and no rows: give a \.jsonl"):
        prepare(data=text, tokenizer=tokenizer, out=tmp_path / "out", kind="chat")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    data = chats(tmp_path / "c.jsonl", [{"instruction": "q", "output": "a"}])
    with pytest.raises(UserError, match="chat template"):
        prepare(data=data, tokenizer=bare, out=tmp_path / "out", kind="chat")
    # A template whose turns end without a stop token.
    (bare / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    (bare / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}:{{ m.content }} {% endfor %}")
    with pytest.raises(UserError, match="none of 1 rows can be used as chat"):
        prepare(data=data, tokenizer=bare, out=tmp_path / "out", kind="chat")
    assert not (tmp_path / "out").exists()
