"""One request on its way through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bottega.core.errors import BottegaError
from bottega.generate.constraint import Constraint
from bottega.generate.sampling import SamplerState
from bottega.generate.settings import Sampling

Status = Literal["waiting", "running", "ended"]
TokenScore = tuple[float, list[tuple[int, float]]]
"""The log-probability of a token, and the likeliest tokens at its place with theirs."""


@dataclass(eq=False)
class Request:
    """A prompt, its answer so far, and what of both is in the cache.

    Attributes:
        number: when it came; of equal priority the earlier one goes first.
        tokens: prompt and answer so far.
        prompt_length: tokens of the prompt.
        limit: the most tokens that it may come to have.
        sampling: its settings.
        seed: of its draws.
        priority: higher goes first.
        adapter: name of the adapter that its tokens pass through; None for the plain model.
        constraint: what its tokens must obey.
        computed: the first so many tokens have their keys and values in the cache.
        blocks: where those lie, in order.
        hashes: of its full blocks, as far as they were needed; they stay when the blocks are given back.
        tail: the hash of what is reusable beyond its last full block, and where that ends; set when it is let run.
        learnt: the first so many of its blocks are known to the pool.
        drafts: guesses of the next tokens, checked in the next step.
        cached: prompt tokens that were found in the cache.
        copy: a block whose beginning is to be copied to one of its own before it goes on.
        prompt_scores: of each prompt token (None before the first that is scored), if they are wanted.
        error: why it can go no further.
    """

    number: int
    tokens: list[int]
    prompt_length: int
    limit: int
    sampling: Sampling
    seed: int
    priority: int = 0
    adapter: str | None = None
    constraint: Constraint | None = None
    root: bytes = b""
    status: Status = "waiting"
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    tail: tuple[bytes, int] | None = None
    learnt: int = 0
    drafts: list[int] = field(default_factory=list)
    cached: int = 0
    copy: tuple[int, int] | None = None
    preemptions: int = 0
    state: SamplerState = field(default_factory=SamplerState)
    prompt_scores: list[TokenScore | None] | None = None
    error: BottegaError | None = None

    @property
    def end(self) -> int:
        """How many of its tokens have to be computed: the last one of a prompt that is only scored predicts nothing."""
        only_scored = self.prompt_scores is not None and self.limit == self.prompt_length
        return max(1, len(self.tokens) - only_scored)

    @property
    def missing(self) -> int:
        """Tokens that are not in the cache yet, drafts included: what the next steps have to compute."""
        return self.end + len(self.drafts) - self.computed

    @property
    def wants_token(self) -> bool:
        """Whether a token is to be chosen behind the newest one."""
        return self.limit > len(self.tokens)

    @property
    def reusable(self) -> int:
        """How many of its first tokens may be found in the cache: something must be computed to have logits."""
        usable = self.end - 1
        return min(usable, self.sampling.prompt_logprobs_from - 1) if self.wants_prompt_scores else usable

    @property
    def is_answering(self) -> bool:
        """Whether nothing but the newest token (and drafts) is missing."""
        return len(self.tokens) - self.computed == 1

    @property
    def wants_prompt_scores(self) -> bool:
        """Whether log-probabilities of the prompt's tokens are asked for and not all there."""
        return self.prompt_scores is not None and len(self.prompt_scores) < self.prompt_length

    @property
    def order(self) -> tuple[int, int]:
        """Who goes first."""
        return -self.priority, self.number
