"""Vocabularies in other formats become tokenizer.json with the ids of the reference tokenizers."""

from __future__ import annotations

import base64
import json
import random
import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
import transformers

from bottega.core.errors import UserError
from bottega.tokenizer.foreign import rank_file, sentencepiece_file
from bottega.tokenizer.foreign.gguf_metadata import from_gguf_metadata
from bottega.tokenizer.foreign.patterns import GGUF_PATTERNS, PATTERNS, QWEN2
from bottega.tokenizer.foreign.pieces import Kind, PieceModel
from bottega.tokenizer.foreign.source import convert
from bottega.tokenizer.samples import SAMPLES
from bottega.tokenizer.tokenizer import Detokenizer, Tokenizer, byte_of_character
from conftest import generated_text
from tokenizer_texts import SPECIAL, Encode, adversarial, same_cost, tiktoken_encode

DEFINED = ["<mask>", "<|sep|>", "@@", "<user:1>"]
FEW, MANY = 150, 10_000


def corpus_text() -> str:
    """Plain English, each sample language, runs of spaces and digits."""
    return "\n".join(
        [*(generated_text(seed) for seed in range(6)), *SAMPLES.values(), "0 00 000 1234 5678" * 20, "    x" * 50]
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(corpus_text())
    return path


@pytest.fixture(scope="module")
def model_of(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """A function that trains a SentencePiece model; the same settings give the same one."""
    made: dict[str, bytes] = {}

    def train(kind: str, **settings: Any) -> bytes:
        key = json.dumps([kind, settings])
        if key not in made:
            prefix = tmp_path_factory.mktemp("model") / "m"
            given = {"vocab_size": 700 if settings.get("byte_fallback") else 500, "normalization_rule_name": "identity"}
            sentencepiece.SentencePieceTrainer.train(
                input=str(corpus), model_prefix=str(prefix), model_type=kind, minloglevel=2, hard_vocab_limit=False,
                **given | settings,
            )  # fmt: skip
            made[key] = prefix.with_suffix(".model").read_bytes()
        return made[key]

    return train


@dataclass(frozen=True)
class Case:
    """A kind of SentencePiece model; the normalisation rules take a second or two to convert."""

    kind: str
    settings: dict[str, Any]


PLAIN = {"remove_extra_whitespaces": False}
CASES = {
    "bpe": Case("bpe", {}),
    "bpe, llama": Case("bpe", {**PLAIN, "byte_fallback": True, "allow_whitespace_only_pieces": True}),
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


def folder_of(tmp_path: Path, content: bytes, **config: Any) -> Path:
    (tmp_path / "tokenizer.model").write_bytes(content)
    if config:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def assert_equal(tokenizer: Tokenizer, encode: Encode, count: int, extra: Sequence[str] = (), **texts: bool) -> None:
    """Ids equal on `count` texts; a Unigram model may cut a text in another way that is equally good."""
    model = tokenizer.files.data["model"]
    scores = [score for _, score in model["vocab"]] if model["type"] == "Unigram" else []
    draw, ties = random.Random(count), 0
    for _ in range(count):
        text = adversarial(draw, extra, **texts)
        ours, theirs = tokenizer.encode(text), encode(text)
        if ours != theirs:
            assert scores and same_cost(scores, ours, theirs), (text, ours, theirs)
            ties += 1
    assert ties <= count / 10


@pytest.mark.parametrize("name", CASES)
def test_sentencepiece_ids_are_equal(name: str, model_of: Callable[..., bytes], tmp_path: Path) -> None:
    compare_with_sentencepiece(name, model_of, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_sentencepiece_ids_are_equal_often(name: str, model_of: Callable[..., bytes], tmp_path: Path) -> None:
    compare_with_sentencepiece(name, model_of, tmp_path, MANY)


def compare_with_sentencepiece(name: str, model_of: Callable[..., bytes], tmp_path: Path, count: int) -> None:
    content = model_of(CASES[name].kind, **CASES[name].settings)
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


def test_a_text_that_is_only_spaces_or_only_what_is_removed(model_of: Callable[..., bytes], tmp_path: Path) -> None:
    for index, name in enumerate(("bpe", "bpe, llama", "bpe, nmt_nfkc", "unigram, nfkc", "unigram, user-defined")):
        content = model_of(CASES[name].kind, **CASES[name].settings)
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
    from tokenizer_texts import sentencepiece_bytes

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


def test_a_llama_folder_adds_bos_and_the_space_in_front(model_of: Callable[..., bytes], tmp_path: Path) -> None:
    content = model_of("bpe", **CASES["bpe, llama"].settings)
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


def test_t5_has_sentinels_and_ends_texts(model_of: Callable[..., bytes], tmp_path: Path) -> None:
    content = model_of("unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    folder = folder_of(tmp_path, content, tokenizer_class="T5Tokenizer", extra_ids=3)
    out = tmp_path / "out"
    out.mkdir()
    convert(folder).write(out)
    tokenizer, theirs = Tokenizer.load(out), transformers.AutoTokenizer.from_pretrained(out)
    size = sentencepiece.SentencePieceProcessor(model_proto=content).get_piece_size()
    assert tokenizer.encode_markup("<extra_id_0>") == [size + 2] == [tokenizer.vocab_size - 1]
    assert theirs("river <extra_id_2>").input_ids[-2:] == [size, 1]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.adds_bos) == (None, 1, 0, False)


def test_gemma_and_others_by_their_model(model_of: Callable[..., bytes], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, model_of("bpe", **CASES["bpe, llama"].settings))
    for model_type, adds in (("gemma2", True), ("mistral", True), ("qwen9", False)):
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        assert Tokenizer.load(folder).adds_bos is adds


def test_added_tokens_and_their_ids(model_of: Callable[..., bytes], tmp_path: Path) -> None:
    content = model_of("bpe", **CASES["bpe, llama"].settings)
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


def test_the_written_folder_is_the_same_tokenizer_and_opens_elsewhere(
    model_of: Callable[..., bytes], tmp_path: Path
) -> None:
    content = model_of("bpe", **CASES["bpe, llama"].settings)
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


# ---------------------------------------------------------------------- byte-level vocabularies


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
        import unicodedata

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


# ---------------------------------------------------------------------- GGUF and llama2.c


def piece_metadata(model: PieceModel, **more: Any) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "llama" if model.kind == "bpe" else "t5",
        "tokenizer.ggml.tokens": [piece.text for piece in model.pieces],
        "tokenizer.ggml.scores": [piece.score for piece in model.pieces],
        "tokenizer.ggml.token_type": [int(piece.kind) for piece in model.pieces],
        "tokenizer.ggml.unknown_token_id": 0,
        **{f"tokenizer.ggml.{key}": value for key, value in more.items()},
    }


def tokenizer_of(metadata: dict[str, Any], folder: Path) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    from_gguf_metadata(metadata).write(folder)
    return Tokenizer.load(folder)


def test_gguf_pieces_give_the_ids_of_sentencepiece(model_of: Callable[..., bytes], tmp_path: Path) -> None:
    content = model_of("bpe", **CASES["bpe, llama"].settings)
    model = sentencepiece_file.read(content, Path("m"))
    metadata = piece_metadata(model, bos_token_id=1, eos_token_id=2, eot_token_id=5, seperator_token_id=2**32 - 1)
    tokenizer = tokenizer_of({**metadata, "tokenizer.chat_template": "{{ bos_token }}"}, tmp_path / "a")
    assert_equal(tokenizer, sentencepiece.SentencePieceProcessor(model_proto=content).encode, FEW)
    assert tokenizer.adds_bos and tokenizer.stop_ids == {2, 5} and tokenizer.chat_template == "{{ bos_token }}"
    bare = tokenizer_of({**metadata, "tokenizer.ggml.add_space_prefix": False}, tmp_path / "b")
    assert tokenizer.encode("river") == bare.encode(" river") != bare.encode("river")
    unigram = model_of("unigram", **CASES["unigram, bytes"].settings)
    pieces = sentencepiece_file.read(unigram, Path("m"))
    tokenizer = tokenizer_of(piece_metadata(pieces), tmp_path / "c")
    assert_equal(tokenizer, sentencepiece.SentencePieceProcessor(model_proto=unigram).encode, FEW)


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
    tokenizer = tokenizer_of({**metadata, "tokenizer.ggml.pre": "llama-bpe"}, tmp_path / "a")
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
        tokenizer = tokenizer_of({**metadata, "tokenizer.ggml.pre": pre}, tmp_path / "b")
        cut = tokenizer._backend.pre_tokenizer
        assert cut is not None
        written = ["".join(map({v: k for k, v in byte_of_character().items()}.__getitem__, p.encode())) for p in pieces]
        assert [piece for piece, _ in cut.pre_tokenize_str(text)] == written, pre
    assert not GGUF_PATTERNS["gpt-2"].nfc and GGUF_PATTERNS["qwen2"].nfc
    with pytest.raises(UserError, match=r"'llama-bpee'.*\n?.*Did you mean 'llama-bpe'"):
        from_gguf_metadata({**metadata, "tokenizer.ggml.pre": "llama-bpee"})
    with pytest.raises(UserError, match="kind 'rwkv'"):
        from_gguf_metadata({**metadata, "tokenizer.ggml.model": "rwkv"})


def test_gguf_wordpiece_marks_are_turned_round(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581bread", "s", "\u2581."]
    metadata = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, 3, 1, 1, 1],
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.unknown_token_id": 1,
    }
    assert tokenizer_of(metadata, tmp_path).encode("Breads. x") == [4, 5, 6, 1]


def test_llama2c_gives_the_ids_of_sentencepiece(model_of: Callable[..., bytes], tmp_path: Path) -> None:
    content = model_of("bpe", **CASES["bpe, llama"].settings)
    pieces = sentencepiece_file.read(content, Path("m")).pieces
    texts = [p.text.replace("\u2581", " ") if p.kind == Kind.NORMAL else p.text for p in pieces]
    texts[1:3] = ["\n<s>\n", "\n</s>\n"]
    encoded = [(piece.score, text.encode()) for piece, text in zip(pieces, texts, strict=True)]
    body = b"".join(struct.pack("<fi", score, len(text)) + text for score, text in encoded)
    (tmp_path / "tokenizer.bin").write_bytes(struct.pack("<i", 16) + body)
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert_equal(tokenizer, sentencepiece.SentencePieceProcessor(model_proto=content).encode, FEW)


@pytest.fixture(autouse=True)
def quiet() -> None:
    warnings.filterwarnings("ignore", category=DeprecationWarning)
