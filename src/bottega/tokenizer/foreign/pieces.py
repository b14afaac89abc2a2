"""A vocabulary of pieces with scores, as SentencePiece has it: what its files, GGUF and llama2.c hold.

Spaces are written ▁ (U+2581). BPE (Sennrich et al. 2016) joins, again and again, the two
neighbours whose joint piece has the highest score; Unigram (Kudo 2018) takes the pieces whose
scores have the highest sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Literal, NamedTuple

from bottega.core.errors import UserError
from bottega.tokenizer.foreign.limits import check_tokens

SPACE = "\u2581"
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]


class Kind(IntEnum):
    """What a piece is for (the numbers of the file formats)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """One piece; its id is its place."""

    text: str
    score: float
    kind: Kind


@dataclass(frozen=True)
class Normalizer:
    """What is done to a text first: compiled rules, a space before it, extra spaces away, spaces as ▁."""

    rules: bytes = b""
    dummy_prefix: bool = True
    remove_extra: bool = False
    escape: bool = True


@dataclass(frozen=True)
class PieceModel:
    """The vocabulary. `roles` are the ids of `unk`, `bos`, `eos` and `pad`."""

    kind: Literal["bpe", "unigram"]
    pieces: Sequence[Piece]
    byte_fallback: bool
    normalizer: Normalizer
    roles: dict[str, int] = field(default_factory=dict)

    def check(self, path: Path | str) -> None:
        """Raise UserError unless the pieces can be a vocabulary."""
        check_tokens([piece.text for piece in self.pieces], path)
        for index, piece in enumerate(self.pieces):
            if not math.isfinite(piece.score):
                raise UserError(f"{path}: token {index} has the score {piece.score}")
        have = {piece.text for piece in self.pieces if piece.kind == Kind.BYTE}
        if self.byte_fallback and have != set(BYTE_PIECES):
            raise UserError(f"{path} falls back to bytes, but has {len(have)} of the 256 byte pieces")
        if have and not self.byte_fallback:
            raise UserError(f"{path} has byte pieces, but does not fall back to bytes")
        if self.unknown is None:
            raise UserError(f"{path} has no piece for what is unknown")

    @property
    def unknown(self) -> int | None:
        """The id of the piece for what is unknown: the one that is named, else the first of that kind."""
        named = self.roles.get("unk")
        if named is not None and 0 <= named < len(self.pieces) and self.pieces[named].kind == Kind.UNKNOWN:
            return named
        return next((index for index, piece in enumerate(self.pieces) if piece.kind == Kind.UNKNOWN), None)

    def role_names(self) -> dict[str, str]:
        """`bos_token` and the like → text, for the roles whose id is a control or unknown piece."""
        kinds = (Kind.CONTROL, Kind.UNKNOWN)
        return {
            f"{role}_token": self.pieces[id_].text
            for role, id_ in self.roles.items()
            if 0 <= id_ < len(self.pieces) and self.pieces[id_].kind in kinds
        }
