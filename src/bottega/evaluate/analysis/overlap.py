"""Which n-grams of many small texts stand in a large one: the small ones are kept, the large one streams by.

Every word of the small texts gets a random 64-bit value v, and an n-gram the hash Σ_k m_k · v(w_k) mod 2⁶⁴ with random
odd m_k (multilinear hashing: Lemire and Kaser 2014), which a window over the large text has by n multiplications of
whole arrays. A window with a word that no small text has is none of theirs. Two n-grams are confused with a chance of
about 2⁻⁶⁴ for each pair; memory is that of the small texts, 25 bytes for each n-gram. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from bottega.evaluate.analysis.words import words

BATCH = 1 << 18
"""Words that are looked up together."""
TABLE_BITS = 22
SEED = 20
Numbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Passage:
    """A piece of the large text: where it is, and whether it goes on where the passage before it ended.

    `first_line` is its first line's number in the file, None if the name alone is the place.
    """

    name: str
    text: str
    first_line: int | None = None
    continues: bool = False

    def place(self, word: int) -> str:
        """`name:line` of a word, counted from 0."""
        if self.first_line is None:
            return self.name
        return f"{self.name}:{self.first_line + int(np.searchsorted(self._words_before, word, side='right'))}"

    @cached_property
    def _words_before(self) -> Numbers:
        """How many words there are up to the end of each line."""
        return np.cumsum([len(words(line)) for line in self.text.split("\n")])


Record = tuple[int, Passage]
"""Where in a batch a passage's first word stands (before its beginning, where the batch begins within it)."""


@dataclass
class _Keys:
    """The distinct n-grams of one length: hashes in order, whether each was seen, and whose it is.

    `owners[starts[k] : starts[k + 1]]` are the texts that have the n-gram k; `table` is True where the upper bits of
    one of the hashes point, so that almost every other hash is passed over at once.
    """

    hashes: Hashes
    seen: NDArray[np.bool_]
    starts: Numbers
    owners: Numbers
    table: NDArray[np.bool_]


