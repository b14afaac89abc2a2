"""SentencePiece's compiled normalisation rules (`precompiled_charsmap`), as steps of a `tokenizer.json`.

The file format is a 32-bit size, a double-array trie of that size (darts-clone), and the
replacements, each ended by a zero byte. Normalising walks over the text and replaces the
longest key of the trie that begins there.

The `Precompiled` step of the tokenizers library reads the same bytes, but works on grapheme
clusters: it takes the shortest key that begins one, and replaces the whole cluster by it, so
accents get lost. Here it is only ever shown single characters:

1. a mark is put around every character that could be part of a cluster or of a longer key;
2. `Precompiled` replaces each character by itself;
3. the mark is taken out again inside what was a longer key, and
4. NFC composes there (the longer keys of real models are canonical compositions: a letter and
   its accents, the parts of a Hangul syllable), and only there;
5. the other marks are taken out.

A few longer keys are younger than the library's Unicode tables (Dives Akuru, Kirat Rai, Gurung
Khema, Tulu-Tigalari). They are replaced one by one before all else, the longest first, which
differs from the walk only where two of them overlap.
"""

from __future__ import annotations

import base64
import math
import re
import struct
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from bottega.tokenizer.foreign.steps import replace

# Real ones: 226,000 rules, 300,000 nodes, keys of 12 bytes and replacements of 33.
MAX_RULES, MAX_NODES = 500_000, 2_000_000
MAX_KEY_BYTES = MAX_REPLACEMENT_BYTES = 128
MAX_OTHERS = 64
# Two code points that are not assigned, of which the first never joins a cluster: no text has this pair.
MARK = "\ufff8\ufff7"
# Characters that form no cluster with each other: printable ASCII, letters of common scripts, kana, ideographs.
_SIMPLE = ((0x20, 0x7E), (0xC0, 0x24F), (0x391, 0x3C9), (0x400, 0x481), (0x48A, 0x52F), (0x5D0, 0x5EA), (0x621, 0x63A),
           (0x641, 0x64A), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3))  # fmt: skip
# Where the characters are that NFC changes although they stand alone.
_UNSTABLE = ((0x340, 0x387), (0x958, 0xFB9), (0x1F71, 0x1FFD), (0x2000, 0x2001), (0x2126, 0x212B), (0x2329, 0x232A),
             (0x2ADC, 0x2ADC), (0xF900, 0xFB4E), (0x1D15E, 0x1D1C0), (0x2F800, 0x2FA1D))  # fmt: skip
Keys = tuple[str, ...]


class CharsmapError(ValueError):
    """The bytes are no compiled rules."""


def rules_of(charsmap: bytes) -> dict[str, str]:
    """Every rule: what is replaced → by what. Raises CharsmapError."""
    if len(charsmap) < 4:
        raise CharsmapError("it ends before its size")
    (size,) = struct.unpack_from("<I", charsmap)
    if size % 4 or not 4 <= size <= len(charsmap) - 4:
        raise CharsmapError(f"a trie of {size} bytes in {len(charsmap)}")
    units = struct.unpack_from(f"<{size // 4}I", charsmap, 4)
    replacements = charsmap[4 + size :]
    rules: dict[str, str] = {}
    try:
        for key, value in _entries(units):
            end = replacements.find(b"\0", value, value + MAX_REPLACEMENT_BYTES)
            if end < 0:
                raise CharsmapError(f"a replacement at {value} of {len(replacements)} does not end")
            rules[key.decode("utf-8")] = replacements[value:end].decode("utf-8")
            if len(rules) > MAX_RULES:
                raise CharsmapError(f"more than {MAX_RULES:,} rules")
    except UnicodeDecodeError as error:
        raise CharsmapError(f"a rule is not UTF-8: {error}") from None
    return rules


def _entries(units: tuple[int, ...]) -> Iterator[tuple[bytes, int]]:
    """(key, value) of a darts-clone trie. A unit has a label, the offset of its children, or a value."""
    children: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for at, unit in enumerate(units):
        label = unit & 0x800000FF
        if 0 < label < 256:
            children[at ^ label].append((label, at))
    if not units:
        return
    stack = [(_offset(units[0]), b"")]
    steps = 0
    while stack:
        node, key = stack.pop()
        for label, at in children.get(node, ()):
            steps += 1
            if steps > MAX_NODES or len(key) >= MAX_KEY_BYTES:
                raise CharsmapError("its trie has no end")
            below, longer = at ^ _offset(units[at]), key + bytes([label])
            if units[at] >> 8 & 1:
                if below >= len(units):
                    raise CharsmapError("its trie points out of itself")
                yield longer, units[below] & 0x7FFFFFFF
            stack.append((below, longer))


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 0x200) >> 6)


