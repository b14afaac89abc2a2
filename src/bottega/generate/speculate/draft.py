"""A decoder that drafts for another one: a small model of the same vocabulary, or the first layers of the same.

Leviathan et al. 2023 (arXiv:2211.17192); drafting stops early where the draft is unsure (Zhang et al. 2024,
arXiv:2309.08168). Drafts are greedy. Each request has a contiguous cache, rewound to what the target kept;
requests of one step are drafted in one batch, for a drafting step costs the reading of the weights.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.generate.sampling import greedy
from bottega.generate.speculate.proposer import Draft, Proposer
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder
from bottega.tokenizer.tokenizer import Tokenizer

LEAST_CAPACITY = 256  # tokens


@dataclass
class _Memory:
    """One request's cache, and what stands in it: the first `given` tokens of the request, then `fed` drafts."""

    cache: KVCache
    given: int = 0
    fed: list[int] = field(default_factory=list)


class DraftModel(Proposer):
    """Proposes what a decoder of its own would say, greedily."""

    def __init__(self, decoder: Decoder, *, vocabulary: int | None = None, threshold: float = 0.0) -> None:
        """Make a proposer of a decoder; UserError if `threshold` is no probability.

        Args:
            decoder: prepared for inference or not.
            vocabulary: how many of its ids may be proposed (`common_vocabulary`); all if None.
            threshold: drafting stops before a token to which the draft gives less; 0 never.
        """
        if not 0 <= threshold < 1:
            raise UserError(f"the draft's threshold is {threshold}", hint="It must be 0 (off) or more, below 1.")
        self.decoder, self.threshold = decoder, threshold
        self.vocabulary = decoder.config.vocab_size if vocabulary is None else vocabulary
        self._memories: dict[Hashable, _Memory] = {}

    @torch.inference_mode()
    def propose_many(self, drafts: Sequence[Draft]) -> list[list[int]]:
        """One batch, but for the prompts of new requests. None for a request that the draft's context does not hold."""
        proposals: list[list[int]] = [[] for _ in drafts]
        context = self.decoder.config.context_length
        places = [i for i, draft in enumerate(drafts) if draft.length > 0 and 0 < len(draft.tokens) <= context]
        if not places:
            return proposals
        rows = [drafts[i].tokens for i in places]
        # All end at the place of the longest; the last draft is not fed, so k drafts take k - 1 places.
        room = context - max(map(len, rows)) + 1
        wanted = [min(drafts[i].length, room) for i in places]
        memories = [self._remember(drafts[i].request, row, k) for i, row, k in zip(places, rows, wanted, strict=True)]
        new = self._catch_up(memories, rows)
        inputs = torch.tensor([row[-new:] for row in rows], device=self.decoder.device)
        cache = memories[0].cache if len(rows) == 1 else _gathered(memories, rows, max(wanted))
        found, fed = self._draft(inputs, cache, wanted)
        if len(rows) > 1:
            _scatter(cache, memories, rows, new)
        for place, memory, row, proposal, extra in zip(places, memories, rows, found, fed, strict=True):
            memory.given, memory.fed = len(row), extra
            proposals[place] = proposal
        return proposals

    def forget(self, request: Hashable) -> None:
        """Free the request's cache."""
        self._memories.pop(request, None)

    def _remember(self, request: Hashable, tokens: list[int], length: int) -> _Memory:
        """The request's memory with room for what comes, rewound to the tokens that stand in it and in `tokens`."""
        config, needed = self.decoder.config, len(tokens) + length - 1
        memory = self._memories.get(request)
        if memory is None:
            cache = KVCache(config, 1, _capacity(config, needed), self.decoder.dtype, self.decoder.device)
            memory = self._memories[request] = _Memory(cache)
        kept = memory.given
        for drafted, token in zip(memory.fed, tokens[memory.given :], strict=False):
            if drafted != token:
                break
            kept += 1
        memory.cache.rewind(min(kept, memory.cache.length, len(tokens) - 1))
        if needed > memory.cache.capacity:
            memory.cache = memory.cache.expand(1, _capacity(config, needed))
        return memory

    def _catch_up(self, memories: list[_Memory], rows: list[list[int]]) -> int:
        """Bring all caches to the same number of tokens before the end of their rows, and return it.

        That is one, or two where a request kept all drafts (the last was never fed); what more a cache lacks is fed
        alone. Where one row lacks two and another one, the other's last token is fed again.
        """
        if len(rows) > 1:
            most = min(2, *map(len, rows))
            for memory, row in zip(memories, rows, strict=True):
                if len(row) - memory.cache.length > most:
                    behind = torch.tensor([row[memory.cache.length : -1]], device=self.decoder.device)
                    self.decoder.hidden(behind, cache=memory.cache)
        new = max(len(row) - memory.cache.length for memory, row in zip(memories, rows, strict=True))
        for memory, row in zip(memories, rows, strict=True):
            memory.cache.rewind(len(row) - new)
        return new

    def _draft(self, inputs: Tensor, cache: KVCache, wanted: list[int]) -> tuple[list[list[int]], list[list[int]]]:
        """Continue `inputs` (B, T) behind `cache`; the proposals of each row, and what of it went into the cache."""
        found: list[list[int]] = [[] for _ in wanted]
        chosen: list[list[int]] = [[] for _ in wanted]
        running = set(range(len(wanted)))
        while running:
            logits = self.decoder.logits(self.decoder.hidden(inputs, cache=cache)[:, -1])[:, : self.vocabulary].float()
            tokens = greedy(logits)
            sure = self._sure(logits, tokens)
            for row, token in enumerate(tokens.tolist()):
                chosen[row].append(token)
                if row in running and sure[row]:
                    found[row].append(token)
                if not sure[row] or len(found[row]) == wanted[row]:
                    running.discard(row)
            inputs = tokens.unsqueeze(1)
        return found, [row[:-1] for row in chosen]

    def _sure(self, logits: Tensor, tokens: Tensor) -> list[bool]:
        """Whether each row's token (B,) has at least the threshold's probability."""
        if not self.threshold:
            return [True] * len(tokens)
        scores = logits.gather(1, tokens.unsqueeze(1)).squeeze(1) - logits.logsumexp(-1)
        return (scores.exp() >= self.threshold).tolist()