class Overlap:
    """The n-grams of texts (each in parts, lists of words), and which of them have been seen.

    A part shorter than `size` is one n-gram as a whole if it has `shortest` words, and else none.
    """

    def __init__(self, texts: Sequence[Sequence[Sequence[str]]], size: int, shortest: int) -> None:
        self.size = size
        generator = np.random.default_rng(SEED)
        self._multipliers = generator.integers(0, 1 << 64, size, dtype=np.uint64) | np.uint64(1)
        self._numbers: dict[str, int] = {}
        found: dict[int, list[tuple[int, list[int]]]] = {}
        for owner, parts in enumerate(texts):
            for part in parts:
                if len(part) >= shortest:
                    ids = [self._numbers.setdefault(word, len(self._numbers) + 1) for word in part]
                    found.setdefault(min(size, len(part)), []).append((owner, ids))
        self._values = generator.integers(0, 1 << 64, len(self._numbers) + 1, dtype=np.uint64)
        self._keys = {length: self._keys_of(parts, length) for length, parts in sorted(found.items())}
        self.totals = self._counted(len(texts), only_seen=False)
        """Distinct n-grams of each text."""
        self.places: list[str | None] = [None] * len(texts)
        """Where the first of a text's n-grams was seen first."""

    def found(self) -> Numbers:
        """How many of each text's distinct n-grams were seen."""
        return self._counted(len(self.places), only_seen=True)

    def scanned(self, passages: Iterable[Passage]) -> Iterator[Passage]:
        """Look for all n-grams in the passages, and from one into the next that continues it; gives each on."""
        pieces: list[Numbers] = []
        records: list[Record] = []
        count = 0
        for passage in passages:
            ids = self._ids(passage.text)
            if not passage.continues:
                pieces.append(np.zeros(1, dtype=np.int64))  # nothing reaches over the end of a document
                count += 1
            records.append((count, passage))
            pieces.append(ids)
            count += len(ids)
            if count >= BATCH:
                batch = np.concatenate(pieces)
                self._look_up(batch, records)
                kept = min(self.size - 1, count)
                records = [(begin - count + kept, each) for begin, each in records]
                records = records[max((n for n, (begin, _) in enumerate(records) if begin <= 0), default=0) :]
                pieces, count = [batch[count - kept :]], kept
            yield passage
        if pieces:
            self._look_up(np.concatenate(pieces), records)

    def _ids(self, text: str) -> Numbers:
        """The words' numbers, 0 for those that no text has."""
        found = words(text)
        return np.fromiter(map(self._numbers.get, found, repeat(0)), dtype=np.int64, count=len(found))

    def _keys_of(self, parts: Sequence[tuple[int, list[int]]], length: int) -> _Keys:
        owners, hashes = [], []
        for owner, ids in parts:
            own = self._hashes(np.array(ids, dtype=np.int64), length)
            hashes.append(own)
            owners.append(np.full(len(own), owner, dtype=np.int64))
        # np.unique of pairs: an n-gram that a text has twice counts once.
        whose, which = np.concatenate(owners), np.concatenate(hashes)
        order = np.lexsort((whose, which))
        whose, which = whose[order], which[order]
        fresh = np.ones(len(which), dtype=np.bool_)
        fresh[1:] = (which[1:] != which[:-1]) | (whose[1:] != whose[:-1])
        whose, which = whose[fresh], which[fresh]
        keys, starts = np.unique(which, return_index=True)
        table = np.zeros(1 << TABLE_BITS, dtype=np.bool_)
        table[keys >> np.uint64(64 - TABLE_BITS)] = True
        return _Keys(keys, np.zeros(len(keys), dtype=np.bool_), np.append(starts, len(which)), whose, table)

    def _hashes(self, ids: Numbers, length: int) -> Hashes:
        """The hash of every window of `length`."""
        values, count = self._values[ids], len(ids) - length + 1
        total = np.zeros(count, dtype=np.uint64)
        for place in range(length):
            total += self._multipliers[place] * values[place : place + count]
        return total

    def _look_up(self, ids: Numbers, records: Sequence[Record]) -> None:
        for start in range(0, len(ids), BATCH):
            self._look_up_part(ids[start : start + BATCH + self.size - 1], start, records)

    def _look_up_part(self, ids: Numbers, start: int, records: Sequence[Record]) -> None:
        values = self._values[ids]
        unknown = np.concatenate([[0], np.cumsum(ids == 0)])
        hashes = np.zeros(len(ids), dtype=np.uint64)
        for place in range(min(max(self._keys, default=0), len(ids))):
            length, count = place + 1, len(ids) - place
            hashes[:count] += self._multipliers[place] * values[place:]
            keys = self._keys.get(length)
            if keys is None:
                continue
            windows = hashes[:count]
            likely = keys.table[windows >> np.uint64(64 - TABLE_BITS)] & (unknown[length:] == unknown[:-length])
            self._mark(keys, np.flatnonzero(likely), windows, start, records)

    def _mark(
        self,
        keys: _Keys,
        likely: Numbers,
        windows: Hashes,
        start: int,
        records: Sequence[Record],
    ) -> None:
        """Note the n-grams that are seen for the first time, and where."""
        which = np.searchsorted(keys.hashes, windows[likely])
        which[which == len(keys.hashes)] = 0
        hit = keys.hashes[which] == windows[likely]
        for key, first in zip(*np.unique(which[hit], return_index=True), strict=True):
            if keys.seen[key]:
                continue
            keys.seen[key] = True
            for owner in keys.owners[keys.starts[key] : keys.starts[key + 1]]:
                if self.places[owner] is None:
                    self.places[owner] = _place(records, start + int(likely[hit][first]))

    def _counted(self, texts: int, *, only_seen: bool) -> Numbers:
        total = np.zeros(texts, dtype=np.int64)
        for keys in self._keys.values():
            chosen = np.repeat(keys.seen, np.diff(keys.starts)) if only_seen else slice(None)
            total += np.bincount(keys.owners[chosen], minlength=texts)
        return total


def _place(records: Sequence[Record], position: int) -> str:
    begin, passage = [record for record in records if record[0] <= position][-1]
    return passage.place(position - begin)
