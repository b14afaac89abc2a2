"""Beam search, and diverse beam search (Vijayakumar et al. 2016, arXiv:1610.02424), which is several beam searches.

Each step keeps, of all continuations of the open beams, the `num_beams` most probable ones. An answer is ranked by its
log-probability over its length to the power `length_penalty`, which is transformers' definition. `early_stopping` says
when to end:

- true: as soon as `num_beams` · `patience` answers are finished, first come, first served (patience is Kasai et al.
  2022, arXiv:2204.05424, section 3);
- "never": as soon as no open beam can still become one of the best n, however it goes on;
- false: transformers' guess, which takes an open beam's score at its present length for the best that it can reach.

Where the end is decided by what open beams can reach at best, each beam that cannot is dropped at once: all that grows
from it, and all that was ranked below it, is out of question too, so that the answers stay the same. (Not so with
groups, where a beam that cannot win still counts for others.)

With groups, each group searches by itself, one after the other within a step, and tokens that earlier groups chose in
this step cost it `diversity_penalty` each time (Hamming diversity). All beams of all groups are one batch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from bottega.generate.search.hypothesis import Hypothesis, Reader, nothing_follows, scores_of
from bottega.generate.search.rows import Rows
from bottega.generate.search.settings import Search
from bottega.generate.settings import Sampling

Tree = list[dict[str, Any]]


@dataclass
class _Beam:
    """An answer under way: `total` is what its tokens scored, `row` its place in the batch, `id` its node in a tree."""

    tokens: list[int]
    total: float
    logprob: float
    row: int
    id: int
    reader: Reader


@torch.inference_mode()
def beam_search(
    rows: Rows, sampling: Sampling, search: Search, reader: Reader, tree: Tree | None = None
) -> list[Hypothesis]:
    """The best `num_return_sequences` answers, best first (fewer where there are no more).

    Args:
        rows: the prompt; they are at least `num_beams`.
        sampling: its processors change the scores, which are normalised again.
        search: the settings of beams.
        reader: reads the answers, and says which are over.
        tree: gets, for each step, the beams that it kept: plain data for an explorer. A node has `id`, `parent` (0 is
            the prompt), `group`, `token`, `logprob` (of the token), `total`, `score` (of the total at this length)
            and `state` (open, finished, pruned).

    Raises UserError if every token is forbidden before an answer is over.
    """
    ids = count(1)
    groups = [
        _Group(number, rows.max_new_tokens, search, sampling, reader, ids) for number in range(search.num_beam_groups)
    ]
    logits = rows.begin()
    for step in range(1, rows.max_new_tokens + 1):
        own = logits.log_softmax(-1)
        histories = {beam.row: beam.tokens for group in groups for beam in group.open}  # all begin with row 0
        scores = scores_of(logits, rows.prompt, list(histories.values()), sampling)
        chosen, nodes = Counter[int](), []
        for group in groups:
            nodes += group.grow(scores, own, step, chosen)
            chosen.update(beam.tokens[-1] for beam in group.open)
        if tree is not None:
            tree.append({"step": step, "beams": nodes})
        open_ = [beam for group in groups for beam in group.open]
        if not open_:
            break
        logits = rows.step([beam.tokens[-1] for beam in open_], [beam.row for beam in open_])
        for row, beam in enumerate(open_):
            beam.row = row
    found = sorted((answer for group in groups for answer in group.finished), key=lambda answer: -answer.score)
    if not found:
        raise nothing_follows()
    return found[: search.num_return_sequences]


class _Group:
    """One beam search among those that share the batch: its open beams, and its best finished answers, best first."""

    def __init__(
        self, number: int, max_new_tokens: int, search: Search, sampling: Sampling, reader: Reader, ids: Iterator[int]
    ) -> None:
        self.number, self.longest, self.search, self.ids = number, max_new_tokens, search, ids
        self.width = search.num_beams // search.num_beam_groups
        # So many candidates that `width` of them stay open, whatever stop tokens are among them.
        self.candidates = max(2, 1 + len(sampling.stop_token_ids)) * self.width
        # Greedy decoding ends with the first stop token, and so does a search of one beam.
        self.first_come = search.early_stopping is True or search.num_beams == 1
        self.exact = search.early_stopping == "never" or search.length_penalty <= 0
        if self.first_come:
            self.enough = math.ceil(self.width * search.patience - 1e-9)
        else:
            self.enough = min(self.width, search.num_return_sequences) if self.exact else self.width
        self.open = [_Beam([], 0.0, 0.0, 0, 0, reader)]
        self.finished: list[Hypothesis] = []

    def grow(self, scores: Tensor, own: Tensor, step: int, chosen: Counter[int]) -> list[dict[str, Any]]:
        """One step: the best continuations of the open beams; returns their nodes.

        Args:
            scores: (R, V) log-probabilities that count, of all rows.
            own: (R, V) log-probabilities before any processor.
            step: tokens that the answers have then.
            chosen: tokens that earlier groups chose in this step, with their numbers.
        """
        if not self.open:
            return []
        batch = [beam.row for beam in self.open]
        scores, own = scores[batch], own[batch]
        if chosen:
            counts = scores.new_tensor(list(chosen.values()))
            scores[:, list(chosen)] -= self.search.diversity_penalty * counts
        totals = (scores + scores.new_tensor([[beam.total] for beam in self.open])).flatten()
        best, places = totals.topk(min(self.candidates, len(totals)))
        parents, self.open, nodes = self.open, [], []
        found = zip(best.tolist(), places.tolist(), own.flatten()[places].tolist(), strict=True)
        for rank, (total, place, logprob) in enumerate(found):
            if total == -math.inf or len(self.open) == self.width:
                break
            row, token = divmod(place, scores.shape[1])
            parent = parents[row]
            beam = _Beam([*parent.tokens, token], total, parent.logprob + logprob, parent.row, 0, parent.reader.fork())
            stopped = beam.reader.add(token)
            if not stopped and step < self.longest:
                self.open.append(beam)
            elif rank < self.width:
                score, text = self._score(total, step), beam.reader.finish()
                reason = "stop" if stopped else "length"
                self.finished.append(Hypothesis(beam.tokens, score, beam.logprob, text, reason))
            else:
                continue
            beam.id = next(self.ids)
            nodes.append(self._node(beam, parent, logprob, step, finished=stopped or step == self.longest))
        self._settle(step)
        kept = {beam.id for beam in self.open}
        return [
            node if node["id"] in kept or node["state"] == "finished" else node | {"state": "pruned"} for node in nodes
        ]

    def _settle(self, step: int) -> None:
        """Keep the best finished answers, and of the open beams those that may still become one."""
        self.finished.sort(key=lambda answer: -answer.score)
        del self.finished[self.enough :]
        if not self.open or len(self.finished) < self.enough:
            return
        if self.first_come:
            self.open = []
        elif self.exact:
            # Totals only fall. A positive penalty favours the longest answer there can be, a negative one the shortest.
            length = self.longest if self.search.length_penalty > 0 else step + 1
            worst = self.finished[-1].score
            winning = [beam for beam in self.open if self._score(beam.total, length) > worst]
            # What a group's beams choose counts for later groups, as long as the group goes on.
            self.open = winning if self.search.num_beam_groups == 1 or not winning else self.open
        elif self._score(max(beam.total for beam in self.open), step) <= self.finished[-1].score:
            self.open = []

    def _score(self, total: float, length: int) -> float:
        return total / length**self.search.length_penalty

    def _node(self, beam: _Beam, parent: _Beam, logprob: float, step: int, *, finished: bool) -> dict[str, Any]:
        return {
            "id": beam.id,
            "parent": parent.id,
            "group": self.number,
            "token": beam.tokens[-1],
            "logprob": logprob,
            "total": beam.total,
            "score": self._score(beam.total, step),
            "state": "finished" if finished else "open",
        }
