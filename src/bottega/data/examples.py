"""Examples of preference, labelled and prompt data, from memory-mapped shards.

Which examples a step takes is a pure function of (seed, step, how many a step takes): every epoch
is a permutation of its own, so a run that stopped at any step goes on from there without replaying
anything. Only lengths are kept in memory; tokens and rows are read when they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bottega.core.errors import UserError
from bottega.data.spec import EXAMPLES_FILE, TokensSpec


@dataclass(frozen=True)
class Document:
    """tokens: int64, (T,). mask: bool, (T,), True where the model is trained to produce the token."""

    tokens: np.ndarray
    mask: np.ndarray


class Examples:
    """The examples of a tokens folder (form pairs, labelled, prompts or chat) that fit into `row_length`.

    A document longer than `row_length` is cut at its end (`truncated` counts the examples). An example
    is left out (`dropped`) if that leaves nothing to train on in one of its documents, if it makes the
    two of a pair the same, and if it cuts a prompt: `count` examples remain, numbered 0 … count - 1.
    Raises UserError if the folder is no valid tokens folder, or nothing remains.
    """

    def __init__(self, folder: Path, *, row_length: int, seed: int) -> None:
        if row_length < 2:
            raise UserError(f"rows of {row_length} tokens are too short", hint="Use at least 2.")
        self.folder, self.row_length, self.seed = folder, row_length, seed
        self.spec = TokensSpec.read(folder)
        if self.spec.form == "text":
            raise UserError(f"{folder} holds text, not examples", hint="Prepare another kind than text.")
        self.per_example = 2 if self.spec.form == "pairs" else 1
        self._tokens = [_map(shard.tokens) for shard in self.spec.shards]
        self._masks = [_map(shard.mask) for shard in self.spec.shards if shard.mask]
        self._shard, self._start, self._length = self._documents()
        self._rows = _Lines(folder / EXAMPLES_FILE, self.spec.examples) if self.spec.form != "chat" else None
        self.truncated = self.dropped = 0
        self._kept = self._keep()
        self.count = len(self._kept)
        if not self.count:
            raise UserError(
                f"{folder} holds nothing that can be used"
                + (f": none of {self.dropped} examples fits into {row_length} tokens" if self.dropped else ""),
                hint="Raise row_length." if self.dropped else "Its manifest.json says why.",
            )
        self._permutation = lru_cache(maxsize=2)(self._draw)

    def indices(self, step: int, n: int) -> list[int]:
        """The examples of step `step` (from 0) of a run that takes `n` a step; epochs follow on without a gap."""
        if step < 0 or n < 1:
            raise ValueError(f"indices({step}, {n})")
        return self.order(step * n, n)

    def order(self, start: int, n: int) -> list[int]:
        """`n` examples from place `start` of the endless order on, for runs whose steps differ in size."""
        places = (divmod(place, self.count) for place in range(start, start + n))
        return [int(self._permutation(epoch)[position]) for epoch, position in places]

    def documents(self, i: int) -> list[Document]:
        """The documents of example `i`: [chosen, rejected] of a pair, else one."""
        example = self._kept[i]
        return [self._document(example * self.per_example + part) for part in range(self.per_example)]

    def row(self, i: int) -> dict[str, Any]:
        """What `examples.jsonl` says of example `i`; of chat, nothing."""
        return self._rows.read(int(self._kept[i])) if self._rows else {}

    def lengths(self, i: int) -> list[int]:
        """Tokens of each document of example `i`, as `documents` gives them."""
        first = self._kept[i] * self.per_example
        return np.minimum(self._length[first : first + self.per_example], self.row_length).tolist()

    def _draw(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 2, epoch]).permutation(self.count)

    def _document(self, index: int) -> Document:
        shard, start = self._shard[index], self._start[index]
        end = start + min(self._length[index], self.row_length)
        tokens = self._tokens[shard][start:end].astype(np.int64)
        if tokens.max(initial=0) >= self.spec.vocab_size:
            raise UserError(f"{self.folder} holds token {tokens.max()}, its vocabulary ends at {self.spec.vocab_size}")
        return Document(tokens, self._masks[shard][start:end].astype(bool))

    def _documents(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shard, start and length (int64, (documents,)) of every document."""
        starts: list[np.ndarray] = [np.empty(0, np.int64)]
        lengths: list[np.ndarray] = [np.empty(0, np.int64)]
        for shard in self.spec.shards:
            offsets = np.asarray(_map(shard.offsets))
            sizes = np.diff(offsets)
            if offsets[0] != 0 or offsets[-1] != shard.token_count or (sizes < 0).any():
                raise UserError(f"{shard.offsets} does not cut {shard.token_count} tokens into documents")
            starts.append(offsets[:-1])
            lengths.append(sizes)
        numbers = np.repeat(np.arange(len(self.spec.shards)), [shard.document_count for shard in self.spec.shards])
        return numbers, np.concatenate(starts), np.concatenate(lengths)

    def _keep(self) -> np.ndarray:
        """The examples that can be used, in the order of the folder."""
        lengths = self._length.reshape(-1, self.per_example)
        keep = lengths.min(axis=1) > 0
        for example in np.flatnonzero(keep & (lengths.max(axis=1) > self.row_length)):
            keep[example] = self._survives(int(example))
            self.truncated += int(keep[example])
        self.dropped = len(keep) - int(keep.sum())
        return np.flatnonzero(keep)

    def _survives(self, example: int) -> bool:
        if self.spec.form == "prompts":
            return False
        documents = [self._document(example * self.per_example + part) for part in range(self.per_example)]
        # The first token cannot be predicted, so a mask on it alone trains nothing.
        if not all(document.mask[1:].any() for document in documents):
            return False
        return len(documents) < 2 or not np.array_equal(documents[0].tokens, documents[1].tokens)


class _Lines:
    """The lines of a JSONL file by number; where each begins is kept, nothing else."""

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        size = path.stat().st_size
        content = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
        self._ends = _newlines(content)
        if len(self._ends) != count or (size and content[-1] != ord("\n")):
            raise UserError(f"{path} has {len(self._ends)} lines, the shards hold {count} examples")

    def read(self, number: int) -> dict[str, Any]:
        """The object in line `number`."""
        start = int(self._ends[number - 1]) + 1 if number else 0
        with self.path.open("rb") as file:
            file.seek(start)
            line = file.read(int(self._ends[number]) - start)
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path}, line {number + 1}: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{self.path}, line {number + 1} is no object")
        return row


def _newlines(content: Sequence[int] | np.ndarray, block: int = 2**24) -> np.ndarray:
    array = np.asarray(content)
    found = [np.flatnonzero(array[at : at + block] == ord("\n")) + at for at in range(0, len(array), block)]
    return np.concatenate([np.empty(0, np.int64), *found])


def _map(path: Path) -> np.ndarray:
    """The array, memory-mapped; never unpickled."""
    return np.load(path, mmap_mode="r", allow_pickle=False)
