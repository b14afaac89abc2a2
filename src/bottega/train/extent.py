"""How much of the data a step takes, and how much of it at once. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bottega.data.spec import TokensSpec
from bottega.train.config import POLICY_STAGES
from bottega.train.settings import Settings


@dataclass(frozen=True)
class Extent:
    """Tokens of a run, as its plan foresees them.

    Attributes:
        document: tokens of a document on average, cut at the row's length.
        step: tokens of a step; an answer is counted at its greatest length.
        part: tokens of one part of a step.
        trained: share of the tokens whose logits are formed.
        parts: of a step.
        cached: tokens of the longest prompt and answer, where the stage draws answers.
    """

    document: float
    step: float
    part: int
    trained: float
    parts: int
    cached: int = 0

    @classmethod
    def of(cls, settings: Settings, data: TokensSpec) -> Extent:
        """Of a run on this data."""
        config, row = settings.config, settings.row_length
        document = min(data.tokens / max(data.documents, 1), row)
        longest = min(data.longest or math.ceil(document), row)
        share = data.trained_tokens / max(data.tokens, 1)
        if settings.rows_per_step:
            step, least, cached = float(settings.rows_per_step * row), row, 0
        elif config.stage in POLICY_STAGES:
            answer = config.policy.max_new_tokens
            step = settings.examples_per_step * config.policy.group * (document + answer)
            least = cached = longest + answer
            share = answer / max(document + answer, 1)
        else:
            each = 2 if config.form == "pairs" else 1
            step, least, cached = settings.examples_per_step * each * document, each * longest, 0
        part = math.ceil(max(least, min(config.micro_batch_tokens, step)))
        return cls(document, step, part, 0.0 if config.stage == "reward" else share, math.ceil(step / part), cached)
