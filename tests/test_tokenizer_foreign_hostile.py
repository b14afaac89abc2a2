"""Foreign vocabulary files that are damaged or mean harm: one UserError each, in bounded time."""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.tokenizer.files import files_of
from bottega.tokenizer.foreign import merges
from bottega.tokenizer.foreign.assemble import Converted
from bottega.tokenizer.foreign.gguf_metadata import from_gguf_metadata
from bottega.tokenizer.foreign.source import convert
from bottega.tokenizer.tokenizer import Tokenizer, byte_of_character
from tokenizer_texts import message, sentencepiece_bytes, varint

BYTES = [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
PIECES: list[tuple[str, float, int]] = [
    ("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *BYTES, ("\u2581", -1.0, 1), ("a", -2.0, 1), ("b", -3.0, 1),
    ("ab", -0.5, 1), ("<x>", 0.0, 4),
]  # fmt: skip
MODEL = sentencepiece_bytes(PIECES)
SECONDS = 10.0
MODES = [
    pytest.param(100, id="100"),
    pytest.param(2000, id="2000", marks=pytest.mark.slow),
]


def open_file(folder: Path, name: str, content: bytes, **beside: str) -> None:
    """Convert, load and use; anything but a UserError is a failure of ours."""
    for path in folder.iterdir():
        path.unlink()
    (folder / name).write_bytes(content)
    for other, text in beside.items():
        (folder / other.replace("__", ".")).write_text(text, "utf-8", "surrogatepass")
    use(folder, lambda: convert(folder / name, pattern="gpt2"))


def use(folder: Path, make: Callable[[], Converted]) -> None:
    started = time.monotonic()
    try:
        converted = make()
        tokenizer = Tokenizer(folder, files_of(folder, converted.content, converted.config))
        for text in ("ab <s> é\n", ""):
            tokenizer.decode(tokenizer.encode(text))
    except UserError as error:
        assert len(error.message) < 2000 and "\ud800" not in error.message
    assert time.monotonic() - started < SECONDS


def refused(folder: Path, name: str, content: bytes, said: str, **beside: str) -> None:
    with pytest.raises(UserError, match=said):
        for path in folder.iterdir():
            path.unlink()
        (folder / name).write_bytes(content)
        for other, text in beside.items():
            (folder / other.replace("__", ".")).write_text(text)
        Tokenizer.load(folder)


# ---------------------------------------------------------------------- SentencePiece


def edited(*more: tuple[str, float, int], **settings: Any) -> bytes:
    return sentencepiece_bytes([*PIECES, *more], **settings)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no vocabulary that is known"),
        (b"\xff" * 100, "no vocabulary that is known"),
        (MODEL[:-1], "not a SentencePiece model.*are left"),
        (MODEL[:1000], "not a SentencePiece model"),
        (b"\x0a" + varint(2**62) + b"abc", "bytes, but 3 are left"),
        (b"\x0a" + b"\x80" * 20, "a number does not end"),
        (b"\x0a\x00\x03", "no field 0|unknown wire type"),
        (b"\x0a\x00\x0b", "unknown wire type 3"),
        (message((1, message((1, b"\xff\xfe")))), "not UTF-8"),
        (message((1, message((1, "x"), (2, 7)))), "a float is not four bytes"),
        (message((1, message((1, "x"), (3, 9)))), "unknown type 9"),
        (message((1, message((1, 5)))), "a text is a varint"),
        (message((1, b"")), "token 0 is empty"),
        (edited(("ab", -1.0, 1)), "the token 'ab' twice"),
        (edited(("c", float("nan"), 1)), "has the score nan"),
        (edited(("c" * 5000, -1.0, 1)), "longer than any"),
        (edited(("<0x41", -1.0, 6)), "257 of the 256 byte pieces"),
        (edited(byte_fallback=False), "does not fall back to bytes"),
        (sentencepiece_bytes(PIECES[1:]), "no piece for what is unknown"),
        (sentencepiece_bytes(PIECES, kind=3), "of words; BPE and Unigram"),
        (sentencepiece_bytes(PIECES, kind=77), "of type 77s"),
        (MODEL + message((2, message((24, 1)))), "marks spaces after words"),
        (MODEL + message((5, message((2, b"rules")))), "after decoding"),
        (edited(rules=b"abc"), "rules are damaged: it ends before its size"),
        (edited(rules=struct.pack("<I", 2**31) + b"x" * 50), "rules are damaged: a trie of"),
    ],
)
def test_a_damaged_sentencepiece_model_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    refused(tmp_path, "tokenizer.model", content, said)


