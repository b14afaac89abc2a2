"""How the next token is chosen from its logits.

Logits → processors (what is forbidden or favoured) → samplers in the request's order → one draw by the inverse of the
cumulative distribution. Rows of a batch may have different settings: those that use the same samplers go through them
together, and no row's result depends on the others. Everything is in float32 or wider. Settings are in `settings`,
samplers in `samplers`, penalties in `penalties`, processors in `processors`; formulas and sources in docs/decoding.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bottega.generate.candidates import Candidates, best
from bottega.generate.draws import TOKEN, XTC, draw, greedy, uniform
from bottega.generate.processors import process
from bottega.generate.samplers import SAMPLERS, column, head_of, head_size, is_enough
from bottega.generate.settings import Sampling
from bottega.generate.trace import Drawn, Recorder, StepTrace

NOTHING = -1
# Rows are worked on in parts of about so many scores, which a core's cache holds.
PART = 2**19
# Where a head of the most probable candidates is not enough for a row, one so many times as long is tried.
LONGER = 8


@dataclass
class SamplerState:
    """What a request's samplers remember from step to step: mirostat's mu in bits (None: not begun)."""

    mu: float | None = None


@dataclass
class Row:
    """What the sampler needs to know of one request at one step.

    `tokens` are prompt and answer so far, `mask` the grammar's packed bits (ceil(V / 32),) int32 or None.
    """

    sampling: Sampling
    seed: int
    tokens: list[int]
    prompt_length: int
    state: SamplerState = field(default_factory=SamplerState)
    mask: Tensor | None = None

    @property
    def index(self) -> int:
        """Which token of the answer comes next, from 0."""
        return len(self.tokens) - self.prompt_length

    @property
    def mu(self) -> float:
        """Mirostat's bound on the surprise, in bits; it begins at twice the target."""
        return 2 * self.sampling.mirostat_tau if self.state.mu is None else self.state.mu

    def uniform(self, which: int) -> float:
        """This step's number for `which` decision."""
        return uniform(self.seed, self.index, which)


@dataclass(frozen=True)
class Choice:
    """The token that follows; -1 where none may: the request forbids every token, and must end.

    `logprob` and `top` (the most probable tokens) are the model's own, in nats, before any processor or sampler (at the
    request's `logprobs_temperature`, which is 1 unless it says otherwise).
    """

    token: int
    logprob: float | None
    top: list[tuple[int, float]]
    trace: StepTrace | None


@torch.inference_mode()
def choose(logits: Tensor, rows: Sequence[Row]) -> list[Choice]:
    """The next token of each row.

    Args:
        logits: (R, V), any floating type; not changed.
        rows: R of them; mirostat's state moves on.
    """
    recorders = [Recorder(line) if row.sampling.trace else None for line, row in zip(logits, rows, strict=True)]
    tokens = [NOTHING] * len(rows)
    traces: list[StepTrace | None] = [None] * len(rows)
    for candidates in _survivors(process(logits, rows, recorders), rows, recorders):
        group = [rows[number] for number in candidates.numbers]
        chosen, shares = _draw(candidates, group)
        for place, (number, row) in enumerate(zip(candidates.numbers, group, strict=True)):
            tokens[number] = chosen[place]
            if recorder := recorders[number]:
                traces[number] = recorder.trace(_drawn(candidates, place, row, chosen[place], shares[place]))
        _learn(candidates, group, chosen)
    told = _told(logits, rows, tokens)
    return [Choice(token, *told[number], traces[number]) for number, token in enumerate(tokens)]


@torch.inference_mode()
def distribution(logits: Tensor, rows: Sequence[Row], *, ordered: bool = True) -> tuple[Tensor, Tensor]:
    """What `choose` draws from: tokens (R, K) int64 and their probabilities (R, K) float32, 0 in what fills a row up.

    Most probable first; without `ordered`, a row that no sampler has sorted keeps the vocabulary's order, which saves
    a sort of it. A row that may say nothing has probability 0 everywhere.
    """
    found: list[tuple[Tensor, Tensor]] = [(logits.new_zeros(0, dtype=torch.int64), logits.new_zeros(0))] * len(rows)
    for candidates in _survivors(process(logits, rows), rows, None):
        for place, number in enumerate(candidates.numbers):
            line = candidates.scores[place]
            if rows[number].sampling.is_greedy:
                order, probabilities = greedy(line.unsqueeze(0)), line.new_ones(1)
            else:
                left = int((line > -torch.inf).sum())
                order = best(line, left) if ordered else (line > -torch.inf).nonzero().squeeze(1)
                probabilities = line.softmax(-1)[order]
            found[number] = candidates.tokens[place, order], probabilities
    width = max((len(tokens) for tokens, _ in found), default=0)
    tokens = logits.new_zeros((len(rows), width), dtype=torch.int64)
    probabilities = logits.new_zeros((len(rows), width), dtype=torch.float32)
    for number, (ids, values) in enumerate(found):
        tokens[number, : len(ids)], probabilities[number, : len(ids)] = ids, values.float()
    return tokens, probabilities


