"""Settings of the verb `sample`. Imports no torch."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, model_validator

from bottega.core.schema import OnModel, Seed, Writes
from bottega.train.rewards.config import RewardSettings, names_of

_KEEP = re.compile(r"(best|above|pairs|all)(?::([-+]?\d+(?:\.\d+)?))?")


def parse_keep(text: str) -> tuple[str, float | None]:
    """`best`, `best:0.5`, `above:0.5`, `pairs` or `all` → what is kept, and the least score. Raises ValueError."""
    match = _KEEP.fullmatch(text)
    if match is None or (match[1] == "above") > (match[2] is not None) or (match[2] and match[1] in ("pairs", "all")):
        raise ValueError("best, best:SCORE, above:SCORE, pairs or all is wanted, for example above:0.5")
    return match[1], float(match[2]) if match[2] else None


def _keep(text: str) -> str:
    parse_keep(text)
    return text


class SampleAnswers(Writes, OnModel):
    """Let a model answer prompts several times, score the answers, and keep the best, or pairs of good and bad ones."""

    sections = {
        "data": "Prompts",
        "n": "Answers",
        "reward": "Scores",
        "keep": "What is kept",
        "model": "Model and machine",
    }
    without_effect: ClassVar = frozenset({"api_key_env", "max_batch", "cache_tokens"})

    data: Path
    """Prompts in any of the usual formats (rows with prompt, question or messages), with the fields rewards need."""
    plain: bool = False
    """Continue the prompts as plain text, without the chat template."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first LIMIT prompts."""
    n: int = Field(default=8, ge=1, le=1024)
    """Answers to each prompt."""
    temperature: float = Field(default=1.0, ge=0)
    """0 takes the most probable token each time; 1 draws from the model's distribution."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability that tokens are drawn from."""
    top_k: int = Field(default=0, ge=0)
    """Draw from so many tokens at most (0: all)."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer, in tokens; a longer one is cut off, and not kept."""
    max_batch: int = Field(default=32, ge=1, le=4096)
    """Answers that are written at once."""
    cache_tokens: int | None = Field(default=None, ge=1)
    """Tokens that the cache holds (default: full contexts for a full batch, within a quarter of the free memory)."""
    reward: tuple[RewardSettings, ...] = ()
    """What answers are scored by: '{type: exact, field: answer}'; several are added. See docs/rewards.md."""
    reward_model: str | None = None
    """Reward model to score by, a folder."""
    judge: str | None = None
    """Judge to score by: URL of an OpenAI-compatible endpoint, or a model folder."""
    judge_model: str | None = None
    """Model to ask for at the judge's endpoint (default: the one that it lists)."""
    api_key_env: str | None = None
    """Environment variable with the endpoint's key (default: BOTTEGA_API_KEY, if it is set)."""
    allow_code: bool = False
    """Let rewards of type python run the file that they name."""
    passes: float | None = Field(default=None, allow_inf_nan=False)
    """Score from which an answer passes, for pass@k (default: that of KEEP, else all rewards in full)."""
    keep: Annotated[str, AfterValidator(_keep)] = "best"
    """best answer to each prompt, best:SCORE, every one above:SCORE, pairs of best and worst, or all."""
    gap: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """pairs: least difference of the scores; equal ones are never a pair."""
    seed: Seed = 0
    """Seed of the draws."""

    @model_validator(mode="after")
    def _consistent(self) -> SampleAnswers:
        if not self.rewards:
            raise ValueError("answers are kept by their scores: give --reward, --reward-model or --judge")
        if self.judge is None and (self.judge_model or self.api_key_env):
            raise ValueError("judge_model and api_key_env are for --judge")
        kind, _ = parse_keep(self.keep)
        if kind == "pairs" and self.n < 2:
            raise ValueError("a pair needs two answers: raise n")
        if self.gap and kind != "pairs":
            raise ValueError("gap is for keep pairs")
        if self.temperature == 0 and self.n > 1:
            raise ValueError("at temperature 0 all answers are the same: raise it, or give n 1")
        names_of(self.rewards)
        return self

    @property
    def rewards(self) -> tuple[RewardSettings, ...]:
        """All that answers are scored by."""
        found = list(self.reward)
        if self.reward_model is not None:
            found.append(RewardSettings(type="model", path=self.reward_model))
        if self.judge is not None:
            given: dict[str, Any] = {"judge_model": self.judge_model, "api_key_env": self.api_key_env}
            given = {name: value for name, value in given.items() if value is not None}
            found.append(RewardSettings(type="judge", path=self.judge, **given))
        return tuple(found)

    @property
    def pass_score(self) -> float | None:
        """The score from which an answer passes; None where the scores have no such place (a reward model's)."""
        if self.passes is not None:
            return self.passes
        least = parse_keep(self.keep)[1]
        if least is not None:
            return least
        if any(each.type in ("model", "python") for each in self.rewards):
            return None
        # The most that each gives is its weight; a punishment gives at most nothing. Rounded as rewards are added up.
        most = (0.0 if each.type == "length" and each.max else max(each.weight, 0.0) for each in self.rewards)
        return math.fsum(most)
