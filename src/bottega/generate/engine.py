"""The engine: requests come and go, and every step brings each of those that run nearer to its end.

Continuous batching (Yu et al. 2022, Orca) over a paged cache with shared prefixes. Read `request`, `blocks`,
`scheduler`, `runner` and `sampling` first; this file joins them. The engine knows tokens, not texts: what ends an
answer beside its length is decided by who called (`Generator`).

With the compiled kernels (`model.kernels`) a request's tokens do not depend on what else is in the batch, on how its
prompt was cut into steps, on shared prefixes, preemption or speculation, to the last bit: in every precision.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bottega.core.errors import BottegaError, UserError
from bottega.generate.blocks import BlockPool, root_hash
from bottega.generate.constraint import Constraint, MaskFiller
from bottega.generate.draws import fresh_seed
from bottega.generate.request import Request
from bottega.generate.runner import Runner
from bottega.generate.sampling import Choice, Row, choose
from bottega.generate.scheduler import Scheduler, Work
from bottega.generate.settings import Sampling
from bottega.generate.speculate.verify import match
from bottega.generate.speculation import Speculator
from bottega.model.paged import BLOCK

STEP_TOKENS = 512  # of prompts in one step: those that answer wait no longer than that takes


@dataclass
class Counts:
    """What the engine has done so far."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0


