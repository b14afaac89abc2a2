"""Samplers: what temperature does to the scores of candidates, and what each truncation cuts off.

A sampler maps `Candidates` of R rows to candidates, given the rows' settings. What it calls probabilities are those of
the candidates left by the samplers before it. None cuts everything off: the most probable token stays, except in
typical_p, which may prefer others, and XTC, which cuts it on purpose. docs/decoding.md has formulas and sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bottega.generate.candidates import FIRST, Candidates, best, row_sum
from bottega.generate.draws import XTC
from bottega.generate.penalties import dry, penalties
from bottega.generate.settings import LEAST_TEMPERATURE

if TYPE_CHECKING:
    from bottega.generate.sampling import Row

TOP_H_CANDIDATES = 100  # as in transformers and the paper's code
MIROSTAT_CANDIDATES = 100  # m of the paper: from so many the exponent of Zipf's law is estimated

Sampler = Callable[[Candidates, "Sequence[Row]"], Candidates]


def column(rows: Sequence[Row], name: str, like: Tensor) -> Tensor:
    """A setting of each row, (R, 1), of `like`'s type and device; one that is not 0 does not become it."""
    values: list[Any] = [getattr(row.sampling, name) for row in rows]
    least = torch.finfo(like.dtype).tiny
    return torch.tensor([v if not 0 < v < least else least for v in values], dtype=like.dtype, device=like.device)[
        :, None
    ]


