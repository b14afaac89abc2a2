"""Damaged and hostile rank files, vocab.json, merges.txt, vocab.txt and folders: one UserError each, in time."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.tokenizer.foreign.source import convert
from bottega.tokenizer.tokenizer import Tokenizer, byte_of_character
from damaged_vocabularies import MODEL, MODES, PIECES, damaged, open_file, refused

# ---------------------------------------------------------------------- tiktoken


RANKS = [bytes([byte]) for byte in range(256)] + [b"ab", b" a", b"abc"]


def rank_lines(tokens: list[bytes], shift: int = 0) -> bytes:
    return b"".join(base64.b64encode(token) + f" {rank + shift}\n".encode() for rank, token in enumerate(tokens))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"YQ==\n", "no vocabulary that is known"),
        (rank_lines(RANKS) + b"!!! 259\n", "line 260 is no token in base64"),
        (rank_lines(RANKS) + b"YQ 259\n", "line 260 is not base64"),
        (rank_lines(RANKS) + b"YWJjZA== -1\n", "line 260 is no token"),
        (rank_lines(RANKS) + b"YWJjZA== 99999999999999999999\n", "line 260 is no token"),
        (rank_lines(RANKS) + b"YWI= 259\n", r"line 260: the token b'ab' is there twice"),
        (rank_lines(RANKS) + b"YWJjZA== 5\n", "two tokens the same rank"),
        (rank_lines(RANKS) + b"YWJjZA== 300\n", "no token of rank 259"),
        (rank_lines(RANKS, shift=1), "no token of rank 0"),
        (rank_lines(RANKS[1:]), "no tokens for 1 of the 256 bytes"),
        (base64.b64encode(b"a" * 5000) + b" 0\n", "line 1: more than any"),
    ],
)
def test_a_damaged_rank_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "own.tiktoken").write_bytes(content)
    with pytest.raises(UserError, match=said):
        convert(tmp_path, pattern="gpt2")


def test_a_pattern_that_is_no_expression_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "own.tiktoken").write_bytes(rank_lines(RANKS))
    with pytest.raises(UserError, match="is no regular expression"):
        convert(tmp_path, pattern="(unclosed")


@pytest.mark.parametrize("count", MODES)
def test_random_rank_files(count: int, tmp_path: Path) -> None:
    @settings(max_examples=count, deadline=None)
    @given(damaged([rank_lines(RANKS)]) | st.lists(st.binary(max_size=9), max_size=30).map(rank_lines))
    def run(content: bytes) -> None:
        open_file(tmp_path, "own.tiktoken", content)

    run()


# ---------------------------------------------------------------------- vocab.json, merges.txt, vocab.txt


VOCAB = {character: index for index, character in enumerate(byte_of_character())} | {"ab": 256, "Ġa": 257}


@pytest.mark.parametrize(
    ("vocab", "merges_txt", "said"),
    [
        ("", "a b\n", "cannot be read as JSON"),
        ("[" * 100_000, "a b\n", "cannot be read as JSON"),
        ('{"a": ' * 100_000, "a b\n", "cannot be read as JSON"),
        ("[]", "a b\n", "must hold a JSON object"),
        ("{}", "a b\n", "0 tokens"),
        ('{"a": "0"}', "", "the token 'a' has the id 0"),
        ('{"a": true}', "", "the token 'a' has the id True"),
        ('{"a": -1}', "", "the token 'a' has the id -1"),
        ('{"a": 99999999999}', "", "the token 'a' has the id 99999999999"),
        ('{"a": 0, "b": 0}', "", "two tokens the same id"),
        ('{"\\ud800": 0}', "", "no Unicode text"),
        ('{"": 0}', "", "token 0 is empty"),
        (json.dumps(VOCAB), "a b c\n", "line 1: 'a b c' is no pair"),
        (json.dumps(VOCAB), "#version: 0.2\na\n", "line 2: 'a' is no pair"),
        (json.dumps(VOCAB), "a b\nb c\n", "line 2: the token 'bc' is not in the vocabulary"),
        (json.dumps(VOCAB), "a b\na b\n", "line 2: the pair 'a b' is there twice"),
        (json.dumps(VOCAB), None, "no merges.txt"),
    ],
)
def test_a_vocab_and_merges_that_do_not_fit_are_refused(
    tmp_path: Path, vocab: str, merges_txt: str | None, said: str
) -> None:
    refused(
        tmp_path, "vocab.json", vocab.encode(), said, **({"merges__txt": merges_txt} if merges_txt is not None else {})
    )


@pytest.mark.parametrize("count", MODES)
def test_random_vocabularies_and_configs(count: int, tmp_path: Path) -> None:
    """What stands beside a vocabulary is as little trusted: any JSON in any place."""
    words = st.sampled_from(["a", "b", "ab", "Ġa", "<s>", "", "\ud800", "content", "special", "9", "257", "x" * 50])
    anything = st.recursive(
        st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats() | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=8,
    )
    keys = st.sampled_from(
        ["added_tokens_decoder", "bos_token", "eos_token", "unk_token", "add_bos_token", "tokenizer_class", "legacy",
         "chat_template", "model_max_length", "additional_special_tokens", "extra_ids", "model_type", "eos_token_id"]
    )  # fmt: skip
    configs = st.dictionaries(keys, anything, max_size=5).map(json.dumps)
    listed = st.dictionaries(words, anything, max_size=3).map(json.dumps)
    changes = st.dictionaries(words, anything, max_size=3).map(lambda more: json.dumps(VOCAB | more))

    @settings(max_examples=count, deadline=None)
    @given(changes, st.text(alphabet="ab Ġ\n\r#", max_size=20), configs, configs, listed, configs)
    @example(json.dumps(VOCAB), "a b\n", '{"chat_template": "\\ud800"}', "{}", "{}", "{}")
    @example(json.dumps(VOCAB), "a b\n", '{"added_tokens_decoder": {"257": {"content": "\\ud800"}}}', "{}", "{}", "{}")
    def run(vocab: str, lines: str, config: str, names: str, added: str, model: str) -> None:
        beside = {"tokenizer_config__json": config, "special_tokens_map__json": names, "added_tokens__json": added,
                  "config__json": model}  # fmt: skip
        open_file(tmp_path, "vocab.json", vocab.encode("utf-8", "surrogatepass"), merges__txt=lines, **beside)
        open_file(tmp_path, "tokenizer.model", MODEL, **beside)

    run()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff", "not UTF-8"),
        (b"", "0 tokens"),
        (b"a\nb\na\n", "the token 'a' twice"),
        (b"a\n\nb\n", "token 1 is empty"),
        (b"[UNK]\n[CLS]\n", r"no token '\[SEP\]'"),
    ],
)
def test_a_damaged_wordpiece_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    refused(tmp_path, "vocab.txt", content, said)


# ---------------------------------------------------------------------- folders


def test_what_is_known_and_not_read_is_refused_by_name(tmp_path: Path) -> None:
    names = {
        "tekken.json": "Mistral",
        "rwkv_vocab_v1.txt": "RWKV",
        "bpe_simple_vocab_16e6.txt.gz": "CLIP",
        "x.gguf": "GGUF",
    }
    for name, said in names.items():
        refused(tmp_path, name, b"{}", said)
        with pytest.raises(UserError, match=said):
            convert(tmp_path / name)
    for kind, said in (("XLMRobertaTokenizerFast", "ids are not those"), ("AlbertTokenizer", "changes the text"),
                       ("CLIPTokenizer", "a method of its own")):  # fmt: skip
        config = json.dumps({"tokenizer_class": kind})
        refused(
            tmp_path,
            "tokenizer.model",
            MODEL,
            f"has a {kind.removesuffix('Fast')}.*{said}",
            tokenizer_config__json=config,
        )
    config = json.dumps({"tokenizer_class": "WhatTokenizer"})
    refused(tmp_path, "vocab.json", b"{}", "WhatTokenizer: how it cuts", merges__txt="", tokenizer_config__json=config)


def test_several_vocabularies_none_or_a_file_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="has no vocabulary"):
        convert(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        convert(tmp_path / "none.model")
    (tmp_path / "a.model").write_bytes(MODEL)
    assert Tokenizer.load(tmp_path).vocab_size == len(PIECES)
    (tmp_path / "b.model").write_bytes(MODEL)
    with pytest.raises(UserError, match=r"several vocabularies: a\.model, b\.model"):
        Tokenizer.load(tmp_path)
    (tmp_path / "c.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="no vocabulary that is known"):
        convert(tmp_path / "c.safetensors")


def test_a_file_larger_than_any_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.model").open("wb") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no space
    with pytest.raises(UserError, match="larger than 64 MiB"):
        Tokenizer.load(tmp_path)
