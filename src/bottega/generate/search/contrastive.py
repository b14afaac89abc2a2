"""Contrastive search (Su et al. 2022, "A Contrastive Framework for Neural Text Generation", arXiv:2202.06417, eq. 5).

Of the k most probable tokens it takes the one with the highest (1 − α) · probability − α · degeneration, the largest
cosine similarity between the token's hidden state (the last layer's) and those of all tokens before it. The k
candidates are rows of one pass, and the chosen one's pass is the next step's: one pass per token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bottega.generate.search.hypothesis import Hypothesis, Reader, nothing_follows, scores_of
from bottega.generate.search.rows import Rows, wide
from bottega.generate.settings import Sampling


class HiddenRows(Rows):
    """Rows that give hidden states in place of scores: (1, T, H) of the prompt, (R, 1, H) of each step."""

    def _run(self, ids: Tensor) -> Tensor:
        return self.decoder.hidden(ids, cache=self.cache)


@torch.inference_mode()
def contrastive_search(rows: HiddenRows, sampling: Sampling, alpha: float, reader: Reader) -> Hypothesis:
    """One answer; its score is the mean of what its tokens were chosen by.

    Args:
        rows: the prompt; at least as many as candidates.
        sampling: `top_k` is the number of candidates; processors change the probabilities.
        alpha: weight of the degeneration, 0 to 1.
        reader: reads the answer, and says whether it is over.

    Raises UserError if every token is forbidden before the answer is over.
    """
    hidden = rows.begin()[0]
    seen = F.normalize(wide(hidden), dim=-1)  # (tokens so far, H)
    tokens, objective, logprob, row = list[int](), 0.0, 0.0, 0
    candidates = min(sampling.top_k, rows.width)
    stopped = False
    while not stopped and len(tokens) < rows.max_new_tokens:
        logits = wide(rows.decoder.logits(hidden[-1:]))
        probabilities = scores_of(logits, rows.prompt, [tokens], sampling)[0].exp()
        confidence, choices = probabilities.topk(candidates)
        if confidence[0] == 0:
            raise nothing_follows()
        states = rows.step(choices.tolist(), [row] * candidates, shared=max(len(tokens) - 1, 0))[:, 0]
        directions = F.normalize(wide(states), dim=-1)
        degeneration = (directions @ seen.T).amax(-1)
        values = (1 - alpha) * confidence - alpha * degeneration
        row = int(values.masked_fill(confidence == 0, float("-inf")).argmax())
        tokens.append(int(choices[row]))
        objective += float(values[row])
        logprob += float(logits[0].log_softmax(-1)[tokens[-1]])
        hidden, seen = states[row : row + 1], torch.cat((seen, directions[row : row + 1]))
        stopped = reader.add(tokens[-1])
    return Hypothesis(tokens, objective / len(tokens), logprob, reader.finish(), "stop" if stopped else "length")
