"""Penalties on what has been said: repetition, presence, frequency, and DRY.

Repetition (Keskar et al. 2019, arXiv:1909.05858, §4.1) looks at prompt and answer, as in transformers and vLLM;
presence and frequency (OpenAI's API reference) at the answer alone, as in OpenAI's API and vLLM; llama.cpp looks at the
last 64 tokens of both for all three. DRY ("don't repeat yourself", p-e-w 2024, text-generation-webui#5677)
punishes a token that would extend a sequence which stands in the text already, exponentially in its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bottega.generate.candidates import Candidates

if TYPE_CHECKING:
    from bottega.generate.sampling import Row

# A repeat is measured up to this length: by then its token is out of reach, and time stays linear in the text.
LONGEST_REPEAT = 256
GREATEST_PENALTY = 1e30  # of float32


def penalise(scores: Tensor, history: Tensor, penalty: float) -> Tensor:
    """Divide the positive and multiply the negative scores of tokens seen before by `penalty`. (B, V) → (B, V)."""
    seen = scores.gather(1, history)
    return scores.scatter(1, history, torch.where(seen < 0, seen * penalty, seen / penalty))


def penalties(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Repetition, then presence and frequency: score - presence - frequency · count."""
    scores = candidates.scores.clone()
    for number, row in enumerate(rows):
        sampling = row.sampling
        begin = max(0, len(row.tokens) - sampling.penalty_range) if sampling.penalty_range else 0
        if sampling.repetition_penalty != 1:
            seen = torch.from_numpy(np.unique(np.array(row.tokens[begin:], dtype=np.int64))).to(scores.device)
            places, _ = candidates.find(number, seen)
            line = scores[number : number + 1]
            scores[number] = penalise(line, places.unsqueeze(0), sampling.repetition_penalty)[0]
        answer = np.array(row.tokens[max(begin, row.prompt_length) :], dtype=np.int64)
        if len(answer) and (sampling.presence_penalty or sampling.frequency_penalty):
            said, counts = (torch.from_numpy(part).to(scores.device) for part in np.unique(answer, return_counts=True))
            places, found = candidates.find(number, said)
            scores[number, places] -= sampling.presence_penalty + sampling.frequency_penalty * counts[found]
    return replace(candidates, scores=scores, is_sorted=False, mass=None)


def dry(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """score - multiplier · base^(length - allowed length) of the longest repeat that the token would extend."""
    scores = candidates.scores.clone()
    for number, row in enumerate(rows):
        sampling = row.sampling
        breakers = sampling.dry_breakers
        text = row.tokens[-sampling.dry_range :] if sampling.dry_range else row.tokens
        lengths = repeats(text, sampling.dry_allowed_length, breakers)
        extended = [(token, length) for token, length in lengths.items() if (token,) not in breakers]
        if not extended:
            continue
        tokens = torch.tensor([token for token, _ in extended], device=scores.device)
        excess = torch.tensor([length - sampling.dry_allowed_length for _, length in extended]).double()
        penalty = (sampling.dry_multiplier * sampling.dry_base**excess).clamp_max(GREATEST_PENALTY)
        places, found = candidates.find(number, tokens)
        scores[number, places] -= penalty.to(scores)[found]
    return replace(candidates, scores=scores, is_sorted=False, mass=None)


def repeats(text: Sequence[int], allowed: int, breakers: frozenset[tuple[int, ...]]) -> dict[int, int]:
    """For each token that would extend one, the length of the longest repeat: of the text's end, earlier in the text.

    Repeats shorter than `allowed` do not count, and none reaches back across a breaker (a sequence of tokens).
    """
    limit = min(_since_breaker(text, breakers), LONGEST_REPEAT + allowed, len(text) - 1)
    if limit < allowed:
        return {}
    tokens = np.array(text, dtype=np.int64)
    last = len(tokens) - 1
    longest: dict[int, int] = {}
    ends = np.flatnonzero(tokens[:last] == tokens[last])  # where an earlier repeat ends
    length = 1
    while len(ends):
        if length >= allowed:
            longest.update(dict.fromkeys(tokens[ends + 1].tolist(), length))
        if length == limit:
            break
        ends = ends[ends >= length]
        ends = ends[tokens[ends - length] == tokens[last - length]]
        length += 1
    return longest


def _since_breaker(text: Sequence[int], breakers: frozenset[tuple[int, ...]]) -> int:
    """How many tokens stand behind the last breaker."""
    sizes = _sizes(breakers)
    for end in range(len(text), max(0, len(text) - LONGEST_REPEAT - 1), -1):
        if any(size <= end and tuple(text[end - size : end]) in breakers for size in sizes):
            return len(text) - end
    return len(text)


@lru_cache(maxsize=64)
def _sizes(breakers: frozenset[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted({len(breaker) for breaker in breakers}))