def common_vocabulary(
    draft: ModelConfig, target: ModelConfig, tokenizers: tuple[Tokenizer, Tokenizer] | None = None
) -> int:
    """How many ids mean the same to both models; UserError if a draft of the one is not a text of the other.

    With the tokenizers (draft's, target's) their tokens must be the same bytes; a table that one of the models fills up
    with rows of no token (Qwen's sizes differ so) may then be longer. Without them the tables must be of one size.
    """
    hint = "Take a draft model of the same family and tokenizer, or prompt lookup."
    if tokenizers is None:
        if draft.vocab_size != target.vocab_size:
            sizes = f"{draft.vocab_size} tokens, the model {target.vocab_size}"
            raise UserError(f"draft model: it has {sizes}", hint=hint)
        return target.vocab_size
    first, second = tokenizers
    if first.vocab_size != second.vocab_size:
        sizes = f"{first.vocab_size} tokens, the model's {second.vocab_size}"
        raise UserError(f"draft model: its tokenizer has {sizes}", hint=hint)
    if first.hash != second.hash:
        for token in range(first.vocab_size):
            if first.token_bytes(token) != second.token_bytes(token):
                both = f"{first.token_text(token)!r}, to the model {second.token_text(token)!r}"
                raise UserError(f"draft model: token {token} is {both}", hint=hint)
    return min(first.vocab_size, draft.vocab_size, target.vocab_size)


def _capacity(config: ModelConfig, tokens: int) -> int:
    """Room for `tokens`, in doubling steps.

    Positions that adapt to the length go by a cache's capacity: steps keep them the same from one cache to another.
    """
    capacity = LEAST_CAPACITY
    while capacity < tokens:
        capacity *= 2
    return max(tokens, min(capacity, config.context_length))


def _gathered(memories: list[_Memory], rows: list[list[int]], length: int) -> KVCache:
    """One cache in which all rows end together, with room for `length` drafts, of which the last is not fed."""
    sample, longest = memories[0].cache, max(map(len, rows))
    first = sample.keys[0]
    capacity = _capacity(sample.config, longest + length - 1)
    joint = KVCache(sample.config, len(rows), capacity, first.dtype, first.device)
    for place, (memory, row) in enumerate(zip(memories, rows, strict=True)):
        start, kept = longest - len(row), memory.cache.length
        for source, target in _buffers(memory.cache, joint):
            target[place, :, :start] = 0  # padding has no weight, but nothing times NaN is NaN
            target[place, :, start : start + kept] = source[0, :, :kept]
        joint.length = start + kept
    padding = [longest - len(row) for row in rows]
    joint.padding = torch.tensor(padding, device=first.device) if any(padding) else None
    return joint


def _scatter(joint: KVCache, memories: list[_Memory], rows: list[list[int]], new: int) -> None:
    """Copy what was added to the joint cache back into each row's own."""
    longest = max(map(len, rows))
    added = joint.length - (longest - new)
    for place, (memory, row) in enumerate(zip(memories, rows, strict=True)):
        start = len(row) - new
        room = min(added, memory.cache.capacity - start)
        for target, source in _buffers(memory.cache, joint):
            target[0, :, start : start + room] = source[place, :, longest - new : longest - new + room]
        memory.cache.advance(room)


def _buffers(one: KVCache, other: KVCache) -> list[tuple[Tensor, Tensor]]:
    return list(zip(one.keys + one.values, other.keys + other.values, strict=True))
