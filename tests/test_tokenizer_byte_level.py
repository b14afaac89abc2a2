"""tiktoken ranks, vocab.json with merges.txt, WordPiece, and byte-level GGUF vocabularies: equal ids."""

from __future__ import annotations

import base64
import json
import random
import struct
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers

from bottega.core.errors import UserError
from bottega.tokenizer.foreign import rank_file
from bottega.tokenizer.foreign.gguf_metadata import from_gguf_metadata
from bottega.tokenizer.foreign.patterns import GGUF_PATTERNS, PATTERNS, QWEN2
from bottega.tokenizer.foreign.source import convert
from bottega.tokenizer.samples import SAMPLES
from bottega.tokenizer.tokenizer import Tokenizer, byte_of_character
from tokenizer_texts import (
    FEW,
    MANY,
    adversarial,
    assert_equal,
    corpus_text,
    gguf_tokenizer,
    tiktoken_encode,
)


@dataclass(frozen=True)
class ByteLevel:
    """A byte-level BPE: `ranks` as tiktoken has them, `vocab` and `merges` as GPT-2 has them."""

    ranks: dict[bytes, int]
    vocab: dict[str, int]
    merges: list[tuple[str, str]]

    def rank_lines(self) -> str:
        return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in self.ranks.items())


@pytest.fixture(scope="module")
def trained() -> ByteLevel:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Split(tokenizers.Regex(QWEN2), "isolated"),
         tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )  # fmt: skip
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([corpus_text()], trainer)
    data = json.loads(backend.to_str())["model"]
    vocab: dict[str, int] = data["vocab"]
    table = byte_of_character()
    ranks = {
        bytes(map(table.__getitem__, token)): id_ for token, id_ in sorted(vocab.items(), key=lambda item: item[1])
    }
    return ByteLevel(ranks, vocab, [tuple(pair) for pair in data["merges"]])


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k", "llama3", "qwen2"])
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_tiktoken_ids_are_equal(pattern: str, count: int, trained: ByteLevel, tmp_path: Path) -> None:
    (tmp_path / "own.tiktoken").write_text(trained.rank_lines())
    out = tmp_path / "out"
    out.mkdir()
    convert(tmp_path / "own.tiktoken", pattern=pattern).write(out)
    tokenizer = Tokenizer.load(out)
    name = {"gpt2": "r50k_base", "cl100k": "cl100k_base", "o200k": "o200k_base"}.get(pattern, "")
    encode = tiktoken_encode(trained.ranks, name=name, pattern="" if name else PATTERNS[pattern].expressions[0])
    if pattern == "qwen2":
        own = encode
        encode = lambda text: own(unicodedata.normalize("NFC", text))  # noqa: E731
    assert_equal(tokenizer, encode, count, assigned=True)
    for text in SAMPLES.values():
        assert pattern == "qwen2" or tokenizer.decode(tokenizer.encode(text)) == text


def test_known_rank_files_are_told_by_their_size_and_name(trained: ByteLevel, tmp_path: Path) -> None:
    ranks = dict(trained.ranks)
    while len(ranks) < 50_256:
        ranks[b"\xff" + struct.pack(">I", len(ranks))] = len(ranks)
    lines = ByteLevel(ranks, {}, []).rank_lines()
    (tmp_path / "anything.tiktoken").write_text(lines)
    converted = convert(tmp_path)
    assert "r50k_base" in converted.source and converted.config["eos_token"] == "<|endoftext|>"
    assert json.loads(converted.content)["added_tokens"][0]["id"] == 50_256
    with pytest.raises(UserError, match=r"900 ranks.*none of the known"):
        (tmp_path / "anything.tiktoken").write_text(trained.rank_lines())
        convert(tmp_path)
    with pytest.raises(UserError, match="Did you mean 'cl100k'"):
        convert(tmp_path, pattern="cl100")
    assert convert(tmp_path, pattern=r"\S+|\s+").source == "tiktoken ranks (own)"


def test_llama3_in_the_form_of_tiktoken(trained: ByteLevel) -> None:
    """Its file is told by 128,000 ranks; here only the table of its special tokens is looked at."""
    encoding = next(encoding for encoding in rank_file.ENCODINGS if encoding.name == "llama3")
    special = encoding.special
    assert len(special) == 256 and sorted(special.values()) == list(range(128_000, 128_256))
    assert special["<|begin_of_text|>"] == 128_000 and special["<|eot_id|>"] == 128_009
    assert special["<|reserved_special_token_0|>"] == 128_002 and special["<|reserved_special_token_247|>"] == 128_255


def gpt2_folder(folder: Path, trained: ByteLevel, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({**trained.vocab, "<|endoftext|>": len(trained.vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in trained.merges))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "Qwen2Tokenizer"])
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_vocab_and_merges_ids_are_equal_to_transformers(
    kind: str, count: int, trained: ByteLevel, tmp_path: Path
) -> None:
    folder = gpt2_folder(tmp_path, trained, tokenizer_class=kind, eos_token="<|endoftext|>")
    tokenizer = Tokenizer.load(folder)
    vocab = json.loads((folder / "vocab.json").read_text())
    theirs = getattr(transformers, kind)(vocab=vocab, merges=trained.merges)

    def encode(text: str) -> list[int]:
        return theirs.encode(text, add_special_tokens=False, split_special_tokens=True)

    assert_equal(tokenizer, encode, count, assigned=True)
    assert tokenizer.eos_id == len(trained.vocab) and tokenizer.encode_markup("<|endoftext|>") == [tokenizer.eos_id]


