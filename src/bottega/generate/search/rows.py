"""What every search runs on: continuations of one prompt as rows of one batch, over one cache.

The prompt is computed once; then each step says which rows go on, and with which tokens. `GuidedRows` and
`DolaRows` are rows too: they differ in what they make of a pass, so that any search runs on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bottega.core.errors import UserError
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder


class Rows:
    """Up to `width` continuations of `prompt`, each of up to `max_new_tokens`."""

    def __init__(
        self,
        decoder: Decoder,
        prompt: Sequence[int],
        *,
        width: int,
        max_new_tokens: int,
        on_step: Callable[[], object] = lambda: None,
        beside: Sequence[Sequence[int]] = (),
    ) -> None:
        """Raises UserError if a prompt is empty, or leaves no room in the context.

        `on_step` is called before each pass; `beside` are prompts that a subclass runs beside the first one.
        """
        self.decoder, self.width, self.on_step = decoder, width, on_step
        self.prompts = [list(prompt), *map(list, beside)]
        room = decoder.config.context_length - self.length
        if not all(self.prompts):
            raise UserError("the prompt is empty", hint="Give at least one character.")
        if room < 1:
            raise UserError(
                f"the prompt has {self.length} tokens, the model's context is {decoder.config.context_length}",
                hint="Shorten the prompt; nothing is cut off silently.",
            )
        self.max_new_tokens = min(max_new_tokens, room)
        self.device, capacity = decoder.device, self.length + self.max_new_tokens
        self.cache = KVCache(decoder.config, width * len(self.prompts), capacity, decoder.dtype, decoder.device)

    @property
    def prompt(self) -> list[int]:
        """The text that is continued."""
        return self.prompts[0]

    @property
    def length(self) -> int:
        """Tokens of the longest prompt."""
        return max(map(len, self.prompts))

    def begin(self) -> Tensor:
        """Run the prompt: scores of what follows it, (1, V) float32 or wider."""
        self.on_step()
        self.cache.select([0])
        scores = self._run(torch.tensor([self.prompt], device=self.device))
        self.cache.select([0] * self.width)
        return scores

    def step(self, tokens: Sequence[int], parents: Sequence[int], *, shared: int = 0) -> Tensor:
        """Row i is from now on what row `parents[i]` was, and `tokens[i]` behind it; scores of what follows, (R, V).

        `shared` counts the answer's first tokens that all rows have in common: they need not be moved.
        """
        self.on_step()
        self.cache.select(parents, since=self.length + shared)
        return self._run(torch.tensor(tokens, device=self.device).unsqueeze(1))

    def _run(self, ids: Tensor) -> Tensor:
        """One pass over (R, T) tokens behind the cache: what the search gets of it, (R, V)."""
        return wide(self.decoder.logits(self.decoder.hidden(ids, cache=self.cache)[:, -1]))


def wide(logits: Tensor) -> Tensor:
    """In float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()
