"""`tokenizer convert` and `tokenizer stats`: what they read, write, refuse and show."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.core.progress import Quiet
from bottega.core.record import read_record
from bottega.core.verb import Result, execute, step_hash
from bottega.core.view import Bars, Table
from bottega.tokenizer import training
from bottega.tokenizer.config import ConvertTokenizer, TokenizerStats
from bottega.tokenizer.convert_verb import plan_convert
from bottega.tokenizer.foreign.source import convert
from bottega.tokenizer.samples import SAMPLES
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.stats_verb import plan_stats, script_of, text_files
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.verbs.registry import VERBS
from tokenizer_texts import sentencepiece_bytes

CONVERT, STATS = VERBS["tokenizer convert"], VERBS["tokenizer stats"]
WORDS = ["\u2581", "a", "b", "e", "\u2581a", "be", "abe", "\u2581abe", "xyz"]
PIECES = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((f"<0x{byte:02X}>", 0.0, 6) for byte in range(256))]
PIECES += [(word, -float(len(word) < 2) - 1 / len(word) + index / 100, 1) for index, word in enumerate(WORDS)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(sentencepiece_bytes(PIECES))
    config = {"tokenizer_class": "LlamaTokenizer", "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7], "temperature": 0.5}')
    return folder


def do_convert(source: Path, out: Path, **settings: Any) -> Result:
    return execute(CONVERT, plan_convert(ConvertTokenizer(source=source, out=out, **settings), Specs()), Quiet())


def stats(tokenizer: Path, *text: str) -> Result:
    return execute(STATS, plan_stats(TokenizerStats(tokenizer=tokenizer, text=list(text)), Specs()), Quiet())


def test_convert_writes_the_folder_that_its_plan_predicts(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = plan_convert(ConvertTokenizer(source=source, out=out), Specs())
    result = execute(CONVERT, plan, Quiet())
    assert TokenizerSpec.read(out) == plan.produces == TokenizerSpec.read(source)
    assert sorted(path.name for path in out.iterdir()) == [
        "chat_template.jinja", "generation_config.json", "record.json", "special_tokens_map.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert json.loads((out / "generation_config.json").read_text()) == {"eos_token_id": [2, 7]}
    assert result.data["source"] == "SentencePiece model (BPE)" and result.data["adds_bos"] is True
    record = read_record(out)
    assert record is not None and record.metrics["hash"] == Tokenizer.load(source).hash
    read = ("generation_config.json", "tokenizer.model", "tokenizer_config.json")
    assert sorted(record.inputs) == [f"source.{name}" for name in read]


def test_the_step_depends_on_what_is_read_and_on_nothing_else(source: Path, tmp_path: Path) -> None:
    def now() -> str:
        return step_hash(CONVERT, plan_convert(ConvertTokenizer(source=source, out=tmp_path / "out"), Specs()))

    before = now()
    (source / "model.safetensors").write_bytes(b"large")
    assert now() == before
    (source / "added_tokens.json").write_text(json.dumps({"<x>": len(PIECES)}))
    assert now() != before


def test_a_pattern_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n")
    with pytest.raises(UserError, match="says itself how its text is cut"):
        convert(tmp_path / "vocab.txt", pattern="gpt2")


def test_convert_a_file_with_a_pattern(tmp_path: Path) -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [b"ab", b" a"]
    lines = "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    (tmp_path / "own.tiktoken").write_text(lines)
    data = do_convert(tmp_path / "own.tiktoken", tmp_path / "out", pattern="gpt2").data
    assert data["vocab_size"] == 258 and data["eos"] is None and data["notes"] == []
    assert Tokenizer.load(tmp_path / "out").encode("ab a") == [256, 257]


def test_convert_says_where_ids_can_differ(tmp_path: Path) -> None:
    pieces = [*PIECES, ("ab", -5.0, 1), ("ba", -5.0, 1), ("<unk>x", 0.0, 4)]
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_bytes(pieces))
    notes = do_convert(tmp_path / "tokenizer.model", tmp_path / "out").data["notes"]
    assert any("'ab', 'ba'" in note and "same score" in note for note in notes)
    assert any("user-defined pieces are found first" in note for note in notes)


def test_convert_refuses_what_is_no_vocabulary_or_needs_no_conversion(source: Path, tmp_path: Path) -> None:
    training.write_folder(training.train(iter(["ab ab"]), 264), source)
    with pytest.raises(UserError, match=r"has a tokenizer\.json already"):
        do_convert(source, tmp_path / "out")
    with pytest.raises(UserError, match="does not exist"):
        do_convert(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_stats_count_the_vocabulary(source: Path) -> None:
    data = stats(source).data["vocabulary"]
    assert data["size"] == len(PIECES) and data["kinds"] == {"special": 3, "byte": 256, "normal": len(WORDS)}
    assert data["lengths"] == {"1": 4, "2": 2, "3": 2, "4": 1} and data["begin_with_space"] == 2
    assert data["scripts"] == {"Latin": 8, "spaces": 1}
    # No two pieces make "xyz", so no text becomes it.
    assert data["unreachable"] == {"count": 1, "ids": [len(PIECES) - 1]}


def test_stats_of_a_trained_tokenizer_reach_every_token(workshop: Any) -> None:
    result = stats(workshop.tokenizer)
    vocabulary = result.data["vocabulary"]
    assert vocabulary["unreachable"]["count"] == 0
    assert sum(vocabulary["kinds"].values()) == vocabulary["size"]
    assert vocabulary["kinds"]["byte"] == 256 and vocabulary["kinds"]["special"] == 8
    assert list(result.data["texts"]) == list(SAMPLES)
    assert any(isinstance(block, Bars) for block in result.view)


def test_stats_measure_each_text(source: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("abe abe é")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "two.md").write_text("abe")
    result = stats(source, f"first={tmp_path / 'one.txt'}", str(tmp_path / "folder"))
    first, folder = result.data["texts"]["first"], result.data["texts"]["folder"]
    assert (first["bytes"], first["characters"], first["words"], first["unknown"]) == (10, 9, 3, 0)
    assert first["tokens"] == len(Tokenizer.load(source).encode("abe abe é"))
    assert first["bytes_per_token"] == round(10 / first["tokens"], 4) and folder["tokens"] == 1
    table = next(block for block in result.view if isinstance(block, Table) and block.title == "Tokens needed")
    assert [row[0] for row in table.rows] == ["first", "folder"] and "English" not in "".join(table.columns)


def test_stats_tell_unknown_text(tmp_path: Path) -> None:
    pieces = [piece for piece in PIECES if piece[2] != 6]
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_bytes(pieces, byte_fallback=False))
    (tmp_path / "a.txt").write_text("abe 日本 abe")
    result = stats(tmp_path, str(tmp_path / "a.txt"))
    assert result.data["texts"]["a.txt"]["unknown"] == 1
    table = next(block for block in result.view if isinstance(block, Table) and block.title == "Tokens needed")
    assert "Unknown tokens" in table.note


def test_stats_refuse_texts_that_are_missing_empty_or_of_one_name(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        stats(source, "x=nowhere.txt")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"a\.txt: it is empty"):
        stats(source, str(tmp_path / "a.txt"))
    with pytest.raises(UserError, match="two texts are called 'a'"):
        text_files([f"a={tmp_path / 'a.txt'}", f"a={tmp_path / 'a.txt'}"])
    odd = tmp_path / "b=c.txt"
    odd.write_text("x")
    assert text_files([str(odd)]) == {"b=c.txt": [odd]}


def test_scripts() -> None:
    expected = {" the": "Latin", "日本": "Han", "12a": "Latin", "12": "digits", "  \n": "spaces", "привет": "Cyrillic"}
    assert {text: script_of(text) for text in expected} == expected
    assert script_of("!?") == "punctuation and symbols"
