"""llama2.c's `tokenizer.bin`: the pieces of a Llama vocabulary with their scores.

The longest token's length, then for each token its score (float32), its length (int32) and its
bytes. Spaces stand for ▁; the first 259 are `<unk>`, `\\n<s>\\n`, `\\n</s>\\n` and the bytes.
Source: github.com/karpathy/llama2.c (tokenizer.py).
"""

from __future__ import annotations

import struct
from pathlib import Path

from bottega.core.errors import UserError
from bottega.tokenizer.foreign.limits import MAX_TOKEN_BYTES, MAX_VOCABULARY
from bottega.tokenizer.foreign.pieces import BYTE_PIECES, SPACE, Kind, Normalizer, Piece, PieceModel

_MARKS = (("<unk>", Kind.UNKNOWN), ("<s>", Kind.CONTROL), ("</s>", Kind.CONTROL))
FIRST = len(_MARKS) + len(BYTE_PIECES)


def looks_like(content: bytes) -> bool:
    """Whether the file begins with a small number, and a token called <unk>."""
    return content[12:17] == b"<unk>" and content[8:12] == b"\x05\0\0\0"


def read(content: bytes, path: Path) -> PieceModel:
    """The model; raises UserError if the bytes are no such file."""
    pieces: list[Piece] = []
    at = 4
    while at < len(content):
        if len(content) - at < 8 or len(pieces) == MAX_VOCABULARY:
            raise UserError(f"{path} is no tokenizer of llama2.c: it ends within a token, or has too many")
        score, size = struct.unpack_from("<fi", content, at)
        at += 8
        if not 0 < size <= min(MAX_TOKEN_BYTES, len(content) - at):
            raise UserError(f"{path}: token {len(pieces)} has {size} bytes, but {len(content) - at} are left")
        try:
            text = content[at : at + size].decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{path}: token {len(pieces)} is not UTF-8") from None
        pieces.append(Piece(text.replace(" ", SPACE), score, Kind.NORMAL))
        at += size
    if len(pieces) < FIRST or [piece.text for piece in pieces[3:FIRST]] != BYTE_PIECES:
        raise UserError(f"{path} is no tokenizer of llama2.c: its tokens 3 to 258 are not the bytes")
    first = [Piece(text, 0.0, kind) for text, kind in _MARKS]
    first += [Piece(text, 0.0, Kind.BYTE) for text in BYTE_PIECES]
    roles = {"unk": 0, "bos": 1, "eos": 2}
    return PieceModel("bpe", [*first, *pieces[FIRST:]], byte_fallback=True, normalizer=Normalizer(), roles=roles)