def test_a_trie_that_goes_round_or_out_of_itself_is_refused(tmp_path: Path) -> None:
    def charsmap(*units: int) -> bytes:
        return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + b"x\0"

    # Unit 65 is the child "A" of the root, and its own children begin at 65 ^ offset: again at the root's.
    round_ = [0] * 256
    round_[65] = 65 | (65 << 10)
    refused(tmp_path, "tokenizer.model", edited(rules=charsmap(*round_)), "has no end")
    out = [0] * 256
    out[65] = 65 | 1 << 8 | (5000 << 10)
    refused(tmp_path, "tokenizer.model", edited(rules=charsmap(*out)), "points out of itself")
    long = [0] * 256
    long[65], long[64] = 65 | 1 << 8 | (1 << 10), 10**6
    refused(tmp_path, "tokenizer.model", edited(rules=charsmap(*long)), "does not end")


def test_pieces_that_would_take_for_ever_are_refused_or_done(tmp_path: Path) -> None:
    runs = [("a" * length, -float(length), 1) for length in range(2, 3500)]
    refused(tmp_path, "tokenizer.model", edited(*runs), "too long to be taken apart")
    reserved = [("a" * length, 0.0, 3) for length in range(2, 1000)]
    others = [("b" + "a" * 20 + str(index), -5.0, 1) for index in range(5000)]
    open_file(tmp_path, "tokenizer.model", edited(*reserved, *others, kind=1))
    defined = [(f"<{index}>", 0.0, 4) for index in range(5000)]
    open_file(tmp_path, "tokenizer.model", edited(*defined))
    assert merges.splits(["aa"], {"a": 0}) == [("a", "a")]


@pytest.mark.parametrize("count", MODES)
def test_random_bytes_and_damaged_models(count: int, tmp_path: Path) -> None:
    rules = struct.pack("<I8I", 32, *range(8)) + b"ab\0"
    valid = [MODEL, edited(kind=1), edited(rules=rules), edited(("[PAD]", 0.0, 5), remove_extra=True)]

    @settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(damaged(valid) | st.binary(max_size=200).map(lambda rest: b"\x0a" + rest))
    def run(content: bytes) -> None:
        open_file(tmp_path, "tokenizer.model", content)

    run()


