"""An answer as it comes: from tokens to pieces of text, up to whatever ends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bottega.core.errors import BottegaError
from bottega.generate.request import Request, TokenScore
from bottega.generate.sampling import Choice
from bottega.generate.settings import Sampling
from bottega.generate.speculate.controller import Speculation
from bottega.generate.stopping import StopStrings
from bottega.generate.trace import StepTrace
from bottega.tokenizer.tokenizer import Detokenizer, Tokenizer

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """One generated token. `text` may be empty (half a character, held back for a stop string, a stop token).

    `logprob` (where it is wanted) and `top` are the model's own log-probabilities in nats, before penalty,
    temperature and truncation. The last piece, and only it, has a `finish_reason`.
    """

    text: str
    token_id: int
    token_text: str
    logprob: float | None
    top: list[tuple[str, float]]
    finish_reason: FinishReason | None = None
    trace: StepTrace | None = None


@dataclass(frozen=True)
class Completion:
    """A whole answer; `token_ids` include the stop token that ended it, `text` does not."""

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    prompt_tokens: int
    pieces: list[Piece]
    cached_tokens: int = 0
    prompt_logprobs: list[TokenScore | None] | None = None
    speculation: Speculation | None = None


@dataclass(eq=False)
class Ticket:
    """One request under way: what was asked, and how far the answer has come.

    `error` is set where it can go no further (no token may follow, say); then it has ended without a finish reason.
    """

    request: Request
    answer: Answer
    speculation: Speculation | None = None
    finish_reason: FinishReason | None = None
    error: BottegaError | None = None
    pieces: int = field(default=0)

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt."""
        return self.request.tokens[: self.request.prompt_length]

    @property
    def sampling(self) -> Sampling:
        """The settings."""
        return self.request.sampling

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens whose keys and values were found in the prefix cache."""
        return self.request.cached

    @property
    def prompt_logprobs(self) -> list[TokenScore | None] | None:
        """Of each prompt token (None for the first), if they were asked for; complete once there is a piece."""
        return self.request.prompt_scores

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        return self.finish_reason is not None or self.error is not None


class Answer:
    """What has been said so far in one answer; `sampling` names every token that ends it, the model's own too."""

    def __init__(self, tokenizer: Tokenizer, sampling: Sampling, previous: int, limit: int) -> None:
        self.tokenizer, self.sampling, self.limit = tokenizer, sampling, limit
        self.text = Detokenizer(tokenizer, previous=previous)
        self.stops = StopStrings.of(sampling)
        self.enders = frozenset(sampling.stop_token_ids)
        self.count = 0

    def add(self, choice: Choice) -> Piece:
        """The next piece."""
        self.count += 1
        token = choice.token
        ended = token in self.enders
        may_stop = self.count >= self.sampling.min_new_tokens
        is_last = ended or self.count == self.limit
        shown = "" if ended else self.stops.add(self.text.add(token), may_stop=may_stop)
        if is_last and not self.stops.found:
            shown += self.stops.add(self.text.flush(), may_stop=may_stop)
        if is_last and not self.stops.found:
            shown += self.stops.flush()
        reason: FinishReason | None = "stop" if ended or self.stops.found else "length" if is_last else None
        top = [(self.tokenizer.token_text(id_), value) for id_, value in choice.top]
        text = self.tokenizer.token_text(token)
        return Piece(shown, token, text, choice.logprob, top, reason, choice.trace)
