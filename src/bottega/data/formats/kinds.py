"""The kinds of example that rows of every format become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""role and content; of an assistant that calls tools tool_calls, of a tool name and tool_call_id, reasoning_content."""
Side = str | list[Message]
"""A part of an example: plain text, or messages."""
Tools = list[dict[str, Any]]


class Rejected(ValueError):
    """A row that cannot be used; the message is the reason, and quotes nothing of the row so that it can be counted."""


@dataclass(frozen=True)
class Text:
    """A text to train on as a whole."""

    text: str


@dataclass(frozen=True)
class Tokens:
    """Token ids, with True where they are trained (None: everywhere)."""

    ids: list[int]
    mask: list[bool] | None


@dataclass(frozen=True)
class Conversation:
    """Messages in turn. `weights`: of each message whether it is trained, None where the row does not say."""

    messages: list[Message]
    tools: Tools | None = None
    weights: list[bool | None] = field(default_factory=list)


@dataclass(frozen=True)
class Completion:
    """A plain text and how it goes on."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Pair:
    """A prompt with a better and a worse answer; the three are all text or all messages."""

    prompt: Side
    chosen: Side
    rejected: Side
    tools: Tools | None = None
    scores: tuple[float, float] | None = None
    margin: float | None = None


@dataclass(frozen=True)
class Ranked:
    """A prompt with several answers, each with a score: the higher the better."""

    prompt: Side
    answers: list[Side]
    scores: list[float]
    are_ranks: bool = False
    tools: Tools | None = None

    def pairs(self, *, every: bool) -> Iterator[Pair]:
        """The best with the worst, or `every` two answers of different scores, the better one first."""
        order = sorted(range(len(self.scores)), key=lambda index: -self.scores[index])
        if not every:
            order = [order[0], order[-1]]
        for at, better in enumerate(order):
            for worse in order[at + 1 :]:
                if self.scores[better] > self.scores[worse] and self.answers[better] != self.answers[worse]:
                    scores = None if self.are_ranks else (self.scores[better], self.scores[worse])
                    yield Pair(self.prompt, self.answers[better], self.answers[worse], self.tools, scores)


@dataclass(frozen=True)
class Labelled:
    """A prompt and an answer that is good (True) or bad."""

    prompt: Side
    completion: Side
    label: bool
    tools: Tools | None = None


@dataclass(frozen=True)
class Prompt:
    """What a model is to answer; `row` is all that its row says."""

    prompt: Side
    row: dict[str, Any]
    tools: Tools | None = None


Example = Text | Tokens | Conversation | Completion | Pair | Ranked | Labelled | Prompt
