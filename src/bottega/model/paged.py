"""The paged key/value cache (Kwon et al. 2023, arXiv:2309.06180): blocks of 16 tokens that any sequence may hold.

`PagedCache` is the storage; who holds which block is decided elsewhere (`generate.blocks`). `Step` is what one pass
knows about its tokens: the sequences stand behind each other in one row, each attends to its own blocks. A pass may
mix sequences of one new token with prompts of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bottega.checkpoint.config import ModelConfig
from bottega.model.attention import Rule
from bottega.model.kernels import library, reference
from bottega.model.kernels.library import LANES as BLOCK
from bottega.model.kernels.library import CacheFormat


class PagedCache:
    """Keys and values of `blocks` blocks of 16 tokens, in every layer.

    `int8` keeps a scale per token and head: a quarter of float32's memory, at an error of half a percent of the
    largest number of each head's vector.
    """

    def __init__(
        self, config: ModelConfig, blocks: int, format_: CacheFormat = "float32", device: torch.device | str = "cpu"
    ) -> None:
        heads, dim = config.num_key_value_heads, config.head_dim
        width = -(-dim // BLOCK) * BLOCK
        dtype = getattr(torch, format_)
        layers = range(config.num_hidden_layers)
        self.blocks, self.device = blocks, torch.device(device)
        self.format: CacheFormat = format_
        # Not zeroed: on the CPU, pages that are never written never take memory.
        self.keys = [torch.empty(blocks, heads, dim, BLOCK, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.empty(blocks, heads, BLOCK, width, dtype=dtype, device=device) for _ in layers]
        scales = format_ == "int8"
        self.key_scales = [torch.empty(blocks, heads, BLOCK, device=device) if scales else None for _ in layers]
        self.value_scales = [torch.empty(blocks, heads, BLOCK, device=device) if scales else None for _ in layers]
        self.uses_kernels = self.device.type == "cpu" and format_ in library.FORMATS and library.available()

    def copy(self, source: int, target: int) -> None:
        """Give block `target` the content of block `source`."""
        for layers in (self.keys, self.values, self.key_scales, self.value_scales):
            for layer in layers:
                if layer is not None:
                    layer[target] = layer[source]

    def store(self, layer: int, key: Tensor, value: Tensor, slots: Tensor) -> None:
        """Keep (N, kv_heads, d) keys and values in `slots` (N,) int64: block · 16 + place."""
        parts = self.keys[layer], self.values[layer], self.key_scales[layer], self.value_scales[layer]
        if self.uses_kernels:
            library.store(self.format, key.float(), value.float(), *parts, slots)
        else:
            reference.store(self.format, key, value, *parts, slots.to(self.device))

    def attend(self, layer: int, query: Tensor, tables: Tensor, spans: Tensor, rule: Rule) -> Tensor:
        """(N, heads, d) → (N, heads, d); `tables` and `spans` as in `kernels.library.attention`."""
        parts = self.keys[layer], self.values[layer], self.key_scales[layer], self.value_scales[layer]
        how = {"scale": rule.scale, "window": rule.window, "cap": rule.cap, "slopes": rule.slopes}
        if self.uses_kernels:
            return library.attention(self.format, query.float(), *parts, tables, spans, **how).to(query.dtype)
        return reference.attention(query, *parts, tables, spans, **how)


def cache_bytes(config: ModelConfig, blocks: int, format_: CacheFormat = "float32") -> int:
    """Bytes of a `PagedCache`."""
    heads, dim, layers = config.num_key_value_heads, config.head_dim, config.num_hidden_layers
    per_token = (dim + -(-dim // BLOCK) * BLOCK) * {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}[format_]
    return blocks * BLOCK * heads * layers * (per_token + (8 if format_ == "int8" else 0))


@dataclass(frozen=True)
class Span:
    """A sequence's part of a step: its `tokens` from the place `start` on, and its blocks.

    `capacity` is the most tokens that the sequence may come to have: positions that adapt to the length of a text
    are those of that length from the first token on.
    """

    tokens: Sequence[int]
    start: int
    blocks: Sequence[int]
    capacity: int

    @property
    def count(self) -> int:
        """Tokens of the step."""
        return len(self.tokens)


class Step:
    """One pass over tokens of several sequences.

    Attributes:
        ids: (N,) int64.
        positions: (N,) int64, the place of each in its sequence.
        ends: (S,) int64, the row of each sequence's last token.
        capacities: those of the spans.
        counts: tokens of each sequence.
    """

    def __init__(self, cache: PagedCache, spans: Sequence[Span]) -> None:
        device = cache.device
        self.cache = cache
        self.counts = [span.count for span in spans]
        self.capacities = [span.capacity for span in spans]
        self.ids = torch.tensor([id_ for span in spans for id_ in span.tokens], device=device)
        width = max(len(span.blocks) for span in spans)
        self._tables = torch.tensor([[*span.blocks, *[0] * (width - len(span.blocks))] for span in spans]).int()
        first, rows, slots, positions = 0, [], [], []
        for span in spans:
            rows.append((first, span.count, span.start))
            places = range(span.start, span.start + span.count)
            positions += places
            slots += [span.blocks[place // BLOCK] * BLOCK + place % BLOCK for place in places]
            first += span.count
        self._spans = torch.tensor(rows).int()
        self._slots = torch.tensor(slots)
        self.positions = torch.tensor(positions, device=device)
        self.ends = torch.tensor([row[0] + row[1] - 1 for row in rows], device=device)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """Store the new keys and values (N, kv_heads, d), and attend; (N, heads, d) → (N, heads, d)."""
        self.cache.store(layer, key, value, self._slots)
        return self.cache.attend(layer, query, self._tables, self._spans, rule)
