"""Which vocabulary a file or a folder holds, and its conversion."""

from __future__ import annotations

from pathlib import Path

from bottega.codec.gguf import read_gguf
from bottega.core.errors import UserError
from bottega.core.model_files import VOCABULARY_FILES, read_bounded
from bottega.tokenizer.foreign import llama2c_file, rank_file, sentencepiece_file
from bottega.tokenizer.foreign.assemble import Converted, assemble
from bottega.tokenizer.foreign.companions import AddedToken, Companions
from bottega.tokenizer.foreign.gguf_metadata import from_gguf_metadata
from bottega.tokenizer.foreign.limits import MAX_FILE_BYTES
from bottega.tokenizer.foreign.merges_file import merges_parts, wordpiece_parts
from bottega.tokenizer.foreign.parts import Parts
from bottega.tokenizer.foreign.piece_tokenizer import piece_parts
from bottega.tokenizer.foreign.pieces import PieceModel

READ = (
    "SentencePiece (tokenizer.model, spiece.model), tiktoken (*.tiktoken, tokenizer.model of Llama 3), "
    "vocab.json with merges.txt, vocab.txt (WordPiece), llama2.c (tokenizer.bin) and GGUF files are read."
)
# What is known and not read: how a name begins or ends → what it is.
REFUSED = {
    "tekken.json": "is Mistral's own format",
    "rwkv_vocab": "is RWKV's vocabulary, which is no BPE: the longest token that fits is taken",
    "bpe_simple_vocab": "is CLIP's vocabulary, which marks where a word ends",
}
EXTRA_IDS = 100  # T5's sentinels, which are not in its file


def convert(source: Path, *, pattern: str | None = None) -> Converted:
    """The tokenizer that a file, or a folder of files, holds.

    `pattern` says how a byte-level tokenizer cuts its text, by name or as a regular expression, where
    the files do not tell. Raises UserError if there is none that can be read.
    """
    if source.is_dir():
        found = find(source)
        if found is None:
            raise UserError(f"{source} has no vocabulary", hint=READ)
        source = found
    elif not source.is_file():
        raise UserError(f"{source} does not exist", hint="Give a vocabulary file, or the folder that holds it.")
    if source.suffix == ".gguf":
        _require_no_pattern(pattern, source)
        return from_gguf_metadata(read_gguf(source).metadata, source)
    _refuse(source)
    companions = Companions.read(source.parent)
    kind, parts = _parts(source, companions, pattern)
    return assemble(kind, parts, companions, source)


def find(folder: Path) -> Path | None:
    """The vocabulary file of a folder; None if there is none.

    Raises UserError if there are several, or only one of a kind that is not read.
    """
    for name in VOCABULARY_FILES:  # then any one *.model or *.tiktoken
        if (folder / name).is_file():
            return folder / name
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    others = [path for path in files if path.suffix in (".model", ".tiktoken")]
    if len(others) > 1:
        names = ", ".join(path.name for path in others)
        raise UserError(f"{folder} has several vocabularies: {names[:200]}", hint="Name one.")
    if not others:
        for path in files:
            _refuse(path)
    return others[0] if others else None


def _refuse(path: Path) -> None:
    for mark, why in REFUSED.items():
        if path.name.endswith(mark) or (not mark.startswith(".") and path.name.startswith(mark)):
            raise UserError(f"{path} {why}; it is not converted", hint=READ)


def _parts(path: Path, companions: Companions, pattern: str | None) -> tuple[str, Parts]:
    """What the file is, and the parts of its tokenizer.json."""
    if path.name in ("vocab.json", "merges.txt"):
        return merges_parts(path.parent, companions, pattern)
    if path.suffix == ".txt":
        _require_no_pattern(pattern, path)
        return wordpiece_parts(path, companions)
    content = read_bounded(path, MAX_FILE_BYTES)
    if rank_file.looks_like(content):
        return rank_file.rank_parts(content, path, companions, pattern)
    if llama2c_file.looks_like(content):
        _require_no_pattern(pattern, path)
        return "llama2.c vocabulary", _pieces(llama2c_file.read(content, path), path, companions)
    if sentencepiece_file.looks_like(content):
        _require_no_pattern(pattern, path)
        model = sentencepiece_file.read(content, path)
        kind = "BPE" if model.kind == "bpe" else "Unigram"
        return f"SentencePiece model ({kind})", _pieces(model, path, companions)
    raise UserError(f"{path} is no vocabulary that is known", hint=READ)


def _require_no_pattern(pattern: str | None, path: Path) -> None:
    if pattern is not None:
        raise UserError(f"{path} says itself how its text is cut", hint="Leave --pattern out.")


def _pieces(model: PieceModel, path: Path, companions: Companions) -> Parts:
    declared = {token.content for token in companions.added} | set(companions.names.values())
    parts = piece_parts(model, path, declared=declared, legacy=companions.legacy)
    if companions.tokenizer_class == "T5Tokenizer":
        parts.added += _sentinels(parts, companions)
    return parts


def _sentinels(parts: Parts, companions: Companions) -> list[AddedToken]:
    """T5's `<extra_id_99>` to `<extra_id_0>`, which follow its file's pieces, where nothing else lists them."""
    known = [*parts.vocabulary(), *(token.content for token in companions.added)]
    count = companions.config.get("extra_ids", EXTRA_IDS)
    if not isinstance(count, int) or not 0 <= count <= 1000 or any(name.startswith("<extra_id_") for name in known):
        return []
    first = len(parts.vocabulary())
    return [AddedToken(first + place, f"<extra_id_{count - 1 - place}>", special=True) for place in range(count)]
