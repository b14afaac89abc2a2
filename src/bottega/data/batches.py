"""Rows of tokens for training, from memory-mapped shards.

The order of data is a pure function of (seed, row index): documents are packed into rows
once, and every epoch visits these rows in its own order. So a run that stopped at any row
goes on from there without replaying anything, and two processes that ask for different
rows agree on what they are. Only lengths are kept in memory; tokens are gathered on demand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from bottega.core.errors import UserError
from bottega.data.packing import pack
from bottega.data.spec import Shard, TokensSpec


@dataclass(frozen=True)
class Row:
    """Whole documents (or pieces of long ones), one after the other, without padding.

    tokens: int64, (n,). mask: bool, (n,): True where the model is trained to produce the
    token (for text, everywhere). lengths: of each document; their sum is n. The first token
    of a document has nothing before it and can never be predicted.
    """

    tokens: np.ndarray
    mask: np.ndarray
    lengths: list[int]


class Batches:
    """The packed rows of a tokens folder; each epoch has every piece exactly once.

    A document longer than `row_length` is cut into pieces of it. A conversation is not cut,
    but truncated (`truncated` counts them), or dropped if no trained token would be left
    (`dropped`): an answer without its question teaches the wrong thing.
    Raises UserError if the folder is no valid tokens folder, or holds nothing to train on.
    """

    def __init__(self, folder: Path, *, row_length: int, seed: int) -> None:
        if row_length < 2:
            raise UserError(f"rows of {row_length} tokens are too short", hint="Use at least 2.")
        self.folder, self.row_length, self.seed = folder, row_length, seed
        self.spec = TokensSpec.read(folder)
        if self.spec.form not in ("text", "chat"):
            raise UserError(f"{folder} holds {self.spec.form}, no rows to train on", hint="Prepare kind text or chat.")
        self.truncated = self.dropped = 0
        self._tokens = [_map(shard.tokens) for shard in self.spec.shards]
        self._masks = [_map(shard.mask) for shard in self.spec.shards if shard.mask]
        pieces = [self._pieces(shard, index) for index, shard in enumerate(self.spec.shards)]
        if not sum(len(lengths) for _, lengths in pieces):
            raise UserError(f"{folder} holds nothing to train on", hint="Its manifest.json says why.")
        self._shard = np.repeat(np.arange(len(pieces)), [len(lengths) for _, lengths in pieces])
        self._start = np.concatenate([starts for starts, _ in pieces])
        self._length = np.concatenate([lengths for _, lengths in pieces])
        self._order, self._row_start = pack(self._length, row_length, seed)
        self._permutation = lru_cache(maxsize=2)(self._draw)

    @property
    def epoch_rows(self) -> int:
        """Rows in an epoch; the same for every epoch."""
        return len(self._row_start) - 1

    @property
    def epoch_tokens(self) -> int:
        """Tokens in an epoch."""
        return int(self._length.sum())

    @property
    def fill(self) -> float:
        """Mean share of `row_length` that rows fill, 0 to 1."""
        return self.epoch_tokens / (self.epoch_rows * self.row_length)

    def rows(self, start: int, count: int) -> list[Row]:
        """Rows start … start + count - 1; the index goes on across epochs without end."""
        if start < 0 or count < 0:
            raise ValueError(f"rows({start}, {count})")
        return [self._row(index) for index in range(start, start + count)]

    def _draw(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 1, epoch]).permutation(self.epoch_rows)

    def _row(self, index: int) -> Row:
        epoch, position = divmod(index, self.epoch_rows)
        row = self._permutation(epoch)[position]
        pieces = self._order[self._row_start[row] : self._row_start[row + 1]]
        spans = [(self._shard[p], self._start[p], self._start[p] + self._length[p]) for p in pieces]
        tokens = np.concatenate([self._tokens[shard][start:end] for shard, start, end in spans]).astype(np.int64)
        if tokens.max() >= self.spec.vocab_size:
            raise UserError(f"{self.folder} holds token {tokens.max()}, its vocabulary ends at {self.spec.vocab_size}")
        if self.spec.chat:
            mask = np.concatenate([self._masks[shard][start:end] for shard, start, end in spans]).astype(bool)
        else:
            mask = np.ones(len(tokens), bool)
        return Row(tokens, mask, self._length[pieces].tolist())

    def _pieces(self, shard: Shard, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Starts and lengths (both int64, (pieces,)) of one shard's pieces."""
        offsets = np.asarray(_map(shard.offsets))
        lengths = np.diff(offsets)
        if offsets[0] != 0 or offsets[-1] != shard.token_count or (lengths < 0).any():
            raise UserError(f"{shard.offsets} does not cut {shard.token_count} tokens into documents")
        return self._truncate(index, offsets, lengths) if self.spec.chat else self._cut(offsets, lengths)

    def _cut(self, offsets: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = -(-lengths // self.row_length)
        document = np.repeat(np.arange(len(lengths)), counts)
        number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        inside = number * self.row_length
        return offsets[document] + inside, np.minimum(lengths[document] - inside, self.row_length)

    def _truncate(self, index: int, offsets: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keep = lengths > 0
        for document in np.flatnonzero(lengths > self.row_length):
            start = offsets[document]
            # The first token cannot be predicted, so a mask on it alone trains nothing.
            keep[document] = bool(self._masks[index][start + 1 : start + self.row_length].any())
            self.truncated += int(keep[document])
            self.dropped += int(not keep[document])
        return offsets[:-1][keep], np.minimum(lengths[keep], self.row_length)


def _map(path: Path) -> np.ndarray:
    """The array, memory-mapped; never unpickled."""
    return np.load(path, mmap_mode="r", allow_pickle=False)