class Engine:
    """Runs requests together. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        runner: Runner,
        *,
        max_batch: int,
        step_tokens: int = STEP_TOKENS,
        speculator: Speculator | None = None,
    ) -> None:
        self.runner = runner
        self.pool = BlockPool(runner.cache.blocks)
        self.scheduler = Scheduler(self.pool, max_batch=max_batch, step_tokens=step_tokens)
        self.speculator = speculator
        self.counts = Counts()
        self._weights = 0  # how often they were changed
        self._masks = MaskFiller(runner.decoder.config.vocab_size)
        self._number = 0

    @property
    def capacity(self) -> int:
        """The most tokens that one request may have."""
        return min(self.runner.decoder.config.context_length, self.pool.count * BLOCK)

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return bool(self.scheduler.running or self.scheduler.waiting)

    def room(self, prompt_tokens: int, sampling: Sampling) -> int:
        """How many tokens an answer may have: what is asked for, as far as there is room behind the prompt."""
        return max(0, min(sampling.max_new_tokens, self.capacity - prompt_tokens))

    def add(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        priority: int = 0,
        adapter: str | None = None,
        constraint: Constraint | None = None,
    ) -> Request:
        """A new request; raises UserError if it does not fit, or names what is not there."""
        limit = len(prompt) + self.room(len(prompt), sampling)
        adapters = self.runner.adapters.names if self.runner.adapters else []
        if adapter is not None and adapter not in adapters:
            raise UserError(f"there is no adapter {adapter!r}", hint=f"There are: {', '.join(adapters) or 'none'}.")
        vocabulary = self.runner.decoder.config.vocab_size
        wrong = next((id_ for id_ in prompt if not 0 <= id_ < vocabulary), None)
        if wrong is not None:
            raise UserError(f"token {wrong} is outside the model's vocabulary of {vocabulary}")
        if not prompt:
            raise UserError("the prompt is empty", hint="Give at least one token.")
        # The last token of a prompt that is only scored need not be computed.
        beyond = min(sampling.max_new_tokens, 1) or -(sampling.prompt_logprobs is not None)
        if len(prompt) + beyond > self.capacity:
            narrow = self.capacity < self.runner.decoder.config.context_length
            why = "its cache holds no more" if narrow else "the model's context"
            raise UserError(
                f"the prompt has {len(prompt)} tokens, and there is room for {self.capacity} with the answer ({why})",
                hint=f"Shorten it{', or give more --cache-tokens' if narrow else ''}; nothing is cut off silently.",
            )
        request = Request(
            number=self._number,
            tokens=list(prompt),
            prompt_length=len(prompt),
            limit=limit,
            sampling=sampling,
            seed=fresh_seed() if sampling.seed is None else sampling.seed,
            priority=priority,
            adapter=adapter,
            constraint=constraint,
            root=root_hash(adapter, self.runner.decoder.regime(limit), self._weights),
            prompt_scores=None if sampling.prompt_logprobs is None else [],
        )
        self._number += 1
        self.scheduler.add(request)
        return request

    def forget_prefixes(self) -> None:
        """The weights have changed: what was computed before is found by no request that comes from now on.

        Its blocks are the first to be written over. Raises BottegaError while a request is under way, whose keys would
        be of two models.
        """
        if self.has_work:
            raise BottegaError("the weights changed while requests were under way", hint="End the requests first.")
        self._weights += 1

    def end(self, request: Request) -> None:
        """The request has what it wanted, or is not wanted any more."""
        if request.status == "ended":
            return
        self.counts.prompt_tokens += request.prompt_length
        self.counts.cached_tokens += request.cached
        self.scheduler.remove(request)
        if not self.has_work:
            self.check_integrity()
        if self.speculator is not None:
            self.speculator.forget(request)

    @torch.inference_mode()
    def step(self) -> list[tuple[Request, list[Choice]]]:
        """Compute one step; the new tokens (several where drafts stood) of those requests that have any.

        A request that wants no tokens is among them once, without any, when its prompt has run. One with a token -1
        (none may follow) or an `error` is to be ended.
        """
        started = time.perf_counter()
        if self.speculator is not None:
            self.speculator.draft(self._answering(), self.pool.free)
        drafted = time.perf_counter()
        work = self.scheduler.schedule()
        if not work:
            return []
        ready = [each.request for each in work if each.catches_up and each.request.wants_token]
        bound = [request for request in ready if request.constraint is not None]
        filling = self._masks.start([request.constraint for request in bound]) if bound else None
        logits = self.runner.run(work)
        masks: dict[Request, Tensor | None] = dict.fromkeys(ready)
        if filling is not None:
            masks |= dict(zip(bound, filling.result(), strict=True))
        produced = self._choose(work, logits, masks)
        for each in work:
            self.scheduler.advance(each.request, self._reached(each))
        self.counts.steps += 1
        self.counts.generated_tokens += sum(len(choices) for _, choices in produced)
        if self.speculator is not None:
            self.speculator.learn(work, produced, time.perf_counter() - drafted, drafted - started)
        for each in work:
            each.request.drafts = []
        return produced

    def check_integrity(self) -> None:
        """Raise AssertionError where something does not add up: no block may be lost, or counted twice."""
        self.scheduler.check_integrity()

    def close(self) -> None:
        """End the thread that fills masks."""
        self._masks.close()

    def _answering(self) -> list[Request]:
        return [request for request in self.scheduler.running if request.is_answering]

    def _reached(self, work: Work) -> int:
        """How many of the request's tokens are in the cache behind this step: drafts that fell are not."""
        end = work.request.computed + work.count
        return min(end, len(work.request.tokens) - 1) if work.catches_up else end

    def _choose(
        self, work: Sequence[Work], logits: Tensor | None, masks: dict[Request, Tensor | None]
    ) -> list[tuple[Request, list[Choice]]]:
        """Choose the next tokens, and add them to their requests."""
        rows: list[Row] = []
        spans: list[tuple[Request, int]] = []
        for each in work:
            request = each.request
            if not each.catches_up:
                continue
            added = self._rows(request, masks[request]) if request in masks else []
            spans.append((request, len(added)))
            rows += added
        choices = iter([] if logits is None else choose(logits, rows))
        produced = []
        for request, count in spans:
            found = [next(choices) for _ in range(count)]
            stood, _ = match(request.drafts, [choice.token for choice in found]) if found else (0, 0)
            taken = found[: stood + 1]
            request.tokens += [choice.token for choice in taken]
            if request.constraint is not None:
                _tell(request, request.constraint, taken)
            produced.append((request, taken))
        return produced

    def _rows(self, request: Request, mask: Tensor | None) -> list[Row]:
        """The rows of a request: behind its newest token, and behind each draft as if those before it stood."""
        rows = []
        for place in range(1 + len(request.drafts)):
            tokens = [*request.tokens, *request.drafts[:place]] if place else request.tokens
            rows.append(Row(request.sampling, request.seed, tokens, request.prompt_length, request.state, mask))
        return rows


def _tell(request: Request, constraint: Constraint, choices: Sequence[Choice]) -> None:
    """Let the constraint go on; where it cannot, this request alone fails."""
    try:
        for choice in choices:
            if choice.token >= 0:  # else no token may follow, and the request ends
                constraint.accept(choice.token)
    except BottegaError as error:
        request.error = error