def _survivors(
    scores: Tensor, rows: Sequence[Row], recorders: Sequence[Recorder | None] | None
) -> Iterator[Candidates]:
    """What the samplers leave of the processed scores (R, V), by groups of rows; rows that may say nothing are in none.

    A traced row is a group of its own, so that its recorder sees each step.
    """
    groups: dict[tuple[tuple[str, ...], int, bool, int], list[int]] = defaultdict(list)
    for number, highest in enumerate(scores.amax(-1).isfinite().tolist()):
        if highest:  # not -inf (all forbidden), and not NaN (a broken model)
            sampling = rows[number].sampling
            chain = tuple(name for name in sampling.chain if name != "top_k" or sampling.top_k < scores.shape[1])
            head = head_of(sampling.top_k) if "top_k" in chain else 0
            traced = number if recorders and recorders[number] else -1
            groups[chain, head, sampling.is_greedy, traced].append(number)
    for (chain, _, _, traced), numbers in groups.items():
        recorder = recorders[traced] if recorders and traced >= 0 else None
        step = max(1, PART // scores.shape[1])
        for part in (numbers[begin : begin + step] for begin in range(0, len(numbers), step)):
            is_slice = part[-1] - part[0] == len(part) - 1
            lines = scores[part[0] : part[-1] + 1] if is_slice else scores[part]
            yield from _run(Candidates.whole(part, lines), rows, chain, recorder)


def _run(
    candidates: Candidates, rows: Sequence[Row], chain: Sequence[str], recorder: Recorder | None, longer: int = 1
) -> Iterator[Candidates]:
    """`candidates` after the samplers of `chain`; in several parts where some rows need more of a head than others."""
    for place, name in enumerate(chain):
        group = [rows[number] for number in candidates.numbers]
        size = head_size(name, group) * longer
        if size and not candidates.is_sorted:
            head = candidates.head(size) if size < candidates.scores.shape[1] else candidates.sorted()
            enough = is_enough(name, head, group)
            if head.mass is not None and not enough.all():
                rest = candidates.take((~enough).nonzero().squeeze(1))
                yield from _run(rest, rows, chain[place:], recorder, longer * LONGER)
                head = head.take(enough.nonzero().squeeze(1))
                if not head.numbers:
                    return
            candidates, longer = head, 1
        candidates = SAMPLERS[name](candidates, [rows[number] for number in candidates.numbers])
        if recorder:
            recorder.note(name, candidates.scores[0], candidates.tokens[0])
    yield candidates


def _draw(candidates: Candidates, rows: Sequence[Row]) -> tuple[list[int], list[tuple[float, float] | None]]:
    """The token of each row, and its share of [0, 1) (None: greedy). All rows are greedy or none is."""
    shares: list[tuple[float, float] | None] = [None] * len(rows)
    if rows[0].sampling.is_greedy:
        places = greedy(candidates.scores)
    else:
        numbers = torch.tensor([row.uniform(TOKEN) for row in rows], dtype=torch.float64)
        places, low, high = draw(candidates.scores.softmax(-1), numbers)
        shares = list(zip(low.tolist(), high.tolist(), strict=True))
    return candidates.tokens.gather(1, places.unsqueeze(1)).squeeze(1).tolist(), shares


def _drawn(candidates: Candidates, place: int, row: Row, token: int, share: tuple[float, float] | None) -> Drawn:
    tokens, probabilities = candidates.tokens[place], candidates.scores[place].softmax(-1)
    if share is None:
        tokens, probabilities = tokens.new_tensor([token]), probabilities.new_ones(1)
    return Drawn(
        tokens,
        probabilities,
        token,
        uniform=None if share is None else row.uniform(TOKEN),
        share=share,
        xtc_uniform=row.uniform(XTC) if "xtc" in row.sampling.chain else None,
        mu=row.mu if row.sampling.mirostat else None,
    )


def _learn(candidates: Candidates, rows: Sequence[Row], tokens: Sequence[int]) -> None:
    """Mirostat moves mu against the error of the surprise (Basu et al. 2021, algorithm 1, last line)."""
    if candidates.surprise is None:
        return
    for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        surprise = float(candidates.surprise[place, candidates.tokens[place] == token])
        row.state.mu = row.mu - row.sampling.mirostat_eta * (surprise - row.sampling.mirostat_tau)


def _told(
    logits: Tensor, rows: Sequence[Row], tokens: Sequence[int]
) -> list[tuple[float | None, list[tuple[int, float]]]]:
    """Log-probability of the chosen token and the most probable ones, for the rows that want them."""
    told: list[tuple[float | None, list[tuple[int, float]]]] = [(None, []) for _ in rows]
    wanted = [number for number, row in enumerate(rows) if row.sampling.wants_logprobs]
    if not wanted:
        return told
    scores = logits[wanted].float()
    scores = scores / column([rows[number] for number in wanted], "logprobs_temperature", scores)
    for number, line in zip(wanted, scores.log_softmax(-1), strict=True):
        ids = best(line, min(rows[number].sampling.top_logprobs, len(line)))
        top = list(zip(ids.tolist(), line[ids].tolist(), strict=True))
        told[number] = (None if tokens[number] == NOTHING else float(line[tokens[number]])), top
    return told
