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
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from bottega.core.errors import UserError
from bottega.tokenizer.foreign.charsmap import CharsmapError, normalizer_steps
from bottega.tokenizer.foreign.companions import AddedToken
from bottega.tokenizer.foreign.cuts import RESERVED, cuts
from bottega.tokenizer.foreign.merges import splits
from bottega.tokenizer.foreign.parts import Parts
from bottega.tokenizer.foreign.pieces import SPACE, Kind, PieceModel
from bottega.tokenizer.foreign.steps import replace, sequence, split

MAX_DEFINED = 2_000
ALL_SPACES = 1_000_000


def piece_parts(model: PieceModel, path: Path | str, *, declared: Iterable[str] = (), legacy: bool = True) -> Parts:
    """The parts for a piece model.

    `declared` are pieces that the files beside it make added tokens. With `legacy`, a space is put
    before every part of a text that special tokens cut it into, as older versions of transformers do;
    without, only at the beginning of the text. Raises UserError if the model is malformed.
    """
    model.check(path)
    notes: list[str] = []
    normalizer = _normalizer(model, path, legacy, notes)
    declared = set(declared)
    defined = [p.text for p in model.pieces if p.kind == Kind.USER_DEFINED and p.text not in declared]
    inside, uncut = cuts(model) if defined or model.kind == "unigram" else ([], [])
    if model.kind == "unigram":
        backend = _unigram(model)
        pre = [*_word_split(model), *inside]
        if uncut:
            notes.append(f"text that spells {_some(uncut)} cannot be told from that piece")
    else:
        backend = _bpe(model, notes)
        pre = [] if uncut or not defined else _defined_split(model, defined, backend, inside)
        if not pre:
            declared.update(defined)
    if declared.isdisjoint(defined):
        _note_changed(model, defined, notes)
    elif model.normalizer.dummy_prefix or model.normalizer.remove_extra:
        notes.append("user-defined pieces are found first, and the parts between them are taken as texts of their own")
    if model.normalizer.dummy_prefix and not legacy:
        pre.insert(0, {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False})
    added = [
        AddedToken(index, piece.text, special=piece.kind != Kind.USER_DEFINED)
        for index, piece in enumerate(model.pieces)
        if piece.kind in (Kind.CONTROL, Kind.UNKNOWN) or (piece.kind == Kind.USER_DEFINED and piece.text in declared)
    ]
    before = sequence(pre, "pretokenizers")
    return Parts(backend, normalizer, before, _decoder(model), added, notes, model.role_names())


def _note_changed(model: PieceModel, defined: Sequence[str], notes: list[str]) -> None:
    """SentencePiece keeps user-defined pieces from its normaliser; here they go through it."""
    if model.normalizer.rules or model.normalizer.remove_extra:
        kept = [text for text in defined if not text.isascii() or " " in text]
        if kept:
            notes.append(f"the normalisation rules apply to {_some(kept)} too")


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
    if model.normalizer.remove_extra or model.normalizer.dummy_prefix:
        start = ALL_SPACES if model.normalizer.remove_extra else 1
        steps.append({"type": "Strip", "content": " ", "start": start, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


# ---------------------------------------------------------------------- Unigram


def _unigram(model: PieceModel) -> dict[str, Any]:
    """The pieces with their scores; a user-defined one has the score by which SentencePiece (0.2.3) lets it win."""
    vocabulary = [
        [text, 0.1 * (len(text) - 1) if kind == Kind.USER_DEFINED else score] for text, score, kind in model.pieces
    ]
    return {"type": "Unigram", "unk_id": model.unknown, "vocab": vocabulary, "byte_fallback": model.byte_fallback}


def _word_split(model: PieceModel) -> list[dict[str, Any]]:
    """Cut the text before every ▁, if no piece could cross that: words can then be remembered."""
    texts = [piece.text for piece in model.pieces if piece.kind in (Kind.NORMAL, Kind.USER_DEFINED)]
    crossed = any(SPACE in text[1:] for text in texts)
    if crossed or SPACE not in texts or not model.normalizer.escape:
        return []
    return [split(SPACE, "MergedWithNext", literal=True)]


def _some(texts: Sequence[str]) -> str:
    return ", ".join(repr(text) for text in texts[:3]) + (f" (and {len(texts) - 3:,} more)" if len(texts) > 3 else "")


# ---------------------------------------------------------------------- BPE


def _bpe(model: PieceModel, notes: list[str]) -> dict[str, Any]:
    """The pieces, and the merges in the order of their scores."""
    normal = {piece.text: index for index, piece in enumerate(model.pieces) if piece.kind == Kind.NORMAL}
    # Of equals SentencePiece makes the leftmost. For runs of one character (Llama's spaces) that is the longest.
    order = sorted(normal, key=lambda text: (-model.pieces[normal[text]].score, -len(text), normal[text]))
    long = [text for text in order if len(text) > 1]
    equals = Counter(model.pieces[normal[text]].score for text in long)
    tied = [text for text in long if equals[model.pieces[normal[text]].score] > 1 and len(set(text)) > 1]
    if tied:
        notes.append(f"pieces of the same score, such as {_some(tied)}, are made longest first, not leftmost first")
    unused = {piece.text: index for index, piece in enumerate(model.pieces) if piece.kind == Kind.UNUSED}
    made = [text for text in unused if splits([text], normal)]
    if made:
        notes.append(f"unused pieces that larger ones may be made of, such as {_some(made)}, are never made")
    unknown = model.unknown
    assert unknown is not None
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


def _defined_split(
    model: PieceModel, defined: Sequence[str], backend: dict[str, Any], inside: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Cut the text around user-defined pieces, which are then whole words; no step if that would change others."""
    reserved = [piece.text for piece in model.pieces if piece.kind in RESERVED]
    if len(defined) > MAX_DEFINED or any(part in text for text in defined for part in reserved):
        return []
    if not _whole_pieces(backend, model):
        return []
    backend["ignore_merges"] = True
    longest_first = sorted(defined, key=len, reverse=True)
    return [split("|".join(map(re.escape, longest_first))), *inside]


def _whole_pieces(backend: dict[str, Any], model: PieceModel) -> bool:
    """Whether each piece, as a text, is made of nothing but itself."""
    vocabulary, merges = backend["vocab"], [tuple(merge) for merge in backend["merges"]]
    bpe = tokenizers.models.BPE(vocab=vocabulary, merges=merges, unk_token=backend["unk_token"])
    normal = [piece.text for piece in model.pieces if piece.kind == Kind.NORMAL]
    return all(len(bpe.tokenize(text)) == 1 for text in normal)