def temperature(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Scores over T; with a range, T follows the entropy H of n candidates: low + (high - low)·(H / ln n)^exponent."""
    divisor = column(rows, "temperature", candidates.scores)
    spread = column(rows, "dynatemp_range", candidates.scores)
    if any(row.sampling.dynatemp_range for row in rows):
        count = candidates.scores.isfinite().sum(-1, keepdim=True)
        share = (candidates.entropy() / count.to(spread.dtype).log()).nan_to_num_(nan=0.0).clamp_(0, 1)  # one: 0 / 0
        low, high = (divisor - spread).clamp_min(0), divisor + spread
        moved = low + (high - low) * share ** column(rows, "dynatemp_exponent", spread)
        divisor = torch.where(spread > 0, moved, divisor).clamp_min(LEAST_TEMPERATURE)
    return replace(candidates, scores=candidates.scores / divisor, mass=None)


def top_k(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """The k most probable, exactly (Fan et al. 2018)."""
    return _first(candidates, torch.tensor([row.sampling.top_k for row in rows], device=candidates.scores.device))


def top_p(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """The fewest that together reach p (Holtzman et al. 2019)."""
    probabilities = candidates.probabilities()
    before = probabilities.cumsum(-1) - probabilities
    return candidates.cut(before >= column(rows, "top_p", probabilities))


def top_h(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Of the first 100, those whose terms -p·ln p sum to h times the entropy at most (Potraghloo et al. 2025)."""
    tokens, scores = candidates.tokens[:, :TOP_H_CANDIDATES], candidates.scores[:, :TOP_H_CANDIDATES]
    first = replace(candidates, tokens=tokens, scores=scores, mass=None)
    terms = -(scores.softmax(-1) * scores.log_softmax(-1)).nan_to_num_(nan=0.0)
    within = terms.cumsum(-1) <= column(rows, "top_h", terms) * first.entropy()
    within[:, 0] = True
    return first.cut(~within)


def tail_free(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Up to where the absolute second differences of the sorted probabilities sum to z of all (Bricken 2019)."""
    return _first(candidates, _tail_start(candidates, rows, beyond=0.0))


def _tail_start(candidates: Candidates, rows: Sequence[Row], beyond: float) -> Tensor:
    """How many tokens stand before the tail, (R,) int64.

    Unsorted candidates, each no more probable than the last, add at most `beyond` times its probability to the sum.
    """
    probabilities = candidates.probabilities()
    bends = probabilities.diff(dim=-1).diff(dim=-1).abs().masked_fill(probabilities[:, 2:] <= 0, 0)
    reached = bends.cumsum(-1)
    total = row_sum(bends) + beyond * probabilities[:, -1:]
    counts = 1 + (reached <= column(rows, "tail_free", probabilities) * total).sum(-1)
    return torch.where(total.squeeze(1) > 0, counts, probabilities.shape[1])  # where nothing bends, there is no tail


def min_p(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Cuts below min_p · the highest probability (Nguyen et al. 2024)."""
    probabilities = candidates.probabilities()
    return candidates.cut(probabilities < column(rows, "min_p", probabilities) * probabilities.amax(-1, keepdim=True))


def top_a(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Cuts below a · the highest probability squared (RWKV-LM)."""
    probabilities = candidates.probabilities()
    highest = probabilities.amax(-1, keepdim=True)
    return _below(candidates, probabilities, column(rows, "top_a", probabilities) * highest.square())


def epsilon_cutoff(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Cuts below ε (Hewitt et al. 2022)."""
    probabilities = candidates.probabilities()
    return _below(candidates, probabilities, column(rows, "epsilon_cutoff", probabilities))


def eta_cutoff(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Cuts below min(ε, √ε · e^-entropy) (Hewitt et al. 2022)."""
    probabilities = candidates.probabilities()
    epsilon = column(rows, "eta_cutoff", probabilities)
    return _below(candidates, probabilities, torch.minimum(epsilon, epsilon.sqrt() * (-candidates.entropy()).exp()))


def _below(candidates: Candidates, probabilities: Tensor, least: Tensor) -> Candidates:
    best = candidates.scores >= candidates.scores.amax(-1, keepdim=True)
    return candidates.cut((probabilities < least) & ~best)


def top_n_sigma(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Cuts scores more than n standard deviations below the highest (Tang et al. 2024)."""
    scores = candidates.scores
    left = scores.isfinite()
    count = left.sum(-1, keepdim=True)
    known = scores.masked_fill(~left, 0.0)
    off = (known - row_sum(known) / count).masked_fill(~left, 0.0)
    deviation = (row_sum(off.square()) / count).sqrt()
    return candidates.cut(scores < scores.amax(-1, keepdim=True) - column(rows, "top_n_sigma", scores) * deviation)


def typical_p(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Those whose surprise is nearest the entropy, until they reach p (Meister et al. 2022); equally near ones stay."""
    distance = (-candidates.scores.log_softmax(-1) - candidates.entropy()).abs()
    probabilities, bound = candidates.scores.softmax(-1), distance.new_empty(len(rows), 1)
    for number, row in enumerate(rows):
        for size in (FIRST, 8 * FIRST, distance.shape[1]):
            places = best(-distance[number], min(size, distance.shape[1]))
            missing = (probabilities[number, places].cumsum(-1) < row.sampling.typical_p).sum()
            if missing < len(places):
                break
        bound[number] = distance[number, places[missing.clamp_max(len(places) - 1)]]
    return candidates.cut(distance > bound, keeps_best=False)


def xtc(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """With a chance, cuts all that reach the threshold but the least probable of them (p-e-w 2024)."""
    probabilities = candidates.probabilities()
    chance = [row.uniform(XTC) < row.sampling.xtc_probability for row in rows]
    high = probabilities >= column(rows, "xtc_threshold", probabilities)
    high &= torch.tensor(chance, device=high.device).unsqueeze(1)
    least = probabilities.masked_fill(~high, torch.inf)
    stays = least.argmin(-1, keepdim=True)  # a row without any: its mask is empty anyway
    return candidates.cut(high.scatter(1, stays, False), keeps_best=False)


def mirostat_1(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Cuts after the k-th, by Zipf's law the last whose expected surprise is within mu (Basu et al. 2021, alg. 1)."""
    surprise = -candidates.probabilities().log2()
    return replace(_first(candidates, _zipf_count(candidates, rows)), surprise=surprise)


def _zipf_count(candidates: Candidates, rows: Sequence[Row]) -> Tensor:
    """k of each row, (R,) int64: ((s - 1)·2^mu / (1 - V^(1-s)))^(1/s), the exponent s from the most probable ones."""
    head = candidates.probabilities()[:, :MIROSTAT_CANDIDATES].double()
    ranks = torch.arange(1, head.shape[1] + 1, device=head.device).double()
    steps = (ranks[1:] / ranks[:-1]).log()
    falls = (head[:, :-1] / head[:, 1:]).log()
    known = falls.isfinite()
    exponent = row_sum(steps * falls.masked_fill(~known, 0)) / row_sum(steps.square() * known)
    excess, mu = exponent - 1, _mu(rows, head)
    count = ((excess * 2**mu) / (1 - float(candidates.vocabulary) ** -excess)) ** (1 / exponent)
    return count.nan_to_num(nan=1.0, posinf=1e9).clamp(1, 1e9).long().squeeze(1)


def mirostat_2(candidates: Candidates, rows: Sequence[Row]) -> Candidates:
    """Cuts those whose surprise is above mu (Basu et al. 2021, algorithm 2)."""
    probabilities = candidates.probabilities()
    cut = _below(candidates, probabilities, torch.exp2(-_mu(rows, probabilities)))
    return replace(cut, surprise=-probabilities.log2())


def _mu(rows: Sequence[Row], like: Tensor) -> Tensor:
    return torch.tensor([[row.mu] for row in rows], dtype=like.dtype, device=like.device)


def _first(candidates: Candidates, counts: Tensor) -> Candidates:
    """The first `counts` (R,) of each row's sorted candidates."""
    places = torch.arange(candidates.scores.shape[1], device=counts.device)
    return candidates.cut(places >= counts.unsqueeze(1))


SAMPLERS: dict[str, Sampler] = {
    "penalties": penalties,
    "dry": dry,
    "temperature": temperature,
    "top_h": top_h,
    "top_k": top_k,
    "top_p": top_p,
    "min_p": min_p,
    "typical_p": typical_p,
    "epsilon_cutoff": epsilon_cutoff,
    "eta_cutoff": eta_cutoff,
    "top_n_sigma": top_n_sigma,
    "tail_free": tail_free,
    "top_a": top_a,
    "xtc": xtc,
    "mirostat_1": mirostat_1,
    "mirostat_2": mirostat_2,
}


def head_size(name: str, rows: Sequence[Row]) -> int:
    """How many of the most probable candidates a sampler wants sorted; 0: it takes them in any order."""
    if name == "top_k":
        return head_of(max(row.sampling.top_k for row in rows))
    return {"top_p": FIRST, "tail_free": FIRST, "mirostat_1": FIRST, "top_h": TOP_H_CANDIDATES}.get(name, 0)


def head_of(count: int) -> int:
    """`count` rounded up, so that rows of about the same top_k are one group and their sums have the same bits."""
    return 1 << max(count - 1, 63).bit_length()


def is_enough(name: str, head: Candidates, rows: Sequence[Row]) -> Tensor:
    """Whether the sampler's cut falls within the head of each row, (R,) bool."""
    if name == "top_p":
        return (head.probabilities().cumsum(-1)[:, -1:] >= column(rows, "top_p", head.scores)).squeeze(1)
    if name == "tail_free":  # |a - b| <= a + b, and the differences beyond sum to the last probability at most
        return _tail_start(head, rows, beyond=0.0) == _tail_start(head, rows, beyond=2.0)
    if name == "mirostat_1":
        return _zipf_count(head, rows) <= head.scores.shape[1]
    return torch.ones(len(rows), dtype=torch.bool, device=head.scores.device)
