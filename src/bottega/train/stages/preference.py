"""Stages on pairs of a chosen and a rejected answer: dpo and its variants, orpo, simpo, cpo, and the reward model.

The mean is over the pairs of a step. Both answers of a pair stand in the same part; where the loss needs a reference,
its log-probabilities were taken before the first step (`reference.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bottega.data.examples import Examples
from bottega.train.batch import collate, groups
from bottega.train.losses.preference import preference_loss
from bottega.train.losses.reward import reward_loss
from bottega.train.settings import Settings
from bottega.train.stage import Figures, FixedData, Forward, Part, told
from bottega.train.stages.tokens import first_examples, row_of
from bottega.train.trainee import SCORE_HEAD

SHOWN = {"reward_accuracy": "accuracy", "reward_margin": "margin"}


class PairStage(FixedData):
    """Answers are scored by their log-probabilities. `reference`: (examples, 2), NaN for what is not seen; or None."""

    def __init__(self, examples: Examples, settings: Settings, forward: Forward, reference: np.ndarray | None) -> None:
        self.examples, self.settings, self.forward, self.reference = examples, settings, forward, reference

    def parts(self, step: int) -> list[Part]:
        """The pairs of the step."""
        indices = self.examples.indices(step, self.settings.examples_per_step)
        return self._parts(self.forward.machine.ranks.share(indices))

    def heldout(self, tokens: int) -> list[Part]:
        """Pairs of about so many tokens to measure on."""
        return self._parts(first_examples(self.examples, tokens))

    def loss(self, part: Part) -> tuple[Tensor, Figures]:
        """Sum of the pairs' losses; chosen answers are the documents of even number."""
        config, batch = self.settings.config, part.batch
        log_probs = self.forward.answer_log_probs(batch)
        tokens = torch.bincount(batch.owners, minlength=batch.documents)
        reference = part.extra.get("reference")
        losses, figures = preference_loss(
            log_probs[0::2],
            log_probs[1::2],
            None if reference is None else reference[0::2],
            None if reference is None else reference[1::2],
            tokens[0::2],
            tokens[1::2],
            loss=config.preference_loss,
            beta=config.beta,
            label_smoothing=config.preference.label_smoothing,
            margin=_margin(self.settings),
            nll_weight=config.nll_weight,
        )
        return losses.sum(), told({SHOWN.get(name, name): values for name, values in figures.items()})

    def _parts(self, indices: Sequence[int]) -> list[Part]:
        rows = [row_of(self.examples, i) for i in indices]
        return [self._part([indices[place] for place in group], [rows[place] for place in group])
                for group in groups(rows, self.settings.config.micro_batch_tokens)]  # fmt: skip

    def _part(self, indices: list[int], rows: list) -> Part:
        extra = {}
        if self.reference is not None:
            extra["reference"] = torch.from_numpy(self.reference[indices].reshape(-1))
        return Part(collate(rows), len(indices), extra)


def _margin(settings: Settings) -> float:
    """SimPO's margin is given as a share of β (its authors' way of tuning it)."""
    config = settings.config
    share = 0.5 if config.preference.margin is None else config.preference.margin
    return share * config.beta if config.stage == "simpo" else 0.0


class RewardStage(PairStage):
    """Answers are scored by a linear head on the hidden state of their document's last token (Bradley-Terry)."""

    def loss(self, part: Part) -> tuple[Tensor, Figures]:
        """Sum of the pairs' losses."""
        hidden = self.forward.hidden(part.batch)[part.batch.ends]
        scores = self.forward.model.get_submodule(SCORE_HEAD)(hidden.float())[:, 0]  # the head is kept in float32
        centre = self.settings.config.preference.centre
        losses, figures = reward_loss(scores[0::2], scores[1::2], part.extra.get("margins"), centre=centre)
        return losses.sum(), told({SHOWN.get(name, name): values for name, values in figures.items()})

    def _part(self, indices: list[int], rows: list) -> Part:
        margins = [self.examples.row(i).get("margin") for i in indices]
        extra = {}
        if any(margin is not None for margin in margins):
            extra["margins"] = torch.tensor([float(margin or 0.0) for margin in margins])
        return Part(collate(rows), len(indices), extra)