def test_plain_text_never_becomes_the_end_of_text_although_it_is_called_unknown_too(
    trained: ByteLevel, tmp_path: Path
) -> None:
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    tokenizer = Tokenizer.load(gpt2_folder(tmp_path, trained, tokenizer_class="GPT2Tokenizer", **names))
    assert tokenizer.control_ids == {tokenizer.eos_id} and tokenizer.unknown_ids == frozenset()


def test_wordpiece_ids_are_equal_to_transformers(tmp_path: Path) -> None:
    words = sorted({word.strip(".,").lower() for text in SAMPLES.values() for word in text.split()})
    letters = sorted({character for word in words for character in word})
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
        *words,
        ".",
    ]
    tokens = list(dict.fromkeys(tokens))
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    tokenizer = Tokenizer.load(tmp_path)
    theirs = transformers.BertTokenizer(vocab={token: index for index, token in enumerate(tokens)})
    for text in [*SAMPLES.values(), *(adversarial(random.Random(seed)) for seed in range(FEW))]:
        expected = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert tokenizer.encode(text) == expected
    out = tmp_path / "out"
    out.mkdir()
    convert(tmp_path).write(out)
    ids = transformers.AutoTokenizer.from_pretrained(out)("bread").input_ids
    assert [ids[0], ids[-1]] == [2, 3]


def test_gguf_byte_level_and_how_it_is_cut(trained: ByteLevel, tmp_path: Path) -> None:
    tokens = [*trained.vocab, "<|endoftext|>", "<tool>"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * len(trained.vocab) + [3, 4],
        "tokenizer.ggml.merges": [f"{a} {b}" for a, b in trained.merges],
        "tokenizer.ggml.eos_token_id": len(trained.vocab),
    }
    order = sorted(trained.vocab, key=trained.vocab.__getitem__)
    metadata["tokenizer.ggml.tokens"][: len(order)] = order
    tokenizer = gguf_tokenizer({**metadata, "tokenizer.ggml.pre": "llama-bpe"}, tmp_path / "a")
    assert_equal(
        tokenizer, tiktoken_encode(trained.ranks, pattern=PATTERNS["llama3"].expressions[0]), FEW, assigned=True
    )
    assert tokenizer.special_ids == {len(order)} and tokenizer.encode("<tool>") == [len(order) + 1]
    for pre, text, pieces in (
        ("gpt-2", "It's 1234\n  x", ["It", "'s", " 1234", "\n ", " x"]),
        ("smollm", "a 12", ["a", " ", "1", "2"]),
        ("deepseek-coder", "ab 12,\n国", ["ab", " ", "1", "2", ",", "\n", "国"]),
        ("deepseek-llm", "Ab 12 国,", ["Ab", " ", "1", "2", " ", "国", ","]),
        ("tekken", "HelloWorld12", ["Hello", "World", "1", "2"]),
        ("gpt-4o", "HelloWorld's123", ["Hello", "World's", "123"]),
        ("qwen2", "x12", ["x", "1", "2"]),
        ("default", "x, 1234", ["x", ",", " ", "123", "4"]),
    ):
        tokenizer = gguf_tokenizer({**metadata, "tokenizer.ggml.pre": pre}, tmp_path / "b")
        cut = tokenizer._backend.pre_tokenizer
        assert cut is not None
        written = ["".join(map({v: k for k, v in byte_of_character().items()}.__getitem__, p.encode())) for p in pieces]
        assert [piece for piece, _ in cut.pre_tokenize_str(text)] == written, pre
    assert not GGUF_PATTERNS["gpt-2"].nfc and GGUF_PATTERNS["qwen2"].nfc
    with pytest.raises(UserError, match=r"'llama-bpee'.*\n?.*Did you mean 'llama-bpe'"):
        from_gguf_metadata({**metadata, "tokenizer.ggml.pre": "llama-bpee"})
    with pytest.raises(UserError, match="kind 'rwkv'"):
        from_gguf_metadata({**metadata, "tokenizer.ggml.model": "rwkv"})


def test_a_piece_that_is_a_token_needs_no_merges(trained: ByteLevel, tmp_path: Path) -> None:
    """No two tokens make this one, but tiktoken looks up whole pieces first."""
    ranks = {**trained.ranks, b"xyzzyq": len(trained.ranks)}
    (tmp_path / "own.tiktoken").write_text(ByteLevel(ranks, {}, []).rank_lines())
    out = tmp_path / "out"
    out.mkdir()
    convert(tmp_path / "own.tiktoken", pattern="gpt2").write(out)
    encode = tiktoken_encode(ranks, name="r50k_base")
    assert Tokenizer.load(out).encode("xyzzyq") == encode("xyzzyq") == [len(trained.ranks)]


@pytest.mark.parametrize("name", ["cl100k", "llama3"])
def test_where_spaces_after_the_last_line_go(name: str) -> None:
    """cl100k keeps the spaces that end a text together, over lines; Llama 3's older pattern does not."""
    regex = tokenizers.Regex(PATTERNS[name].expressions[0])
    pieces = tokenizers.pre_tokenizers.Split(regex, "isolated").pre_tokenize_str("a\n\n  ")
    assert [piece for piece, _ in pieces] == (["a", "\n\n  "] if name == "cl100k" else ["a", "\n\n", "  "])
