"""tiktoken's rank files: a token a line, in base64, and its rank, which is its id.

The merges are not written down: two neighbours are joined if their joint bytes are a token,
the lowest rank first. Neither are the pattern and the special tokens, which tiktoken has in
its code; here they go by the number of ranks, or the file's name.
Source: github.com/openai/tiktoken (load.py, openai_public.py); for Llama 3, the tokenizer of
github.com/meta-llama/llama-models.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from pathlib import Path

from bottega.core.errors import UserError
from bottega.tokenizer.foreign.byte_level import byte_level_parts, written
from bottega.tokenizer.foreign.companions import AddedToken, Companions
from bottega.tokenizer.foreign.limits import MAX_TOKEN_BYTES, MAX_VOCABULARY
from bottega.tokenizer.foreign.merges import splits
from bottega.tokenizer.foreign.parts import Parts
from bottega.tokenizer.foreign.patterns import PATTERNS, find_pattern

_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d{1,9}\r?$")
_END = "<|endoftext|>"


@dataclass(frozen=True)
class Encoding:
    """What tiktoken knows of a vocabulary beside its ranks."""

    name: str
    pattern: str
    ranks: int
    special: dict[str, int]
    roles: dict[str, str] = field(default_factory=dict)


def _llama3_special() -> dict[str, int]:
    named = {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 4: "<|finetune_right_pad_id|>", 6: "<|start_header_id|>",
             7: "<|end_header_id|>", 8: "<|eom_id|>", 9: "<|eot_id|>", 10: "<|python_tag|>"}  # fmt: skip
    reserved = (f"<|reserved_special_token_{index}|>" for index in range(256))
    return {named.get(place) or next(reserved): 128_000 + place for place in range(256)}


ENCODINGS = (
    Encoding("r50k_base", "gpt2", 50_256, {_END: 50_256}, {"eos_token": _END}),
    Encoding("p50k_base", "gpt2", 50_280, {_END: 50_256}, {"eos_token": _END}),
    Encoding("cl100k_base", "cl100k", 100_256, {_END: 100_257, "<|fim_prefix|>": 100_258, "<|fim_middle|>": 100_259,
             "<|fim_suffix|>": 100_260, "<|endofprompt|>": 100_276}, {"eos_token": _END}),
    Encoding("o200k_base", "o200k", 199_998, {_END: 199_999, "<|endofprompt|>": 200_018}, {"eos_token": _END}),
    Encoding("llama3", "llama3", 128_000, _llama3_special(),
             {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}),
    Encoding("qwen", "qwen2", 151_643, {_END: 151_643, "<|im_start|>": 151_644, "<|im_end|>": 151_645}
             | {f"<|extra_{index}|>": 151_646 + index for index in range(205)}, {"eos_token": _END}),
)  # fmt: skip


def looks_like(content: bytes) -> bool:
    """Whether the file begins as a rank file does."""
    return _LINE.match(content[: content.find(b"\n") + 1 or None].rstrip(b"\n")) is not None


def rank_parts(content: bytes, path: Path, companions: Companions, pattern: str | None) -> tuple[str, Parts]:
    """What the file is, and the parts of its tokenizer.json.

    `pattern` is a name or a regular expression; without one it goes by the number of ranks and the
    file's name. Raises UserError if the file is malformed or nothing tells how its text is cut.
    """
    ranks = read_ranks(content, path)
    encoding = next((e for e in ENCODINGS if e.name in path.name or e.ranks == len(ranks)), None)
    if encoding is None and pattern is None:
        raise UserError(
            f"{path} has {len(ranks):,} ranks, which is none of the known vocabularies: how a text is cut is not told",
            hint=f"Give --pattern {'|'.join(PATTERNS)}, or the regular expression.",
        )
    cut = find_pattern(pattern or (encoding.pattern if encoding else ""))
    special = encoding.special if encoding and not companions.added else {}
    _check_ranks(ranks, set(special.values()) | {token.id for token in companions.added}, path)
    vocab = {written(token): rank for token, rank in sorted(ranks.items(), key=lambda item: item[1])}
    parts = byte_level_parts(
        vocab,
        splits([token for token in vocab if len(token) > 1], vocab),
        cut,
        added=[AddedToken(id_, token, special=True) for token, id_ in special.items()],
        whole_words=True,
    )
    parts.names = encoding.roles if encoding else {}
    return f"tiktoken ranks ({encoding.name if encoding else 'own'})", parts


def read_ranks(content: bytes, path: Path) -> dict[bytes, int]:
    """Token → rank; raises UserError naming the line that is wrong."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        if not _LINE.match(line):
            raise UserError(f"{path}, line {number} is no token in base64 and its rank")
        encoded, rank = line.split()
        try:
            token = binascii.a2b_base64(encoded, strict_mode=True)
        except binascii.Error as error:
            raise UserError(f"{path}, line {number} is not base64: {error}") from None
        if token in ranks:
            raise UserError(f"{path}, line {number}: the token {token!r} is there twice")
        if not 0 < len(token) <= MAX_TOKEN_BYTES or len(ranks) == MAX_VOCABULARY:
            raise UserError(f"{path}, line {number}: more than any vocabulary has")
        ranks[token] = int(rank)
    return ranks


def _check_ranks(ranks: dict[bytes, int], elsewhere: set[int], path: Path) -> None:
    """Raise UserError unless the ranks are one for each token, without a gap that no other token fills."""
    taken = set(ranks.values())
    if len(taken) < len(ranks):
        raise UserError(f"{path} gives two tokens the same rank")
    gaps = set(range(len(ranks))) - taken - elsewhere
    if gaps:
        raise UserError(f"{path} has no token of rank {min(gaps)}, but tokens of higher rank: is it complete?")
    missing = sum(bytes([byte]) not in ranks for byte in range(256))
    if missing:
        raise UserError(f"{path} has no tokens for {missing} of the 256 bytes, so it cannot write every text")
