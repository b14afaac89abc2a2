"""Classifier-free guidance of language models (Sanchez et al. 2023, arXiv:2306.17806, eq. 7).

log P̂(w | prompt) = log P(w | negative) + scale · (log P(w | prompt) − log P(w | negative)), in log-probabilities.
Without a negative prompt that side begins with the prompt's last token, as in the paper. Both sides are rows of
one batch, the shorter prompt padded on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bottega.generate.search.rows import Rows, wide
from bottega.model.decoder import Decoder


class GuidedRows(Rows):
    """Rows whose scores are drawn away from `negative` by `scale`; 1 leaves them as they are, 0 follows `negative`."""

    def __init__(
        self,
        decoder: Decoder,
        prompt: Sequence[int],
        *,
        scale: float,
        negative: Sequence[int] | None = None,
        width: int,
        max_new_tokens: int,
        on_step: Callable[[], object] = lambda: None,
    ) -> None:
        other = prompt[-1:] if negative is None else negative
        super().__init__(decoder, prompt, width=width, max_new_tokens=max_new_tokens, on_step=on_step, beside=[other])
        self.scale = scale

    def begin(self) -> Tensor:
        """Run both prompts: scores of what follows, (1, V)."""
        self.on_step()
        padding = [self.length - len(prompt) for prompt in self.prompts]
        ids = [[0] * count + prompt for count, prompt in zip(padding, self.prompts, strict=True)]
        self.cache.select([0, 1])
        hidden = self.decoder.hidden(
            torch.tensor(ids, device=self.device),
            cache=self.cache,
            padding=torch.tensor(padding, device=self.device) if any(padding) else None,
        )
        self.cache.select([0, 1] * self.width)
        return self._guided(hidden)

    def step(self, tokens: Sequence[int], parents: Sequence[int], *, shared: int = 0) -> Tensor:
        """As `Rows.step`; row i of the search is rows 2i and 2i + 1 of the cache."""
        both = [2 * parent + side for parent in parents for side in (0, 1)]
        return super().step([token for token in tokens for _ in (0, 1)], both, shared=shared)

    def _run(self, ids: Tensor) -> Tensor:
        return self._guided(self.decoder.hidden(ids, cache=self.cache))

    def _guided(self, hidden: Tensor) -> Tensor:
        logprobs = wide(self.decoder.logits(hidden[:, -1])).log_softmax(-1)
        return torch.lerp(logprobs[1::2], logprobs[0::2], self.scale)
