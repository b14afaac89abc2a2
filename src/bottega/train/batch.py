"""From packed rows to what one micro-batch of the model needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bottega.data.batches import Row


@dataclass(frozen=True)
class MicroBatch:
    """Packed documents as one row.

    Attributes:
        input_ids: (1, T) int64.
        segments: lengths of the documents, sum T.
        positions: (N,) positions whose *next* token is trained.
        targets: (N,) int64, those next tokens.
        owners: (N,) int64, the document of each, by its place in the rows that were collated.
        ends: (D,) int64, the position of each of those documents' last token.
    """

    input_ids: Tensor
    segments: list[int]
    positions: Tensor
    targets: Tensor
    owners: Tensor
    ends: Tensor

    @property
    def documents(self) -> int:
        """Number of documents, D."""
        return len(self.segments)

    def to(self, device: torch.device) -> MicroBatch:
        """The same on another device."""
        tensors = self.input_ids, self.positions, self.targets, self.owners, self.ends
        ids, positions, targets, owners, ends = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return MicroBatch(ids, self.segments, positions, targets, owners, ends)


def collate(rows: Sequence[Row]) -> MicroBatch:
    """Lay the rows' documents end to end, longest first.

    The order does not matter to the loss, which is a sum; documents of one length stand side by
    side, so attention takes them as one batch. A document's first token is never a target.
    """
    tokens = np.concatenate([row.tokens for row in rows])
    mask = np.concatenate([row.mask for row in rows])
    lengths = np.concatenate([np.asarray(row.lengths, dtype=np.int64) for row in rows])
    starts = np.cumsum(lengths) - lengths
    order = np.argsort(-lengths, kind="stable")
    spans = zip(starts[order].tolist(), lengths[order].tolist(), strict=True)
    index = np.concatenate([np.arange(start, start + length) for start, length in spans])
    tokens, mask = tokens[index], mask[index].copy()
    laid = np.cumsum(lengths[order])
    mask[laid - lengths[order]] = False
    positions = np.flatnonzero(mask) - 1
    ends = np.empty_like(laid)
    ends[order] = laid - 1
    return MicroBatch(
        input_ids=torch.from_numpy(tokens).unsqueeze(0),
        segments=lengths[order].tolist(),
        positions=torch.from_numpy(positions),
        targets=torch.from_numpy(tokens[positions + 1]),
        owners=torch.from_numpy(np.repeat(order, lengths[order])[positions]),
        ends=torch.from_numpy(ends),
    )


def micro_batches(rows: Sequence[Row], micro_batch_tokens: int) -> list[MicroBatch]:
    """Split one step's rows so that each part has at most `micro_batch_tokens` (but at least one row)."""
    return [collate([rows[place] for place in group]) for group in groups(rows, micro_batch_tokens)]


def groups(rows: Sequence[Row], micro_batch_tokens: int) -> list[list[int]]:
    """Places of the rows of each part, in order."""
    parts: list[list[int]] = [[]]
    size = 0
    for place, row in enumerate(rows):
        if parts[-1] and size + len(row.tokens) > micro_batch_tokens:
            parts.append([])
            size = 0
        parts[-1].append(place)
        size += len(row.tokens)
    return parts if rows else []
