"""A `tokenizer.json` from a vocabulary of pieces, with the ids that SentencePiece gives.

What the two do differently, and how it is bridged:

* Control, unknown, byte and unused pieces never come from text. BPE has no merges for them;
  in Unigram the text is cut inside them, where no other piece could cross the cut.
* User-defined pieces always win. In Unigram by the score that SentencePiece gives them; in BPE
  the text is cut around them, and a part that is a piece as a whole is that piece. (As added
  tokens, which they are elsewhere, they would lose the space that belongs before a text.)
* Scores are added in double precision, not in single: where two ways to cut a text differ by
  less than a rounding, SentencePiece may take the other one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from bottega.core.errors import UserError
from bottega.tokenizer.foreign.charsmap import CharsmapError, normalizer_steps
from bottega.tokenizer.foreign.companions import AddedToken
from bottega.tokenizer.foreign.merges import splits
from bottega.tokenizer.foreign.parts import Parts
from bottega.tokenizer.foreign.pieces import SPACE, Kind, PieceModel
from bottega.tokenizer.foreign.steps import replace, sequence, split

RESERVED = (Kind.CONTROL, Kind.UNKNOWN, Kind.BYTE, Kind.UNUSED)


def piece_parts(model: PieceModel, path: Path | str, *, declared: Iterable[str] = (), legacy: bool = True) -> Parts:
    """The parts for a piece model.

    `declared` are pieces that the files beside it make added tokens. With `legacy`, a space is put
    before every part of a text that special tokens cut it into, as older versions of transformers do;
    without, only at the beginning of the text. Raises UserError if the model is malformed.
    """
    model.check(path)
    notes: list[str] = []
    unknown = model.unknown
    assert unknown is not None
    declared = set(declared)
    defined = [p.text for p in model.pieces if p.kind == Kind.USER_DEFINED and p.text not in declared]
    reserved = [p.text for p in model.pieces if p.kind in RESERVED]
    cuts, uncut = _cuts(model)
    pre: list[dict[str, Any]] = []
    if model.kind == "unigram":
        backend = _unigram(model, unknown)
        pre += _word_split(model)
        if uncut:
            notes.append(f"text that spells {_some(uncut)} cannot be told from that piece")
    else:
        backend = _bpe(model, unknown, notes)
        if defined and not uncut and not _has_parts(defined, reserved) and _whole_pieces(backend, model):
            backend["ignore_merges"] = True
            longest_first = sorted(defined, key=len, reverse=True)
            pre.append(split("|".join(map(re.escape, longest_first))))
        else:
            declared |= set(defined)
            cuts = []
    pre += cuts
    normalizer = _normalizer(model, path, legacy, notes)
    if model.normalizer.dummy_prefix and not legacy:
        scheme = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
        pre.insert(0, scheme)
    added = [
        AddedToken(index, piece.text, special=piece.kind != Kind.USER_DEFINED)
        for index, piece in enumerate(model.pieces)
        if piece.kind in (Kind.CONTROL, Kind.UNKNOWN) or (piece.kind == Kind.USER_DEFINED and piece.text in declared)
    ]
    names = model.role_names()
    return Parts(backend, normalizer, sequence(pre, "pretokenizers"), _decoder(model), added, notes, names)


def _normalizer(model: PieceModel, path: Path | str, legacy: bool, notes: list[str]) -> dict[str, Any] | None:
    """Rules, extra spaces, the space in front, and ▁, in SentencePiece's order."""
    settings = model.normalizer
    steps: list[dict[str, Any]] = []
    prefix = {"type": "Prepend", "prepend": " "}
    in_front = settings.dummy_prefix and legacy
    if in_front and not settings.remove_extra:
        steps.append(prefix)
    if settings.rules:
        try:
            rules, ignored = normalizer_steps(settings.rules)
        except CharsmapError as error:
            raise UserError(f"{path}: its normalisation rules are damaged: {error}") from None
        steps += rules
        if ignored:
            notes.append(f"{ignored:,} of its normalisation rules, all for sequences of characters, are not followed")
    if settings.remove_extra:
        trailing = f"[ {SPACE}]+" if settings.escape else " +"
        steps += [replace(" {2,}", " "), replace(rf"\A +|{trailing}\z", "")]
        if in_front:
            steps.append(prefix)
    if settings.escape:
        steps.append(replace(" ", SPACE, literal=True))
    return sequence(steps, "normalizers")