def normalizer_steps(charsmap: bytes) -> tuple[list[dict[str, Any]], int]:
    """The normalizers of a tokenizer.json that apply the rules, and how many of the rules they do not follow.

    Raises CharsmapError.
    """
    rules = rules_of(charsmap)
    single = {key: value for key, value in rules.items() if len(key) == 1}
    compositions, others = _sort(rules, single)
    followed = len(others) <= MAX_OTHERS
    steps = [replace(re.escape(key), rules[key]) for key in sorted(others, key=len, reverse=True) if followed]
    simple = _class(_without(_SIMPLE, single))
    # A mark before and after each character that is not simple, and before one that such a character follows.
    # (Not at the very beginning: the library cannot insert there.)
    steps.append(replace(rf"(?!\A)(?:(?=(?m:.)?[^{simple}])|(?<=[^{simple}]))", MARK))
    steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode("ascii")})
    if compositions:
        steps += [replace(_inside(compositions), ""), {"type": "NFC"}]
    steps.append(replace(MARK, "", literal=True))
    changed = _changed_by_nfc(single) if compositions else 0
    return steps, changed + (0 if followed else len(others))


def _sort(rules: dict[str, str], single: dict[str, str]) -> tuple[set[Keys], list[str]]:
    """The longer keys: what is composed (as it looks when each character is replaced), and the keys that are not."""
    sources = Counter(single.values())
    keys: dict[Keys, list[str]] = defaultdict(list)
    for key in rules:
        if len(key) > 1:
            keys[tuple(single.get(character, character) for character in key)].append(key)

    def composes(parts: Keys) -> bool:
        # Whatever looks like these parts must be a key, and what NFC makes of them its replacement.
        count = math.prod(sources[part] + (part not in single) for part in parts)
        composed = unicodedata.normalize("NFC", "".join(parts))
        same = all(rules[key] == composed for key in keys[parts]) and not _is_young(composed)
        return same and count == len(keys[parts]) and all(len(part) == 1 for part in parts)

    compositions = {parts for parts in keys if composes(parts)}
    firsts = {parts[0] for parts in compositions}
    # Where a mark is taken out depends on the parts before it alone, so no part may begin another key.
    compositions = {parts for parts in compositions if firsts.isdisjoint(parts[1:])}
    compositions = {parts for parts in compositions if all(parts[:end] in compositions for end in range(2, len(parts)))}
    return compositions, [key for parts in keys.keys() - compositions for key in keys[parts]]


def _is_young(text: str) -> bool:
    """Whether it is a composition that Unicode got after version 10."""
    return any(0x11380 <= ord(character) < 0x11400 or ord(character) >= 0x11900 for character in text)


def _changed_by_nfc(single: dict[str, str]) -> int:
    """How many characters that stand alone NFC would change against the rules."""
    alone = (chr(code) for low, high in _UNSTABLE for code in range(low, high + 1))
    kept = [character for character in alone if character not in single] + list(single.values())
    return sum(not unicodedata.is_normalized("NFC", text) for text in kept)


def _inside(compositions: set[Keys]) -> str:
    """A pattern for the marks inside a composition: between one or more of its parts and the next."""
    alternatives: list[str] = []
    for length in sorted({len(key) for key in compositions}):
        for *before, last in _products({key for key in compositions if len(key) == length}):
            seen = MARK.join(_set(part) for part in before)
            alternatives.append(rf"(?<=\A{seen}{MARK}|{MARK}{seen}{MARK})(?={_set(last)}{MARK})")
    lasts = {key[-1] for key in compositions}
    return f"{MARK}(?={_set(lasts)})(?:{'|'.join(alternatives)})"


def _products(keys: set[Keys]) -> list[tuple[frozenset[str], ...]]:
    """The keys as few products of sets of characters (the Hangul syllables are one)."""
    products = {tuple(frozenset(part) for part in key) for key in keys}
    for place in range(len(next(iter(products)))):
        merged: dict[tuple[frozenset[str], ...], frozenset[str]] = defaultdict(frozenset)
        for product in products:
            merged[product[:place] + product[place + 1 :]] |= product[place]
        products = {(*rest[:place], union, *rest[place:]) for rest, union in merged.items()}
    return sorted(products, key=lambda product: [sorted(part) for part in product])


def _set(characters: Iterable[str]) -> str:
    """A character class."""
    codes = sorted(map(ord, characters))
    ranges: list[tuple[int, int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return f"[{_class(ranges)}]"


def _class(ranges: Iterable[tuple[int, int]]) -> str:
    """The inside of a character class."""
    parts = (f"\\x{{{low:X}}}" + (f"-\\x{{{high:X}}}" if high > low else "") for low, high in ranges)
    return "".join(parts)


def _without(ranges: Iterable[tuple[int, int]], left_out: Iterable[str]) -> list[tuple[int, int]]:
    """The ranges without some characters."""
    cuts = sorted(map(ord, left_out))
    result: list[tuple[int, int]] = []
    for low, high in ranges:
        for code in cuts:
            if low <= code <= high:
                if low < code:
                    result.append((low, code - 1))
                low = code + 1
        if low <= high:
            result.append((low, high))
    return result
