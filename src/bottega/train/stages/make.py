"""From settings to a stage: what it reads, what it needs beside the model, and how it is measured on held-out data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bottega.core.progress import Reporter
from bottega.data.batches import Batches
from bottega.data.examples import Examples
from bottega.model.paged import BLOCK
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train.config import POLICY_STAGES, REFERENCE_STAGES, TOKEN_STAGES
from bottega.train.loop import measure_parts
from bottega.train.reference import reference_log_probs
from bottega.train.rewards.rewards import Rewards
from bottega.train.rollout import DEFAULT_BATCH, Rollouts
from bottega.train.settings import Settings
from bottega.train.stage import Forward
from bottega.train.stages.policy import PolicyStage, ValueStage
from bottega.train.stages.preference import PairStage, RewardStage
from bottega.train.stages.tokens import TokenStage, first_examples, row_of
from bottega.train.stages.unpaired import UnpairedStage, with_mismatched

AnyStage = TokenStage | PairStage | UnpairedStage | PolicyStage


@dataclass(frozen=True)
class Setting:
    """What stages are made in. `work` keeps what an interrupted run need not compute again."""

    settings: Settings
    forward: Forward
    tokenizer: Tokenizer
    work: Path
    reporter: Reporter

    @property
    def by_examples(self) -> bool:
        """Whether steps are counted in examples; else in packed rows."""
        return self.settings.examples_per_step > 0


def open_data(folder: Path, setting: Setting, *, seed: int) -> Batches | Examples:
    """A tokens folder, as the stage reads it."""
    kind = Examples if setting.by_examples else Batches
    return kind(folder, row_length=setting.settings.row_length, seed=seed)


def make_stage(source: Batches | Examples, setting: Setting) -> AnyStage:
    """The stage on its training data."""
    settings = setting.settings
    if isinstance(source, Batches) or settings.config.stage in TOKEN_STAGES:
        return TokenStage(source, settings, setting.forward)
    steps = range(settings.steps)
    wanted = [i for step in steps for i in source.indices(step, settings.examples_per_step)]
    return _of_examples(source, wanted, setting, "reference.npy")


def make_measure(folder: Path, setting: Setting) -> Callable[[], dict[str, float]]:
    """A function that measures the model on held-out data: its loss and figures."""
    source, tokens = open_data(folder, setting, seed=0), setting.settings.config.evaluate_tokens
    if isinstance(source, Batches) or setting.settings.config.stage in TOKEN_STAGES:
        stage: AnyStage = TokenStage(source, setting.settings, setting.forward)
    else:
        stage = _of_examples(source, first_examples(source, tokens), setting, "heldout-reference.npy")
    if isinstance(stage, PolicyStage):
        return stage.measure
    if isinstance(stage, UnpairedStage):  # the distance to the start is part of its parts, and grows
        return lambda: measure_parts(stage, stage.heldout(tokens), setting.forward.machine)
    parts = stage.heldout(tokens)
    return lambda: measure_parts(stage, parts, setting.forward.machine)


def _of_examples(source: Examples, wanted: list[int], setting: Setting, name: str) -> AnyStage:
    config, settings, forward = setting.settings.config, setting.settings, setting.forward
    if config.stage in POLICY_STAGES:
        kind = ValueStage if config.stage == "ppo" else PolicyStage
        longest = min(source.spec.longest + config.policy.max_new_tokens + BLOCK, forward.model.config.context_length)
        device = str(forward.machine.device)
        rewards = Rewards(config.rewards, allow_code=config.allow_code, device=device)
        rollouts = Rollouts(forward.model, setting.tokenizer, cache_tokens=DEFAULT_BATCH * longest)
        return kind(source, settings, forward, rollouts, rewards)
    reference = _reference(source, wanted, setting, name) if config.stage in REFERENCE_STAGES else None
    if config.stage == "kto":
        assert reference is not None
        return UnpairedStage(source, settings, forward, reference)
    return (RewardStage if config.stage == "reward" else PairStage)(source, settings, forward, reference)


def _reference(source: Examples, wanted: list[int], setting: Setting, name: str) -> np.ndarray:
    config = setting.settings.config
    # kto's distance to the start is measured on other answers; its variant has none.
    rows = with_mismatched if config.preference_loss == "kto" else row_of
    return reference_log_probs(
        setting.forward,
        partial(rows, source),
        source.count,
        wanted,
        source.per_example if rows is row_of else 2,
        config.micro_batch_tokens,
        setting.work / name,
        setting.reporter,
    )