def damaged(valid: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of the files with a part cut out, replaced or put in."""

    def change(file: bytes, at: float, length: int, new: bytes) -> bytes:
        # The last kilobyte has the pieces that are no bytes, and the settings.
        place = len(file) - int(at * min(len(file), 1000))
        return file[:place] + new + file[place + length :]

    return st.builds(change, st.sampled_from(valid), st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12))


@pytest.mark.parametrize("count", MODES)
def test_random_pieces(count: int, tmp_path: Path) -> None:
    texts = st.text(alphabet=st.sampled_from("ab<>\u2581x \ufff8é\0"), max_size=6)
    piece = st.tuples(texts, st.floats(width=32), st.integers(0, 7))

    @settings(max_examples=count, deadline=None)
    @given(st.lists(piece, max_size=12), st.sampled_from([1, 2]), st.booleans(), st.booleans(), st.binary(max_size=80))
    def run(more: list[Any], kind: int, prefix: bool, remove: bool, rules: bytes) -> None:
        content = edited(*more, kind=kind, dummy_prefix=prefix, remove_extra=remove, rules=rules)
        open_file(tmp_path, "tokenizer.model", content)

    run()


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
    converted = convert(tmp_path, pattern="(unclosed")
    with pytest.raises(UserError, match="cannot be loaded"):
        Tokenizer(tmp_path, files_of(tmp_path, converted.content, converted.config))


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
        ("", "a b\n", "not valid JSON"),
        ("[" * 100_000, "a b\n", "not valid JSON"),
        ('{"a": ' * 100_000, "a b\n", "not valid JSON"),
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


# ---------------------------------------------------------------------- GGUF and llama2.c


def metadata(**changes: Any) -> dict[str, Any]:
    values = {
        "model": "llama",
        "tokens": [text for text, _, _ in PIECES],
        "scores": [score for _, score, _ in PIECES],
        "token_type": [kind for _, _, kind in PIECES],
        "bos_token_id": 1,
    }
    values = {key: value for key, value in (values | changes).items() if value is not None}
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": None}, "of the kind 'nothing'"),
        ({"model": 7}, "of the kind 'nothing'"),
        ({"model": "plamo2"}, "of the kind 'plamo2'"),
        ({"tokens": None}, "0 tokens"),
        ({"tokens": "abc"}, "no list of str"),
        ({"tokens": ["a", 3]}, "no list of str"),
        ({"tokens": ["a", "a"]}, "the token 'a' twice"),
        ({"scores": [1.0]}, "1 values for 264 tokens"),
        ({"scores": ["x"] * 264}, "no list of float"),
        ({"scores": [float("inf")] * 264}, "has the score inf"),
        ({"token_type": [9] * 264}, "unknown type 9"),
        ({"bos_token_id": 999}, "bos token has the id 999"),
        ({"model": "gpt2", "pre": "own-bpe"}, "the way 'own-bpe'"),
        ({"model": "gpt2", "pre": "gpt-2", "merges": ["a c"]}, "merges, line 0: the token 'c'"),
        ({"model": "bert"}, r"no token '\[UNK\]'|no token '\[SEP\]'|no token"),
        ({"model": "t5", "precompiled_charsmap": [999]}, "no list of bytes"),
        ({"model": "t5", "precompiled_charsmap": [1, 2, 3]}, "rules are damaged"),
    ],
)
def test_damaged_gguf_metadata_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        from_gguf_metadata(metadata(**changes))


@pytest.mark.parametrize("count", MODES)
def test_random_gguf_metadata(count: int, tmp_path: Path) -> None:
    values = st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats() | st.text(max_size=4)
    lists = st.lists(values, max_size=5) | st.lists(st.text(max_size=3), min_size=1, max_size=6)
    keys = st.sampled_from(["model", "tokens", "scores", "token_type", "merges", "pre", "bos_token_id", "add_bos_token",
                            "unknown_token_id", "precompiled_charsmap", "eot_token_id"])  # fmt: skip
    models = st.sampled_from(["llama", "gpt2", "bert", "t5"])

    @settings(max_examples=count, deadline=None)
    @given(models, st.dictionaries(keys, values | lists, max_size=3))
    def run(model: str, changes: dict[str, Any]) -> None:
        use(tmp_path, lambda: from_gguf_metadata(metadata(**{"model": model, **changes})))

    run()


def llama2c(*tokens: tuple[str, float]) -> bytes:
    parts = [struct.pack("<fi", score, len(text.encode())) + text.encode() for text, score in tokens]
    return struct.pack("<i", 8) + b"".join(parts)


LLAMA2C = llama2c(*((text, score) for text, score, _ in PIECES))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LLAMA2C[:-1], "bytes, but"),
        (LLAMA2C + b"\0\0\0", "ends within a token"),
        (LLAMA2C + struct.pack("<fi", 0.0, 2**31 - 1), "token 264 has 2147483647 bytes"),
        (LLAMA2C + struct.pack("<fi", 0.0, -1), "token 264 has -1 bytes"),
        (llama2c(("<unk>", 0.0)), "tokens 3 to 258 are not the bytes"),
        (LLAMA2C + llama2c(("ab", 0.0))[4:], "the token 'ab' twice"),
    ],
)
def test_a_damaged_llama2c_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    refused(tmp_path, "tokenizer.bin", content, said)


@pytest.mark.parametrize("count", MODES)
def test_random_llama2c_files(count: int, tmp_path: Path) -> None:
    @settings(max_examples=count, deadline=None)
    @given(damaged([LLAMA2C]))
    def run(content: bytes) -> None:
        open_file(tmp_path, "tokenizer.bin", content)

    run()


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
