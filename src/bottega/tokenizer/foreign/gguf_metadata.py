"""The vocabulary inside a GGUF file, from its metadata.

Keys are `tokenizer.ggml.*`: `model` (llama: pieces and scores; gpt2: byte-level BPE; bert:
WordPiece; t5: Unigram), `tokens`, `scores`, `token_type`, `merges`, `pre` (how a text is cut),
ids and flags. Source: github.com/ggml-org/ggml/blob/master/docs/gguf.md, and llama.cpp's
convert_hf_to_gguf.py and llama-vocab.cpp.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError, did_you_mean
from bottega.tokenizer.foreign.assemble import Converted, assemble
from bottega.tokenizer.foreign.byte_level import byte_level_parts
from bottega.tokenizer.foreign.companions import AddedToken, Companions
from bottega.tokenizer.foreign.limits import check_tokens
from bottega.tokenizer.foreign.merges_file import check_merges, wordpiece
from bottega.tokenizer.foreign.parts import Parts
from bottega.tokenizer.foreign.patterns import GGUF_PATTERNS, Pattern
from bottega.tokenizer.foreign.piece_tokenizer import piece_parts
from bottega.tokenizer.foreign.pieces import BYTE_PIECES, SPACE, Kind, Normalizer, Piece, PieceModel

PREFIX = "tokenizer.ggml."
# The keys of ids (the misspelling is the format's).
ROLE_KEYS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "sep": "seperator", "cls": "cls",
             "mask": "mask"}  # fmt: skip
STOP_KEYS = ("eos", "eot", "eom")
NO_ID = (-1, 2**32 - 1)


def from_gguf_metadata(metadata: Mapping[str, Any], path: Path | str = "the GGUF file") -> Converted:
    """The tokenizer of a GGUF file's metadata (plain values: texts, numbers, lists); `path` is for messages.

    Raises UserError if the vocabulary is malformed, of a kind that is not supported, or cut in an
    unknown way.
    """
    vocabulary = _Vocabulary(metadata, path)
    kind = vocabulary.text("model")
    if kind in ("llama", "t5"):
        parts = _pieces(vocabulary, "bpe" if kind == "llama" else "unigram")
        bos, eos = kind == "llama", kind == "t5"
    elif kind == "gpt2":
        pattern = _pattern(vocabulary)
        parts = _byte_level(vocabulary, pattern)
        bos, eos = pattern.whole_words, False
    elif kind == "bert":
        parts = wordpiece(_word_parts(vocabulary), Companions(names=vocabulary.names()), path)
        bos, eos = False, False
    else:
        known = "llama, gpt2, bert and t5 are supported"
        raise UserError(f"{path}: the vocabulary is of the kind {kind or 'nothing'!r}; {known}")
    template = metadata.get("tokenizer.chat_template")
    stops = sorted({id_ for name in STOP_KEYS if (id_ := vocabulary.id_of(name)) is not None})
    companions = Companions(
        config={
            "add_bos_token": vocabulary.flag("add_bos_token", bos),
            "add_eos_token": vocabulary.flag("add_eos_token", eos),
        },
        names={**parts.names, **vocabulary.names()},
        chat_template=template if isinstance(template, str) and template else None,
        generation={"eos_token_id": stops} if stops else {},
    )
    return assemble(f"GGUF vocabulary ({kind})", parts, companions, path)


class _Vocabulary:
    """The metadata, each value checked when it is asked for."""

    def __init__(self, metadata: Mapping[str, Any], path: Path | str) -> None:
        self.metadata, self.path = metadata, path
        self.tokens: list[str] = self.list("tokens", str)
        check_tokens(self.tokens, path)
        kinds = self.list("token_type", int, size=len(self.tokens)) or [int(Kind.NORMAL)] * len(self.tokens)
        if any(kind not in Kind.__members__.values() for kind in set(kinds)):
            raise UserError(f"{path}: a token is of the unknown type {max(kinds)}")
        self.kinds = [Kind(kind) for kind in kinds]

    def list(self, name: str, kind: type, *, size: int | None = None) -> list[Any]:
        """A list of values of one type, empty if there is none."""
        values = self.metadata.get(PREFIX + name)
        if values is None:
            return []
        values = list(values) if isinstance(values, (list, tuple, array)) else [None]
        accepted = (int, float) if kind is float else kind
        if not all(isinstance(value, accepted) and not isinstance(value, bool) for value in values):
            raise UserError(f"{self.path}: {PREFIX}{name} is no list of {kind.__name__}")
        if size is not None and len(values) != size:
            raise UserError(f"{self.path}: {PREFIX}{name} has {len(values):,} values for {size:,} tokens")
        return values

    def text(self, name: str) -> str:
        """A text, empty if there is none."""
        value = self.metadata.get(PREFIX + name, "")
        return value if isinstance(value, str) else ""

    def flag(self, name: str, default: bool) -> bool:
        """A truth value."""
        value = self.metadata.get(PREFIX + name)
        return value if isinstance(value, bool) else default

    def id_of(self, name: str) -> int | None:
        """The id of a token by its role."""
        value = self.metadata.get(f"{PREFIX}{ROLE_KEYS.get(name, name)}_token_id")
        if not isinstance(value, int) or isinstance(value, bool) or value in NO_ID:
            return None
        if not 0 <= value < len(self.tokens):
            raise UserError(f"{self.path}: the {name} token has the id {value}, of {len(self.tokens):,} tokens")
        return value

    def names(self) -> dict[str, str]:
        """`bos_token` and the like → text."""
        ids = {role: self.id_of(role) for role in ROLE_KEYS}
        return {f"{role}_token": self.tokens[id_] for role, id_ in ids.items() if id_ is not None}


def _pieces(vocabulary: _Vocabulary, kind: str) -> Parts:
    """Pieces with scores. What the user defined is found in the text first, as llama.cpp does."""
    scores = vocabulary.list("scores", float, size=len(vocabulary.tokens)) or [0.0] * len(vocabulary.tokens)
    rules = vocabulary.list("precompiled_charsmap", int)
    if any(not 0 <= byte < 256 for byte in rules):
        raise UserError(f"{vocabulary.path}: {PREFIX}precompiled_charsmap is no list of bytes")
    pieces = [Piece(*entry) for entry in zip(vocabulary.tokens, map(float, scores), vocabulary.kinds, strict=True)]
    bytes_ = {piece.text for piece in pieces if piece.kind == Kind.BYTE}
    roles = {role: id_ for role in ("unk", "bos", "eos", "pad") if (id_ := vocabulary.id_of(role)) is not None}
    model = PieceModel(
        kind="bpe" if kind == "bpe" else "unigram",
        pieces=pieces,
        byte_fallback=bytes_ == set(BYTE_PIECES),
        normalizer=Normalizer(
            rules=bytes(rules),
            dummy_prefix=vocabulary.flag("add_space_prefix", True),
            remove_extra=vocabulary.flag("remove_extra_whitespaces", False),
        ),
        roles=roles,
    )
    defined = [piece.text for piece in pieces if piece.kind == Kind.USER_DEFINED]
    return piece_parts(model, vocabulary.path, declared=defined)


def _pattern(vocabulary: _Vocabulary) -> Pattern:
    name = vocabulary.text("pre") or "default"
    if name not in GGUF_PATTERNS:
        raise UserError(
            f"{vocabulary.path} cuts its text in the way {name!r} ({PREFIX}pre), which is not known",
            hint=did_you_mean(name, GGUF_PATTERNS),
        )
    return GGUF_PATTERNS[name]


def _byte_level(vocabulary: _Vocabulary, pattern: Pattern) -> Parts:
    vocab = {token: index for index, token in enumerate(vocabulary.tokens)}
    lines = vocabulary.list("merges", str)
    merges = check_merges(lines, vocab, f"{vocabulary.path}: {PREFIX}merges", first=0)
    added = [
        AddedToken(index, vocabulary.tokens[index], special=kind == Kind.CONTROL)
        for index, kind in enumerate(vocabulary.kinds)
        if kind in (Kind.CONTROL, Kind.USER_DEFINED)
    ]
    return byte_level_parts(vocab, merges, pattern, added=added)


def _word_parts(vocabulary: _Vocabulary) -> list[str]:
    """WordPiece tokens: GGUF marks the beginning of a word by ▁, where vocab.txt marks all else by ##."""

    def marked(token: str, kind: Kind) -> str:
        if token.startswith(SPACE) and len(token) > 1:
            return token[1:]
        return token if kind == Kind.CONTROL or (token[0] == "[" and token[-1] == "]") else "##" + token

    return [marked(token, kind) for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)]