def _decoder(model: PieceModel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if model.normalizer.escape:
        steps.append(replace(SPACE, " ", literal=True))
    steps += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if model.normalizer.dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


# ---------------------------------------------------------------------- Unigram


def _unigram(model: PieceModel, unknown: int) -> dict[str, Any]:
    """The pieces with their scores; a user-defined one has the score by which SentencePiece (0.2.3) lets it win."""
    vocabulary = [
        [text, 0.1 * (len(text) - 1) if kind == Kind.USER_DEFINED else score] for text, score, kind in model.pieces
    ]
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": model.byte_fallback}


def _word_split(model: PieceModel) -> list[dict[str, Any]]:
    """Cut the text before every ▁, if no piece could cross that: words can then be remembered."""
    texts = [piece.text for piece in model.pieces if piece.kind in (Kind.NORMAL, Kind.USER_DEFINED)]
    crossed = any(SPACE in text[1:] for text in texts)
    if crossed or SPACE not in texts or not model.normalizer.escape:
        return []
    return [split(SPACE, "MergedWithNext", literal=True)]


def _cuts(model: PieceModel) -> tuple[list[dict[str, Any]], list[str]]:
    """Where to cut a text so that no reserved piece is read in it, and the reserved pieces that cannot be cut.

    A cut between two characters is safe if no other piece could lie across it, and if the two are not
    both unknown (a run of unknown characters is one token).
    """
    others = [piece.text for piece in model.pieces if piece.kind in (Kind.NORMAL, Kind.USER_DEFINED)]
    single = {text for text in others if len(text) == 1}
    crossing: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for text in others:
        for at in range(1, len(text)):
            crossing[text[at - 1 : at + 1]].append((text[:at], text[at:]))

    def is_safe(before: str, after: str) -> bool:
        known = model.byte_fallback or before[-1] in single or after[0] in single
        return known and not any(
            (left.endswith(before) or before.endswith(left)) and (right.startswith(after) or after.startswith(right))
            for left, right in crossing[before[-1] + after[0]]
        )

    chosen: set[str] = set()
    uncut: list[str] = []
    for text in (piece.text for piece in model.pieces if piece.kind in RESERVED):
        ways = [(text[:at], text[at:]) for at in range(1, len(text))]
        # Between two characters that no piece has in a row, any text can be cut: one cut serves many pieces.
        everywhere = {_cut(a[-1], b[0]) for a, b in ways if not crossing[a[-1] + b[0]] and is_safe(a, b)}
        here = [_cut(a, b) for a, b in ways if is_safe(a, b)]
        if everywhere.isdisjoint(chosen) and here:
            chosen.add(min(everywhere, default=here[0]))
        elif not here:
            uncut.append(text)
    return [split("|".join(sorted(chosen)), "MergedWithPrevious")] if chosen else [], uncut


def _cut(before: str, after: str) -> str:
    """A pattern for the character after which a text is cut."""
    behind = f"(?<={re.escape(before[:-1])})" if len(before) > 1 else ""
    return f"{behind}{re.escape(before[-1])}(?={re.escape(after)})"


def _some(texts: Sequence[str]) -> str:
    return ", ".join(repr(text) for text in texts[:3]) + (f" (and {len(texts) - 3:,} more)" if len(texts) > 3 else "")


# ---------------------------------------------------------------------- BPE


def _bpe(model: PieceModel, unknown: int, notes: list[str]) -> dict[str, Any]:
    """The pieces, and the merges in the order of their scores."""
    normal = {piece.text: index for index, piece in enumerate(model.pieces) if piece.kind == Kind.NORMAL}
    order = sorted(normal, key=lambda text: (-model.pieces[normal[text]].score, normal[text]))
    long = [text for text in order if len(text) > 1]
    if len({model.pieces[normal[text]].score for text in long}) < len(long):
        notes.append("some pieces have the same score: which of them is made first depends on the text, but not here")
    unused = {piece.text: index for index, piece in enumerate(model.pieces) if piece.kind == Kind.UNUSED}
    made = [text for text in unused if splits([text], normal)]
    if made:
        notes.append(f"unused pieces that larger ones may be made of, such as {_some(made)}, are never made")
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": model.pieces[unknown].text,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": model.byte_fallback,
        "ignore_merges": False,
        "vocab": {piece.text: index for index, piece in enumerate(model.pieces)},
        "merges": [list(merge) for merge in splits(long, normal)],
    }


def _has_parts(texts: Sequence[str], parts: Sequence[str]) -> bool:
    return any(part in text for text in texts for part in parts)


def _whole_pieces(backend: dict[str, Any], model: PieceModel) -> bool:
    """Whether each piece, as a text, is made of nothing but itself."""
    vocabulary, merges = backend["vocab"], [tuple(merge) for merge in backend["merges"]]
    bpe = tokenizers.models.BPE(vocab=vocabulary, merges=merges, unk_token=backend["unk_token"])
    normal = [piece.text for piece in model.pieces if piece.kind == Kind.NORMAL]
    return all(len(bpe.tokenize(text)) == 1 for text in normal)
