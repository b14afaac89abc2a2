"""DoLa: decoding by contrasting layers (Chuang et al. 2023, arXiv:2309.03883, section 2).

The next token's scores are log q_N − log q_M, the last layer against an early ("premature") one, among the tokens
that the last layer finds at least `RELATIVE_TOP` as probable as its best (eq. 5); others cannot be chosen. M is, for
each row and step anew, the candidate layer whose distribution is farthest from the last one's by Jensen–Shannon
divergence (eq. 4). As in the authors' code, early hidden states go into the head without the last norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from bottega.generate.search.rows import Rows, wide
from bottega.generate.search.settings import premature_layers
from bottega.model.decoder import Decoder
from bottega.model.layers import watched

RELATIVE_TOP = 0.1


def contrast(last: Tensor, early: Tensor) -> Tensor:
    """Scores of the next token, (R, V), −inf for those out of question.

    Args:
        last: (R, V) logits of the last layer.
        early: (L, R, V) logits of the candidate layers.
    """
    mature, premature = last.log_softmax(-1), early.log_softmax(-1)
    middle = torch.logaddexp(mature, premature) - math.log(2)
    divergence = 0.5 * ((mature.exp() * (mature - middle)).sum(-1) + (premature.exp() * (premature - middle)).sum(-1))
    farthest = divergence.argmax(0)
    chosen = premature[farthest, torch.arange(len(last), device=last.device)]
    plausible = mature >= mature.amax(-1, keepdim=True) + math.log(RELATIVE_TOP)
    return (mature - chosen).masked_fill(~plausible, float("-inf"))


class DolaRows(Rows):
    """Rows whose scores are the contrast of the last layer with an early one."""

    def __init__(
        self,
        decoder: Decoder,
        prompt: Sequence[int],
        *,
        layers: Literal["low", "high"] | Sequence[int],
        width: int,
        max_new_tokens: int,
        on_step: Callable[[], object] = lambda: None,
    ) -> None:
        """Raises UserError if the model has no such layer."""
        super().__init__(decoder, prompt, width=width, max_new_tokens=max_new_tokens, on_step=on_step)
        config = decoder.config
        self.layers = premature_layers(config.num_hidden_layers, layers, tied=config.tie_word_embeddings)

    def _run(self, ids: Tensor) -> Tensor:
        with watched(self.decoder, self.layers) as early:
            last = self.decoder.hidden(ids, cache=self.cache)[:, -1]
        states = torch.stack([early[layer][:, -1] for layer in self.layers])
        return contrast(wide(self.decoder.logits(last)), wide(self.decoder.logits(states)))
