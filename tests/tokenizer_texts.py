"""Texts that tokenizers stumble over, and the reference tokenizers that tests and benchmarks compare with.

Not a test: the tests of foreign vocabularies and `benchmarks/tokenizers_equal_references.py` import it.
"""

from __future__ import annotations

import json
import random
import struct
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bottega.tokenizer.foreign.gguf_metadata import from_gguf_metadata
from bottega.tokenizer.samples import SAMPLES
from bottega.tokenizer.tokenizer import Tokenizer
from conftest import generated_text

FEW, MANY = 150, 10_000
# A SentencePiece model as Llama has it.
LLAMA = {"remove_extra_whitespaces": False, "byte_fallback": True, "allow_whitespace_only_pieces": True}
Encode = Callable[[str], list[int]]
SPECIAL = (
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<0x41>",
    "<0x0A>",
    "<|endoftext|>",
    "<|im_end|>",
    "[CLS]",
    "[UNK]",
    "\u2581",
)
PIECES = (
    *("  ", "   ", " " * 40, "\n", "\r\n", "\n\n  ", "\t", "\0", "\x01", "\x7f", "\x85", "\xa0", "\u3000", "\u2028"),
    *("\u200b", "\u200d", "\ufeff", "\ufffd", "\ufff8", "e\u0301", "\u0301", "q\u0323\u0307", "\u0344", "\u0e33"),
    *("ｶﾞ", "ﾊﾟ", "１２", "①", "ﬁ", "㍿", "…", "½", "Å", "ǆ", "ß", "İ", "\u1112\u1161\u11ab", "\u1100\u1161"),
    *("가\u11a8",),
    *(
        "👩‍👩‍👧",
        "👍🏽",
        "🇩🇪",
        "❤️",
        "日本語",
        "中文字",
        "한국어",
        "العربية",
        "עִבְרִית",
        "हिन्दी",
        "ไทยแลนด์",
        "Ελλάδα",
        "русский",
    ),
    *("a" * 50, "0" * 33, "1234567", "3.14", "don't", "I'LL", "ſ's", "x" * 7, "Hello world", "the", "ing", "foo_bar"),
)


def adversarial(draw: random.Random, extra: Sequence[str] = (), *, assigned: bool = False) -> str:
    """A short text of special strings, odd sequences and random characters (`assigned`: only those Unicode has)."""
    return "".join(_part(draw, extra, assigned) for _ in range(draw.randrange(25)))


def _part(draw: random.Random, extra: Sequence[str], assigned: bool) -> str:
    kind = draw.random()
    if kind < 0.1:
        return draw.choice(extra or SPECIAL)
    if kind < 0.15:
        return draw.choice(SPECIAL)
    if kind < 0.4:
        return draw.choice(PIECES)
    if kind < 0.7:
        return chr(draw.randrange(0x20, 0x7F))
    if kind < 0.8:
        return " "
    while True:
        character = chr(draw.randrange(0xA0, 0x3000) if kind < 0.92 else draw.randrange(0x110000))
        if not "\ud800" <= character <= "\udfff" and not (assigned and unicodedata.category(character) == "Cn"):
            return character


def varint(number: int) -> bytes:
    """A number as protocol buffers write it."""
    number &= 2**64 - 1
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def message(*fields: tuple[int, int | float | bytes | str]) -> bytes:
    """A protocol buffer: (number of the field, value)."""
    parts = []
    for number, value in fields:
        if isinstance(value, float):
            parts.append(varint(number << 3 | 5) + struct.pack("<f", value))
        elif isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            content = value.encode("utf-8") if isinstance(value, str) else value
            parts.append(varint(number << 3 | 2) + varint(len(content)) + content)
    return b"".join(parts)


def sentencepiece_bytes(
    pieces: Iterable[tuple[str, float, int]], *, kind: int = 2, byte_fallback: bool = True, remove_extra: bool = False,
    dummy_prefix: bool = True, unk: int = 0, rules: bytes = b"",
) -> bytes:  # fmt: skip
    """A SentencePiece model from (text, score, type)."""
    entries = [(1, message((1, text), (2, score), (3, type_))) for text, score, type_ in pieces]
    trainer = message((3, kind), (35, int(byte_fallback)), (40, unk))
    normalizer = message((1, "identity"), (2, rules), (3, int(dummy_prefix)), (4, int(remove_extra)), (5, 1))
    return message(*entries, (2, trainer), (3, normalizer))


@cache
def _tiktoken_pattern(name: str) -> str:
    """tiktoken's own expression for an encoding, read from its code without downloading anything."""
    import tiktoken_ext.openai_public as public

    original = public.load_tiktoken_bpe, public.data_gym_to_mergeable_bpe_ranks
    public.load_tiktoken_bpe = public.data_gym_to_mergeable_bpe_ranks = lambda *_, **__: {}
    try:
        return public.ENCODING_CONSTRUCTORS[name]()["pat_str"]
    finally:
        public.load_tiktoken_bpe, public.data_gym_to_mergeable_bpe_ranks = original


def tiktoken_encode(ranks: dict[bytes, int], *, name: str = "", pattern: str = "") -> Encode:
    """tiktoken itself with these ranks; the pattern is that of its encoding `name`, or the given one."""
    import tiktoken

    encoding = tiktoken.Encoding(
        "test", pat_str=pattern or _tiktoken_pattern(name), mergeable_ranks=ranks, special_tokens={}
    )
    return encoding.encode_ordinary


def same_cost(scores: Sequence[float], first: Sequence[int], second: Sequence[int]) -> bool:
    """Whether two ways to cut a text are equally good as far as single precision tells (ids of a Unigram model)."""
    sums = [sum(scores[id_] for id_ in ids) for ids in (first, second)]
    return abs(sums[0] - sums[1]) <= 1e-6 * max(map(abs, sums)) + 1e-4


def corpus_text() -> str:
    """Plain English, each sample language, runs of spaces and digits."""
    return "\n".join(
        [*(generated_text(seed) for seed in range(6)), *SAMPLES.values(), "0 00 000 1234 5678" * 20, "    x" * 50]
    )


def trained_model(kind: str, **settings: Any) -> bytes:
    """A small SentencePiece model; the same settings give the same one, trained once a process."""
    key = json.dumps([kind, settings])
    if key not in _MODELS:
        import sentencepiece

        given = {"vocab_size": 700 if settings.get("byte_fallback") else 500, "normalization_rule_name": "identity"}
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder) / "text.txt"
            text.write_text(corpus_text())
            sentencepiece.SentencePieceTrainer.train(
                input=str(text), model_prefix=f"{folder}/m", model_type=kind, minloglevel=2, hard_vocab_limit=False,
                **given | settings,
            )  # fmt: skip
            _MODELS[key] = Path(folder, "m.model").read_bytes()
    return _MODELS[key]


_MODELS: dict[str, bytes] = {}


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


def gguf_tokenizer(metadata: dict[str, Any], folder: Path) -> Tokenizer:
    """The tokenizer of GGUF metadata, written to `folder` and loaded."""
    folder.mkdir(exist_ok=True)
    from_gguf_metadata(metadata).write(folder)
    return Tokenizer.load(folder)
