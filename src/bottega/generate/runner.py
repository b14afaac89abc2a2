"""From a step's work to logits: one pass of the decoder over the tokens of all requests.

Only the rows that a token is chosen from, or whose log-probability is wanted, meet the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bottega.generate.request import Request, TokenScore
from bottega.generate.scheduler import Work
from bottega.model.adapters import AdapterRows
from bottega.model.decoder import Decoder
from bottega.model.paged import PagedCache, Span, Step

LOGITS_AT_ONCE = 1 << 22  # of a prompt that is scored: 16 MiB in float32


class Runner:
    """A decoder with a paged cache, and the adapters that rows may pass through."""

    def __init__(self, decoder: Decoder, cache: PagedCache, adapters: AdapterRows | None = None) -> None:
        self.decoder, self.cache, self.adapters = decoder, cache, adapters

    @torch.inference_mode()
    def run(self, work: Sequence[Work]) -> Tensor | None:
        """Compute; the logits (R, V) behind the newest token (and each draft) of those requests that catch up
        and want a token.

        R counts their rows in the order of `work`, 1 + drafts each; None if there are none. Log-probabilities of
        prompts are put into their requests.
        """
        for each in work:  # in this order: what was copied from may be what a later one is copied to
            if each.request.copy is not None:
                self.cache.copy(*each.request.copy)
                each.request.copy = None
        step = Step(self.cache, [self._span(each) for each in work])
        if self.adapters is not None:
            self.adapters.begin([(each.request.adapter, each.count) for each in work])
        hidden = self.decoder.advance(step)
        if self.adapters is not None:
            self.adapters.begin([])  # what passes through the layers until the next step (drafts, say) has none
        rows: list[int] = []
        end = 0
        for each in work:
            start, end = end, end + each.count
            if each.request.wants_prompt_scores:
                self._score_prompt(each, hidden[start:end])
            if each.catches_up and each.request.wants_token:
                rows += range(end - 1 - len(each.request.drafts), end)
        return self.decoder.logits(hidden[rows]) if rows else None

    def _span(self, work: Work) -> Span:
        request = work.request
        tokens = request.tokens[request.computed : request.computed + work.count]
        tokens += request.drafts[: work.count - len(tokens)]
        return Span(tokens, request.computed, request.blocks, request.limit)

    def _score_prompt(self, work: Work, hidden: Tensor) -> None:
        """Score the prompt tokens that stand behind these rows."""
        request = work.request
        assert request.prompt_scores is not None
        first = min(max(request.computed + 1, request.sampling.prompt_logprobs_from), request.prompt_length)
        # What stands there for these tokens is of a step that failed.
        known = request.prompt_scores[:first]
        request.prompt_scores = [*known, *[None] * (first - len(known))]
        targets = request.tokens[first : min(request.computed + work.count + 1, request.prompt_length)]
        hidden = hidden[first - 1 - request.computed :]
        chunk = max(1, LOGITS_AT_ONCE // self.decoder.config.vocab_size)
        for start in range(0, len(targets), chunk):
            part = targets[start : start + chunk]
            request.prompt_scores += self._scores(hidden[start : start + len(part)], part, request)

    def _scores(self, hidden: Tensor, targets: Sequence[int], request: Request) -> list[TokenScore]:
        logprobs = self.decoder.logits(hidden).float().log_softmax(-1)
        picked = logprobs.gather(1, torch.tensor(targets, device=logprobs.device).unsqueeze(1)).squeeze(1).tolist()
        count, named = request.sampling.prompt_logprobs or 0, list(request.sampling.prompt_logprob_ids)
        if not count and not named:
            return [(value, []) for value in picked]
        values, ids = logprobs.topk(min(count, logprobs.shape[1]))
        tops = [list(zip(*pair, strict=True)) for pair in zip(ids.tolist(), values.tolist(), strict=True)]
        if named:
            tops = [
                top + list(zip(named, row, strict=True))
                for top, row in zip(tops, logprobs[:, named].tolist(), strict=True)
            ]
        return list(zip(picked, tops, strict=True))
