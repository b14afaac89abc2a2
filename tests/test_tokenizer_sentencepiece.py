"""SentencePiece models become tokenizer.json with equal ids, and their folders open."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers

from bottega.core.errors import UserError
from bottega.tokenizer.foreign.source import convert
from bottega.tokenizer.samples import SAMPLES
from bottega.tokenizer.tokenizer import Detokenizer, Tokenizer
from tokenizer_texts import (
    FEW,
    LLAMA,
    MANY,
    SPECIAL,
    adversarial,
    assert_equal,
    folder_of,
    sentencepiece_bytes,
    trained_model,
)

DEFINED = ["<mask>", "<|sep|>", "@@", "<user:1>"]


@dataclass(frozen=True)
class Case:
    """A kind of SentencePiece model; the normalisation rules take a second or two to convert."""

    kind: str
    settings: dict[str, Any]


PLAIN = {"remove_extra_whitespaces": False}
CASES = {
    "bpe": Case("bpe", {}),
    "bpe, llama": Case("bpe", LLAMA),
    "bpe, user-defined": Case("bpe", {**PLAIN, "byte_fallback": True, "user_defined_symbols": DEFINED}),
    "bpe, user-defined, no prefix": Case("bpe", {"add_dummy_prefix": False, "user_defined_symbols": DEFINED}),
    "bpe, nmt_nfkc": Case("bpe", {"normalization_rule_name": "nmt_nfkc", "pad_id": 3}),
    "unigram": Case("unigram", {}),
    "unigram, bytes": Case("unigram", {**PLAIN, "byte_fallback": True}),
    "unigram, pieces with spaces": Case("unigram", {**PLAIN, "split_by_whitespace": False}),
    "unigram, user-defined": Case(
        "unigram", {"user_defined_symbols": DEFINED, "control_symbols": ["<ctl>"], "pad_id": 3}
    ),
    "unigram, nfkc": Case("unigram", {**PLAIN, "normalization_rule_name": "nfkc", "user_defined_symbols": DEFINED}),
}


@pytest.mark.parametrize("name", CASES)
def test_sentencepiece_ids_are_equal(name: str, tmp_path: Path) -> None:
    compare_with_sentencepiece(name, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_sentencepiece_ids_are_equal_often(name: str, tmp_path: Path) -> None:
    compare_with_sentencepiece(name, tmp_path, MANY)


def compare_with_sentencepiece(name: str, tmp_path: Path, count: int) -> None:
    content = trained_model(CASES[name].kind, **CASES[name].settings)
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    tokenizer = Tokenizer.load(folder_of(tmp_path, content))
    assert tokenizer.vocab_size == reference.get_piece_size()
    assert (tokenizer.bos_id, tokenizer.eos_id) == (reference.bos_id(), reference.eos_id())
    extra = (
        [*SPECIAL, *(f"{text}x" for text in DEFINED), *DEFINED[:2]]
        if "user_defined_symbols" in CASES[name].settings
        else ()
    )
    # An accent on the last letter of a user-defined piece: SentencePiece keeps it apart, the converted rules do not.
    assert_equal(tokenizer, reference.encode, count, extra)
    known = [text for text in (adversarial(random.Random(seed)) for seed in range(count))
             if reference.unk_id() not in reference.encode(text)]  # fmt: skip
    for text in [*SAMPLES.values(), *known]:
        ids = reference.encode(text)
        if reference.unk_id() not in ids:
            stream = Detokenizer(tokenizer)
            assert tokenizer.decode(ids) == reference.decode(ids) == "".join(map(stream.add, ids)) + stream.flush()


def test_a_text_that_is_only_spaces_or_only_what_is_removed(tmp_path: Path) -> None:
    for index, name in enumerate(("bpe", "bpe, llama", "bpe, nmt_nfkc", "unigram, nfkc", "unigram, user-defined")):
        content = trained_model(CASES[name].kind, **CASES[name].settings)
        reference = sentencepiece.SentencePieceProcessor(model_proto=content)
        (tmp_path / str(index)).mkdir()
        tokenizer = Tokenizer.load(folder_of(tmp_path / str(index), content))
        for text in (
            "",
            " ",
            "   ",
            "\u2581",
            " \u2581 ",
            "\x01",
            "\x01 ",
            " \x01",
            "\t",
            "\u3000",
            "<mask>",
            " <mask> ",
            "<mask><mask>",
        ):
            assert tokenizer.encode(text) == reference.encode(text), (name, text)


def test_runs_of_a_piece_whose_lengths_have_one_score(tmp_path: Path) -> None:
    """Llama 2 has runs of spaces of the same score: the leftmost is made first, and grows."""

    pieces = [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("</s>", 0.0, 3),
        *((f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)),
    ]
    pieces += [("\u2581" * length, -1e9, 1) for length in (2, 4, 8, 5, 6, 3, 7)]
    pieces += [("\u2581a", -1.0, 1), ("aa", -5.0, 1), ("aaa", -5.0, 1), ("\u2581", -20.0, 1), ("a", -21.0, 1)]
    content = sentencepiece_bytes(pieces)
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    tokenizer = Tokenizer.load(folder_of(tmp_path, content))
    for length in range(40):
        for text in (" " * length, " " * length + "a" * (length % 9), "a" * length):
            assert tokenizer.encode(text) == reference.encode(text)


def test_a_llama_folder_adds_bos_and_the_space_in_front(tmp_path: Path) -> None:
    content = trained_model("bpe", **LLAMA)
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": {"content": "</s>"},
        "model_max_length": 512,
    }
    folder = folder_of(tmp_path, content, **config)
    (folder / "config.json").write_text('{"model_type": "llama", "eos_token_id": [2, 5]}')
    tokenizer = Tokenizer.load(folder)
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    assert tokenizer.adds_bos and tokenizer.document_prefix() == [1] and tokenizer.stop_ids == {2, 5}
    for text in ("river", " river", "  river"):
        assert tokenizer.encode(text) == reference.encode(text)
    # Every part between special tokens begins with a space, as in older versions of transformers …
    assert tokenizer.encode_markup("</s>river") == [2, *reference.encode("river")]
    # … but not with "legacy": false.
    modern = Tokenizer.load(folder_of(tmp_path, content, **config, legacy=False))
    assert modern.encode("river") == reference.encode("river")
    assert modern.encode_markup("river</s>river")[-1] != reference.encode("river")[0]


def test_t5_has_sentinels_and_ends_texts(tmp_path: Path) -> None:
    content = trained_model("unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    folder = folder_of(tmp_path, content, tokenizer_class="T5Tokenizer", extra_ids=3)
    out = tmp_path / "out"
    out.mkdir()
    convert(folder).write(out)
    tokenizer, theirs = Tokenizer.load(out), transformers.AutoTokenizer.from_pretrained(out)
    size = sentencepiece.SentencePieceProcessor(model_proto=content).get_piece_size()
    assert tokenizer.encode_markup("<extra_id_0>") == [size + 2] == [tokenizer.vocab_size - 1]
    assert theirs("river <extra_id_2>").input_ids[-2:] == [size, 1]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.adds_bos) == (None, 1, 0, False)


def test_gemma_and_others_by_their_model(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, trained_model("bpe", **LLAMA))
    for model_type, adds in (("gemma2", True), ("mistral", True), ("qwen9", False)):
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        assert Tokenizer.load(folder).adds_bos is adds


def test_added_tokens_and_their_ids(tmp_path: Path) -> None:
    content = trained_model("bpe", **LLAMA)
    size = sentencepiece.SentencePieceProcessor(model_proto=content).get_piece_size()
    folder = folder_of(tmp_path, content)
    (folder / "added_tokens.json").write_text(json.dumps({"<|im_end|>": size + 1, "<|im_start|>": size}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.eos_id == size + 1 and tokenizer.vocab_size == size + 2
    assert tokenizer.special_ids == {0, 1, 2, size + 1}
    assert tokenizer.encode_markup("<|im_start|>")[0] == size
    for wrong in ({"<|im_end|>": 5}, {"river_": -1}, {"": 900}, {"<s>": 900}, {"x": "y"}, {"x": [1]}):
        (folder / "added_tokens.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError):
            Tokenizer.load(folder)


def test_the_written_folder_is_the_same_tokenizer_and_opens_elsewhere(tmp_path: Path) -> None:
    content = trained_model("bpe", **LLAMA)
    folder = folder_of(tmp_path, content, tokenizer_class="LlamaTokenizer", chat_template="{{ messages[0].content }}")
    out = tmp_path / "out"
    out.mkdir()
    convert(folder).write(out)
    assert (out / "chat_template.jinja").is_file() and (out / "special_tokens_map.json").is_file()
    direct, written = Tokenizer.load(folder), Tokenizer.load(out)
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    assert direct.hash == written.hash and direct.template_hash == written.template_hash
    assert direct.special_tokens == written.special_tokens and direct.stop_ids == written.stop_ids
    for text in ("river stone", "  two", "日本 🙂"):
        assert theirs(text).input_ids == written.document_prefix() + written.encode(text)
    assert theirs.bos_token_id == 1 and theirs.chat_template == "{{ messages[0].content }}"


def own_unigram(*pieces: tuple[str, float, int]) -> bytes:
    marks = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("\u2581", -2.0, 1)]
    return sentencepiece_bytes([*marks, *pieces], kind=1, byte_fallback=False)


def test_a_user_defined_piece_wins_by_its_length(tmp_path: Path) -> None:
    letters = [("a", -0.05, 1), *((letter, -0.01, 1) for letter in "bcd")]
    content = own_unigram(("ab", 0.0, 4), ("bcd", 0.0, 4), *letters)
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    tokenizer = Tokenizer.load(folder_of(tmp_path, content))
    for text in ("abcd", "ab", "abab", "cabcdab", "bc"):
        assert tokenizer.encode(text) == reference.encode(text)


def test_a_cut_leaves_runs_of_unknown_characters_whole(tmp_path: Path) -> None:
    """Neither `<` nor `/` is a piece: a cut between them would make two unknown tokens of one."""
    content = own_unigram(("s", -3.0, 1), ("a", -3.0, 1))
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    tokenizer = Tokenizer.load(folder_of(tmp_path, content))
    for text in ("</s>", "a</a", "<s></s>", "a</", "<unk>"):
        assert tokenizer.encode(text) == reference.encode(text)
