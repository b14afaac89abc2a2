"""`vocab.json` and `merges.txt`, as GPT-2 and Qwen have them; and WordPiece's `vocab.txt` (BERT)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.model_files import parse_object, read_bounded
from bottega.tokenizer.foreign.assemble import template
from bottega.tokenizer.foreign.byte_level import byte_level_parts
from bottega.tokenizer.foreign.companions import AddedToken, Companions
from bottega.tokenizer.foreign.limits import MAX_FILE_BYTES, MAX_VOCABULARY, check_tokens
from bottega.tokenizer.foreign.parts import Parts
from bottega.tokenizer.foreign.patterns import PATTERNS, find_pattern

# How each kind of tokenizer cuts a text; the kinds that have no name of their own are GPT-2's.
PATTERN_OF_CLASS = {"": "gpt2", "GPT2Tokenizer": "gpt2", "CodeGenTokenizer": "gpt2", "Qwen2Tokenizer": "qwen2"}
BERT_NAMES = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
              "mask_token": "[MASK]"}  # fmt: skip


def merges_parts(folder: Path, companions: Companions, pattern: str | None) -> tuple[str, Parts]:
    """What the files are, and the parts of their tokenizer.json.

    Raises UserError if they are malformed or do not belong together, or if it is not known how a
    text is cut.
    """
    kind = companions.tokenizer_class
    if pattern is None and kind not in PATTERN_OF_CLASS:
        raise UserError(
            f"{folder} has a {kind}: how it cuts a text is not known",
            hint=f"Give --pattern {'|'.join(PATTERNS)}, or the regular expression.",
        )
    vocab = read_vocabulary(folder / "vocab.json")
    merges = read_merges(folder / "merges.txt", vocab)
    cut = find_pattern(pattern or PATTERN_OF_CLASS[kind])
    prefix_space = companions.flag("add_prefix_space", False)
    parts = byte_level_parts(vocab, merges, cut, prefix_space=prefix_space, whole_words=False)
    roles = set(companions.names.values())
    parts.added = [AddedToken(vocab[token], token, special=True) for token in sorted(roles & vocab.keys())]
    if not roles and "<|endoftext|>" in vocab:
        parts.added = [AddedToken(vocab["<|endoftext|>"], "<|endoftext|>", special=True)]
        parts.names = {"eos_token": "<|endoftext|>"} | (
            {"bos_token": "<|endoftext|>"} if kind != "Qwen2Tokenizer" else {}
        )
    return "vocab.json and merges.txt", parts


def read_vocabulary(path: Path) -> dict[str, int]:
    """Token → id of a vocab.json, checked."""
    vocab = parse_object(read_bounded(path, MAX_FILE_BYTES), path)
    check_tokens(list(vocab), path)
    for token, id_ in vocab.items():
        if type(id_) is not int or not 0 <= id_ < MAX_VOCABULARY:
            raise UserError(f"{path}: the token {token!r} has the id {str(id_)[:60]}")
    if len(set(vocab.values())) < len(vocab):
        raise UserError(f"{path} gives two tokens the same id")
    return vocab


def read_merges(path: Path, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs of a merges.txt, in their order; both halves and the whole are in `vocab`."""
    if not path.is_file():
        raise UserError(f"{path.parent} has a vocab.json, but no merges.txt, which belongs to it")
    return check_merges(_lines(path), vocab, path, first=1)


def check_merges(lines: list[str], vocab: dict[str, int], path: Path | str, *, first: int) -> list[tuple[str, str]]:
    """Pairs from lines `left right`; raises UserError naming the line (the first is `first`) that is wrong."""
    merges: list[tuple[str, str]] = []
    seen: set[tuple[str, str]] = set()
    for number, line in enumerate(lines, first):
        if not line or (number == first == 1 and line.startswith("#version")):
            continue
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise UserError(f"{path}, line {number}: {line[:60]!r} is no pair of tokens")
        unknown = [token for token in (left, right, left + right) if token not in vocab]
        if unknown:
            raise UserError(
                f"{path}, line {number}: the token {unknown[0][:60]!r} is not in the vocabulary",
                hint="Do the two files belong together?",
            )
        if (left, right) in seen:
            raise UserError(f"{path}, line {number}: the pair {line[:60]!r} is there twice")
        seen.add((left, right))
        merges.append((left, right))
    return merges


def wordpiece_parts(path: Path, companions: Companions) -> tuple[str, Parts]:
    """The parts for a vocab.txt: a token a line, its id the line's number. Raises UserError if it is malformed."""
    tokens = _lines(path)
    while tokens and not tokens[-1]:
        tokens.pop()
    check_tokens(tokens, path)
    return "WordPiece vocab.txt", wordpiece(tokens, companions, path)


def wordpiece(tokens: list[str], companions: Companions, path: Path | str) -> Parts:
    """The parts for WordPiece tokens in the order of their ids, word-internal ones marked by ##."""
    vocab = {token: index for index, token in enumerate(tokens)}
    names = {role: companions.names.get(role, token) for role, token in BERT_NAMES.items()}
    missing = [names[role] for role in ("unk_token", "sep_token", "cls_token") if names[role] not in vocab]
    if missing:
        raise UserError(f"{path} has no token {missing[0]!r}, which a WordPiece vocabulary needs")
    lower = companions.flag("do_lower_case", True)
    accents = companions.config.get("strip_accents")
    model: dict[str, Any] = {"type": "WordPiece", "unk_token": names["unk_token"], "continuing_subword_prefix": "##",
                             "max_input_chars_per_word": 100, "vocab": vocab}  # fmt: skip
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": companions.flag("tokenize_chinese_chars", True),
        "strip_accents": accents if isinstance(accents, bool) else None,
        "lowercase": lower,
    }
    cls, sep = names["cls_token"], names["sep_token"]
    ids = {cls: vocab[cls], sep: vocab[sep]}
    parts = Parts(
        model, normalizer, {"type": "BertPreTokenizer"}, {"type": "WordPiece", "prefix": "##", "cleanup": True}
    )
    parts.names = {role: token for role, token in names.items() if token in vocab}
    parts.added = [AddedToken(vocab[token], token, special=True) for token in parts.names.values()]
    parts.post_processor = template([cls, "$A", sep], [cls, "$A", sep, "$B", sep], ids)
    return parts


def _lines(path: Path) -> list[str]:
    try:
        return read_bounded(path, MAX_FILE_BYTES).decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from None
