"""Near-duplicates across the split: training blocks that a held-out block resembles.

MinHash (Broder 1997) with locality-sensitive banding finds candidates: of PERMUTATIONS =
BANDS × ROWS hash minima, two blocks must agree on all ROWS of one band. A pair of Jaccard
similarity s is found with probability 1 - (1 - s^ROWS)^BANDS: 99.86 % at s = 0.7, 99.999 %
at 0.8. Candidates are then verified with the true similarity, so precision is exact.
Only the held-out side is indexed, so memory does not grow with the training text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

import numpy as np

THRESHOLD = 0.7
SHINGLE = 5
MIN_WORDS = 12
"""Blocks of fewer words say too little for a similarity of shingles to mean anything."""
BANDS, ROWS = 24, 4
PERMUTATIONS = BANDS * ROWS
_WORD = re.compile(r"\w+")
_RANDOM = np.random.default_rng(20_97)
# Multiply-shift hashing (Dietzfelbinger et al. 1997): odd factors; the upper half of the product is used.
_FACTORS = _RANDOM.integers(0, 2**64, PERMUTATIONS, dtype=np.uint64, endpoint=False) | np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 2**64, PERMUTATIONS, dtype=np.uint64, endpoint=False)
_MIX = _RANDOM.integers(0, 2**64, (BANDS, ROWS), dtype=np.uint64, endpoint=False) | np.uint64(1)
_PLACES = _RANDOM.integers(0, 2**64, SHINGLE, dtype=np.uint64, endpoint=False) | np.uint64(1)


@lru_cache(maxsize=2**18)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")


def shingles(text: str) -> np.ndarray:
    """Sorted 64-bit hashes of the distinct runs of five words (case ignored), uint64, (n,).

    Empty for a text of fewer than MIN_WORDS words.
    """
    words = _WORD.findall(text.lower())
    if len(words) < MIN_WORDS:
        return np.empty(0, np.uint64)
    hashes = np.fromiter(map(_word_hash, words), np.uint64, len(words))
    count = len(words) - SHINGLE + 1
    mixed = np.zeros(count, np.uint64)
    for place, factor in enumerate(_PLACES):
        mixed += hashes[place : place + count] * factor
    mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Size of the intersection over size of the union of two sorted arrays of distinct hashes."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common) if common else 0.0


def band_keys(sets: list[np.ndarray]) -> np.ndarray:
    """Keys of each block's bands, uint64, (blocks, BANDS), from its non-empty set of shingles."""
    flat = np.concatenate(sets)
    starts = np.cumsum([0, *(len(s) for s in sets[:-1])])
    minima = np.empty((PERMUTATIONS, len(sets)), np.uint64)
    for row, (factor, offset) in enumerate(zip(_FACTORS, _OFFSETS, strict=True)):
        minima[row] = np.minimum.reduceat((flat * factor + offset) >> np.uint64(32), starts)
    banded = minima.reshape(BANDS, ROWS, len(sets)) * _MIX[:, :, None]
    keys = banded.sum(axis=1, dtype=np.uint64)
    keys ^= keys >> np.uint64(31)
    # Equal minima in different bands must not meet.
    return (keys + np.arange(BANDS, dtype=np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)).T


@dataclass
class HeldoutIndex:
    """Blocks of the held-out side, by the keys of their bands."""

    _sets: list[np.ndarray] = field(default_factory=list)
    _keys: list[np.ndarray] = field(default_factory=list)
    _table: dict[int, list[int]] = field(default_factory=dict)
    _sorted: np.ndarray | None = None

    def add(self, blocks: Iterable[str]) -> None:
        """Index the blocks of one held-out document."""
        sets = [found for block in blocks if len(found := shingles(block))]
        if sets:
            self._keys.append(band_keys(sets))
            self._sets += sets
            self._sorted = None

    def find(self, blocks: list[str]) -> list[int]:
        """Numbers of those `blocks` that resemble a held-out block, ascending."""
        numbers, sets = [], []
        for number, block in enumerate(blocks):
            found = shingles(block)
            if len(found):
                numbers.append(number)
                sets.append(found)
        if not sets or not self._sets:
            return []
        keys = band_keys(sets)
        table = self._build()
        assert self._sorted is not None
        at = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        hits = self._sorted[at] == keys
        matched = []
        for row in np.flatnonzero(hits.any(axis=1)):
            candidates = {block for key in keys[row][hits[row]] for block in table[int(key)]}
            if any(jaccard(sets[row], self._sets[block]) >= THRESHOLD for block in sorted(candidates)):
                matched.append(numbers[row])
        return matched

    def _build(self) -> dict[int, list[int]]:
        if self._sorted is None:
            keys = np.concatenate(self._keys)
            self._table = {}
            for block, row in enumerate(keys.tolist()):
                for key in row:
                    self._table.setdefault(key, []).append(block)
            self._sorted = np.unique(keys)
        return self._table
