"""SentencePiece's `.model` files: a protocol buffer with the pieces and how text is normalised.

Schema: sentencepiece_model.proto of github.com/google/sentencepiece. `ModelProto` has the
pieces (1: text 1, score 2, type 3), the trainer's settings (2: kind of model 3,
whitespace as suffix 24, byte fallback 35, ids of unknown, BOS, EOS and padding 40 to 43)
and the normaliser's (3: compiled rules 2, dummy prefix 3, removal of extra whitespace 4,
escaping of whitespace 5). The rest is of no use to a tokenizer.
"""

from __future__ import annotations

from pathlib import Path

from bottega.core.errors import UserError
from bottega.tokenizer.foreign.limits import MAX_VOCABULARY
from bottega.tokenizer.foreign.pieces import Kind, Normalizer, Piece, PieceModel
from bottega.tokenizer.foreign.protobuf import WireError, bytes_of, fields, float_of, integer_of, text_of

PIECES, TRAINER, NORMALIZER, DENORMALIZER = 1, 2, 3, 5
MODEL_TYPE, AS_SUFFIX, BYTE_FALLBACK = 3, 24, 35
ROLE_IDS = {40: "unk", 41: "bos", 42: "eos", 43: "pad"}
RULES, DUMMY_PREFIX, REMOVE_EXTRA, ESCAPE = 2, 3, 4, 5
MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


def looks_like(content: bytes) -> bool:
    """Whether the file begins as a SentencePiece model does: with a piece."""
    return content[:1] == bytes([PIECES << 3 | 2])


def read(content: bytes, path: Path) -> PieceModel:
    """The model; raises UserError if the bytes are no SentencePiece model or one of a kind that is not supported."""
    try:
        return _parse(memoryview(content), path)
    except WireError as error:
        raise UserError(
            f"{path} is not a SentencePiece model: {error}", hint="Is it complete? Fetch it again and compare its size."
        ) from None


def _parse(message: memoryview, path: Path) -> PieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, int] = {MODEL_TYPE: 1, AS_SUFFIX: 0, BYTE_FALLBACK: 0, 40: 0, 41: 1, 42: 2, 43: -1}
    normalizer: dict[int, int] = {DUMMY_PREFIX: 1, REMOVE_EXTRA: 1, ESCAPE: 1}
    rules = b""
    for number, value in fields(message):
        if number == PIECES:
            if len(pieces) == MAX_VOCABULARY:
                raise WireError(f"it has more than {MAX_VOCABULARY:,} pieces")
            pieces.append(_piece(bytes_of(value)))
        elif number == TRAINER:
            _settings(bytes_of(value), trainer)
        elif number == NORMALIZER:
            rules = _settings(bytes_of(value), normalizer) or rules
        elif number == DENORMALIZER and _settings(bytes_of(value), {}):
            raise UserError(f"{path} changes text again after decoding (denormalizer_spec), which is not supported")
    kind = MODEL_TYPES.get(trainer[MODEL_TYPE], f"type {trainer[MODEL_TYPE]}")
    if kind not in ("bpe", "unigram"):
        raise UserError(f"{path} is a SentencePiece model of {kind}s; BPE and Unigram are supported")
    if trainer[AS_SUFFIX]:
        raise UserError(f"{path} marks spaces after words (treat_whitespace_as_suffix), which is not supported")
    return PieceModel(
        kind="bpe" if kind == "bpe" else "unigram",
        pieces=pieces,
        byte_fallback=bool(trainer[BYTE_FALLBACK]),
        normalizer=Normalizer(
            rules, bool(normalizer[DUMMY_PREFIX]), bool(normalizer[REMOVE_EXTRA]), bool(normalizer[ESCAPE])
        ),
        roles={role: trainer[number] for number, role in ROLE_IDS.items() if trainer[number] >= 0},
    )


def _piece(message: memoryview) -> Piece:
    text, score, kind = "", 0.0, Kind.NORMAL
    for number, value in fields(message):
        if number == 1:
            text = text_of(value)
        elif number == 2:
            score = float_of(value)
        elif number == 3:
            try:
                kind = Kind(integer_of(value))
            except ValueError:
                raise WireError(f"a piece of unknown type {integer_of(value)}") from None
    return Piece(text, score, kind)


def _settings(message: memoryview, wanted: dict[int, int]) -> bytes:
    """Fill in the `wanted` integers; the compiled rules, if field 2 is bytes."""
    rules = b""
    for number, value in fields(message):
        if number in wanted:
            wanted[number] = integer_of(value)
        elif number == RULES and not isinstance(value, int):
            rules = bytes(value)
    return rules
