"""The key/value cache: what attention remembers of the tokens it has seen.

One buffer per layer for keys and one for values, (batch, kv_heads, capacity, head_dim),
filled from the left. `length` tokens are valid in every row; of these, the first `padding[row]` are none of the
text's (rows of different lengths are filled up on the left, so that all end together).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError


class KVCache:
    """Keys and values of up to `capacity` tokens for `batch_size` sequences of equal length."""

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (batch_size, config.num_key_value_heads, capacity, config.head_dim)
        layers = range(config.num_hidden_layers)
        # Not zeroed: on the CPU, pages that are never written never take memory, however long the capacity.
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
        self._buffers = self.keys + self.values  # whole, where `keys` and `values` are the rows in use
        self.config, self.batch_size, self.capacity, self.length = config, batch_size, capacity, 0
        self.padding: torch.Tensor | None = None

    def require_room(self, tokens: int) -> None:
        """Raise UserError if `tokens` more do not fit."""
        if self.length + tokens > self.capacity:
            raise UserError(f"{self.length} + {tokens} tokens do not fit a cache of {self.capacity}")

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, T, kv_heads, head_dim) behind the valid tokens of `layer`.

        Returns views of everything valid, (B, kv_heads, length + T, head_dim). `length` itself
        advances once per forward pass, in `advance`, not per layer.
        """
        new = keys.shape[1]
        all_keys = self.keys[layer].narrow(2, 0, self.length + new)
        all_values = self.values[layer].narrow(2, 0, self.length + new)
        all_keys.narrow(2, self.length, new).copy_(keys.transpose(1, 2))
        all_values.narrow(2, self.length, new).copy_(values.transpose(1, 2))
        return all_keys, all_values

    def advance(self, tokens: int) -> None:
        """Count `tokens` as valid, after every layer has stored them."""
        self.length += tokens

    def rewind(self, length: int) -> None:
        """Forget everything behind the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind {self.length} tokens to {length}")
        self.length = length

    def select(self, rows: Sequence[int], since: int = 0) -> None:
        """Row i becomes what row `rows[i]` was; so many rows are in use then, at most those the cache was made with.

        The first `since` tokens, which all rows have in common, are not moved.
        """
        moved = [(place, row) for place, row in enumerate(rows) if row != place]
        targets, sources = [place for place, _ in moved], [row for _, row in moved]
        for buffer in self._buffers if moved and since < self.length else ():
            part = buffer[:, :, since : self.length]
            part[targets] = part[sources]
        layers = len(self.keys)
        self.keys = [buffer[: len(rows)] for buffer in self._buffers[:layers]]
        self.values = [buffer[: len(rows)] for buffer in self._buffers[layers:]]
        self.padding = None if self.padding is None else self.padding[list(rows)]
        self.batch_size = len(rows)

    def expand(self, batch_size: int, capacity: int | None = None) -> KVCache:
        """A new cache whose `batch_size` rows are copies of row 0 (several continuations of one context)."""
        tensor = self.keys[0]
        fork = KVCache(self.config, batch_size, capacity or self.capacity, tensor.dtype, tensor.device)
        for source, target in zip(self.keys + self.values, fork.keys + fork.values, strict=True):
            target[:, :, : self.length] = source[:1, :, : self.length]
        fork.length = self.length
        fork.padding = None if self.padding is None else self.padding[:1].expand(batch_size)
        return fork
