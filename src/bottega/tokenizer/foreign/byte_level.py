"""Byte-level BPE (GPT-2): tokens are bytes, written with one printable character a byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bottega.tokenizer.foreign.companions import AddedToken
from bottega.tokenizer.foreign.parts import Parts
from bottega.tokenizer.foreign.patterns import Pattern
from bottega.tokenizer.tokenizer import byte_of_character


def written(token: bytes) -> str:
    """Bytes as a byte-level vocabulary writes them."""
    return "".join(map(_CHARACTERS.__getitem__, token))


def byte_level_parts(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    pattern: Pattern,
    *,
    added: Sequence[AddedToken] = (),
    prefix_space: bool = False,
    whole_words: bool | None = None,
) -> Parts:
    """The parts of a tokenizer.json for tokens and merges in written form."""
    missing = sum(character not in vocab for character in _CHARACTERS)
    notes = [f"{missing} of the 256 bytes have no token: text that needs them loses them"] if missing else []
    model: dict[str, Any] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": pattern.whole_words if whole_words is None else whole_words,
        "vocab": dict(vocab),
        "merges": [list(merge) for merge in merges],
    }
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    before = pattern.pre_tokenizer(prefix_space=prefix_space)
    return Parts(model, pattern.normalizer(), before, decoder, list(added), notes)


_CHARACTERS = [character for character, _ in sorted(byte_of_character().items(), key=lambda item: item[1])]
