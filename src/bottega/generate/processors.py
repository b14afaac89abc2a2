"""What a request forbids or favours before anything is drawn: processors of the vocabulary's scores.

Each changes one row's scores (V,) in place. A forbidden token gets -inf, and nothing after brings it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bottega.generate.trace import Recorder

if TYPE_CHECKING:
    from bottega.generate.sampling import Row

Processor = Callable[[Tensor, "Row"], None]


def process(logits: Tensor, rows: Sequence[Row], recorders: Sequence[Recorder | None] | None = None) -> Tensor:
    """Scores (R, V) in float32 (float64 stays): `logits` (R, V), which are not changed, after the rows' processors."""
    scores = logits if logits.dtype == torch.float64 else logits.float()
    used = [(number, row, _used(row)) for number, row in enumerate(rows)]
    if scores is logits and any(names for _, _, names in used):
        scores = logits.clone()
    for number, row, names in used:
        recorder = recorders[number] if recorders else None
        for name in names:
            PROCESSORS[name](scores[number], row)
            if recorder:
                recorder.note(name, scores[number])
    return scores


def _used(row: Row) -> list[str]:
    sampling = row.sampling
    on = {
        "grammar": row.mask is not None,
        "allowed_tokens": bool(sampling.allowed_tokens),
        "banned_words": bool(sampling.banned_words),
        "min_new_tokens": row.index < sampling.min_new_tokens and bool(sampling.stop_token_ids),
        "no_repeat_ngram_size": sampling.no_repeat_ngram_size > 0,
        "logit_bias": bool(sampling.logit_bias),
    }
    return [name for name, is_on in on.items() if is_on]


def grammar(scores: Tensor, row: Row) -> None:
    """Forbid the tokens whose bit is 0: token i is bit i % 32 of word i // 32. What has no bit is forbidden too."""
    assert row.mask is not None
    bits = np.unpackbits(row.mask.cpu().numpy().astype("<i4", copy=False).view(np.uint8), bitorder="little")
    forbidden = np.ones(len(scores), dtype=np.bool_)
    known = min(len(bits), len(scores))
    forbidden[:known] = bits[:known] == 0
    scores.masked_fill_(torch.from_numpy(forbidden).to(scores.device), -torch.inf)


def allowed_tokens(scores: Tensor, row: Row) -> None:
    """Forbid all others."""
    tokens = torch.tensor(row.sampling.allowed_tokens, device=scores.device)
    kept = scores[tokens]
    scores.fill_(-torch.inf)
    scores[tokens] = kept


def banned_words(scores: Tensor, row: Row) -> None:
    """Forbid the token that would complete a banned sequence."""
    _forbid(scores, {word[-1] for word in row.sampling.banned_words if _ends_with(row.tokens, word[:-1])})


def _ends_with(tokens: Sequence[int], begin: tuple[int, ...]) -> bool:
    return not begin or tuple(tokens[-len(begin) :]) == begin


def min_new_tokens(scores: Tensor, row: Row) -> None:
    """Forbid the stop tokens until the answer has so many tokens."""
    _forbid(scores, row.sampling.stop_token_ids)


def no_repeat_ngram_size(scores: Tensor, row: Row) -> None:
    """Forbid the token that would complete an n-gram which stands in prompt or answer (Paulus et al. 2017, §2.5)."""
    size = row.sampling.no_repeat_ngram_size
    if len(row.tokens) < size:
        return
    tokens = np.array(row.tokens, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, size)
    same = (windows[:, :-1] == tokens[len(tokens) - size + 1 :]).all(axis=1)
    _forbid(scores, windows[same, -1].tolist())


def logit_bias(scores: Tensor, row: Row) -> None:
    """Add a number to a token's score (OpenAI's API reference)."""
    tokens, biases = zip(*row.sampling.logit_bias, strict=True)
    scores.index_add_(0, torch.tensor(tokens, device=scores.device), torch.tensor(biases).to(scores))


def _forbid(scores: Tensor, tokens: Sequence[int] | set[int]) -> None:
    if tokens:
        scores[torch.tensor(list(tokens), device=scores.device)] = -torch.inf


PROCESSORS: dict[str, Processor] = {
    "grammar": grammar,
    "allowed_tokens": allowed_tokens,
    "banned_words": banned_words,
    "min_new_tokens": min_new_tokens,
    "no_repeat_ngram_size": no_repeat_ngram_size,
    "logit_bias": logit_bias,
}
