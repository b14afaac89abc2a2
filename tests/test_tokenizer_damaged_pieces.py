"""Damaged and hostile SentencePiece, GGUF and llama2.c vocabularies: one UserError each, in bounded time."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.tokenizer.foreign import merges
from bottega.tokenizer.foreign.gguf_metadata import from_gguf_metadata
from damaged_vocabularies import MODEL, MODES, PIECES, damaged, edited, open_file, refused, use
from tokenizer_texts import message, sentencepiece_bytes, varint

# ---------------------------------------------------------------------- SentencePiece


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
