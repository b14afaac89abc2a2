"""GRPO and PPO: the model answers prompts, the answers are rewarded, and what was better than expected grows likelier.

A batch of answers serves `policy.updates` optimiser steps; with one, the answers are exactly those of the weights that
are trained. What is drawn depends on the seed, the batch and the weights alone, so that a run that stopped between two
batches goes on as if it had not (`settled`). The reference model is the decoder with its adapter switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from bottega.core.errors import BottegaError
from bottega.data.batches import Row
from bottega.data.examples import Examples
from bottega.generate.settings import Sampling
from bottega.model.lora import as_started
from bottega.train.batch import collate, groups
from bottega.train.log_probs import linear_log_probs_and_entropy
from bottega.train.losses.policy import group_advantages, normaliser_share, policy_loss, token_weights
from bottega.train.losses.value import (
    explained_variance,
    generalised_advantages,
    moments,
    token_rewards,
    value_loss,
    whiten,
)
from bottega.train.parallel.ranks import Ranks
from bottega.train.rewards.answer import Answer
from bottega.train.rewards.rewards import Rewards, Scores
from bottega.train.rollout import Rollout, Rollouts, evaluating
from bottega.train.settings import Settings
from bottega.train.stage import Figures, Forward, Part, told
from bottega.train.trainee import VALUE_HEAD

HELDOUT_PROMPTS = 64


@dataclass(frozen=True)
class Batch:
    """Answers to a step's prompts and what they earned; `parts` are ready for the loss."""

    rollouts: list[Rollout]
    scores: Scores
    parts: list[Part]
    figures: Figures


class PolicyStage:
    """What GRPO and PPO share: answers, rewards, and the clipped objective."""

    def __init__(
        self, examples: Examples, settings: Settings, forward: Forward, rollouts: Rollouts, rewards: Rewards
    ) -> None:
        self.examples, self.settings, self.forward = examples, settings, forward
        self.rollouts, self.rewards, self.policy = rollouts, rewards, settings.config.policy
        self.batch: Batch | None = None
        self.number = -1

    def parts(self, step: int) -> list[Part]:
        """The answers of the step; drawn now, if it is the first on this batch of them."""
        number = step // self.policy.updates
        if self.batch is None or number != self.number:
            self.batch, self.number = self._answer(number), number
        return self.batch.parts

    def about(self) -> Figures:
        """Figures of the answers."""
        return {} if self.batch is None else self.batch.figures

    def settled(self, step: int) -> bool:
        """Between two batches of answers."""
        return step % self.policy.updates == 0

    def measure(self) -> dict[str, float]:
        """Mean rewards of answers to the first prompts; the loss to be lowered is the reward's negative."""
        wanted = list(range(min(HELDOUT_PROMPTS, self.examples.count)))
        rollouts = self._draw(wanted, 1, self.settings.config.seed)
        scores = self._scores(wanted, rollouts)
        return {"loss": -scores.figures()["reward"], **scores.figures()}

    def loss(self, part: Part) -> tuple[Tensor, Figures]:
        """Sum of the answers' losses, as the stage's normaliser weighs their tokens."""
        states = self.forward.states(part.batch)
        losses, figures = self._policy_loss(states, part)
        weights = token_weights(part.batch.owners, part.batch.documents, self.policy.normaliser)
        return (losses * weights).sum(), told(figures)

    def _policy_loss(self, states: Tensor, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        log_probs, entropy = self._log_probs(states, part)
        return policy_loss(
            log_probs,
            part.extra.get("old"),
            part.extra["advantages"],
            part.batch.owners,
            part.batch.documents,
            ratio=self.policy.ratio,
            clip_low=self.policy.clip_low,
            clip_high=self.policy.clip_high or self.policy.clip_low,
            reference=part.extra.get("reference"),
            kl_weight=self._loss_kl_weight(),
            entropy=entropy,
        )

    def _loss_kl_weight(self) -> float:
        return self.settings.config.kl_weight

    def _answer(self, number: int) -> Batch:
        """Draw answers to the prompts of a batch, reward them, and make parts of them."""
        ranks = self.forward.machine.ranks
        of_step = self.examples.indices(number, self.settings.examples_per_step)
        places = ranks.share(range(len(of_step)))
        indices = [of_step[place] for place in places]
        rollouts = self._draw(indices, self.policy.group, (self.settings.config.seed + 1) * 2**20 + number, places)
        scores = self._scores([i for i in indices for _ in range(self.policy.group)], rollouts)
        kept = [at for at, each in enumerate(rollouts) if each.finished or not self.policy.mask_truncated]
        rows = [_row(rollouts[at]) for at in kept]
        parts = []
        for group in groups(rows, self.settings.config.micro_batch_tokens):
            batch = collate([rows[place] for place in group])
            answers = torch.tensor([kept[place] for place in group])
            parts.append(Part(batch, 0.0, {"answers": answers}))
        if not any(ranks.gather(bool(kept))):
            raise BottegaError(
                f"all {len(of_step) * self.policy.group} answers were cut off at {self.policy.max_new_tokens} tokens "
                "and left out",
                hint="Raise policy.max_new_tokens, or let answers that are cut off count: mask_truncated: false.",
            )
        figures = _figures(rollouts, _of_all(scores, ranks))
        advantages, more = self._advantages(scores)
        figures |= told(more)
        return Batch(rollouts, scores, *self._finished(parts, advantages, len(rollouts), figures))

    def _draw(
        self, indices: Sequence[int], each: int, seed: int, places: Sequence[int] | None = None
    ) -> list[Rollout]:
        policy = self.policy
        prompts = [self.examples.documents(i)[0].tokens.tolist() for i in indices]
        sampling = Sampling(max_new_tokens=policy.max_new_tokens, temperature=policy.temperature, top_p=policy.top_p)
        return self.rollouts.sample(prompts, each, sampling, seed, numbers=places)

    def _scores(self, examples: Sequence[int], rollouts: Sequence[Rollout]) -> Scores:
        rows = {i: self.examples.row(i) for i in set(examples)}
        return self.rewards(
            [
                Answer(each.text, rows[i], each.finished, each.prompt_ids, each.completion_ids)
                for i, each in zip(examples, rollouts, strict=True)
            ]
        )

    def _advantages(self, scores: Scores) -> tuple[Tensor, dict[str, Tensor]]:
        rewards = torch.tensor(scores.total).reshape(-1, self.policy.group)
        advantages, figures = group_advantages(rewards, self.policy.advantage)
        return advantages.flatten(), {name: figures[name] for name in ("reward_deviation", "zero_variance")}

    def _finished(
        self, parts: list[Part], advantages: Tensor, answers: int, figures: Figures
    ) -> tuple[list[Part], Figures]:
        """Parts with their advantages, old and reference log-probabilities, and weights."""
        made, ranks = [], self.forward.machine.ranks
        left_out = int(ranks.sum([answers - sum(part.batch.documents for part in parts)])[0])
        counts_them = ranks.rank == ranks.gather(bool(parts)).index(True)
        for place, part in enumerate(parts):
            batch = part.batch
            extra = {"advantages": advantages[part.extra["answers"]][batch.owners]}
            if self.policy.updates > 1:
                extra["old"] = self._now(part)
            if self.settings.config.kl_weight:
                extra["reference"] = self._reference(part)
            # An answer that was cut off owns no token, but counts as an answer: with the first part of the step.
            counted = batch.documents + (left_out if counts_them and place == 0 else 0)
            weight = normaliser_share(counted, len(batch.targets), self.policy.normaliser, self.policy.max_new_tokens)
            made.append(replace(part, weight=weight, extra=extra))
        return made, figures

    @torch.no_grad()
    def _now(self, part: Part) -> Tensor:
        """Log-probabilities by the weights that drew the answers, (N,)."""
        moved = part.to(self.forward.machine.device)
        with evaluating(self.forward.model):
            return self._log_probs(self.forward.states(moved.batch), moved)[0].cpu()

    def _reference(self, part: Part) -> Tensor:
        with as_started(self.forward.model):
            return self._now(part)

    def _log_probs(self, states: Tensor, part: Part) -> tuple[Tensor, Tensor]:
        model = self.forward.model
        return linear_log_probs_and_entropy(
            states, model.lm_head.weight, part.batch.targets, model.config.switches.logit_cap,
            temperature=self.policy.temperature,
        )  # fmt: skip


class ValueStage(PolicyStage):
    """PPO: what was expected comes from a value head, and the distance to the reference is taken off the rewards."""

    def loss(self, part: Part) -> tuple[Tensor, Figures]:
        """Sum over the answers' tokens of the clipped objective and of the value loss."""
        states = self.forward.states(part.batch)
        losses, figures = self._policy_loss(states, part)
        values = self._values(states)
        value_losses, more = value_loss(values, part.extra["values"], part.extra["returns"], self.policy.value_clip)
        figures |= {"value_loss": value_losses.detach(), "value_clip": more["value_clip"]}
        return (losses + self.policy.value_weight * value_losses).sum(), told(figures)

    def _loss_kl_weight(self) -> float:
        return 0.0  # it stands in the rewards

    def _values(self, states: Tensor) -> Tensor:
        return getattr(self.forward.model, VALUE_HEAD)(states.float())[:, 0]  # the head is kept in float32

    def _advantages(self, scores: Scores) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.tensor(scores.total), {}  # the rewards themselves: `_finished` makes advantages of tokens of them

    def _finished(
        self,
        parts: list[Part],
        advantages: Tensor,
        answers: int,  # noqa: ARG002
        figures: Figures,
    ) -> tuple[list[Part], Figures]:
        made: list[Part] = []
        for part in parts:
            owners = part.batch.owners
            # Documents lie the longest first; rewards and lengths are wanted in the order in which they lie.
            laid, lengths = torch.unique_consecutive(owners, return_counts=True)
            old, values = self._now_with_values(part)
            reference = self._reference(part) if self.settings.config.kl_weight else old
            rewards = token_rewards(
                advantages[part.extra["answers"][laid]], old, reference, lengths,
                kl_weight=self.settings.config.kl_weight,
            )  # fmt: skip
            gained, returns = generalised_advantages(
                rewards, values, lengths, discount=self.policy.discount, trace=self.policy.trace
            )
            extra = {"old": old, "values": values, "returns": returns, "advantages": gained}
            extra |= {"reference": reference} if self.settings.config.kl_weight else {}
            made.append(replace(part, weight=float(len(owners)), extra=extra))
        ranks = self.forward.machine.ranks
        summed = sum((moments(part.extra["advantages"]) for part in made), torch.zeros(3, dtype=torch.float64))
        of = torch.tensor(ranks.sum(summed.tolist()), dtype=torch.float64)
        whitened = (whiten(part.extra["advantages"], of) for part in made)
        made = [replace(p, extra={**p.extra, "advantages": w}) for p, w in zip(made, whitened, strict=True)]
        values, returns = (
            torch.tensor(list(chain(*ranks.gather([x for part in made for x in part.extra[name].tolist()]))))
            for name in ("values", "returns")
        )
        return made, figures | {"explained_variance": (float(explained_variance(values, returns)), 1.0)}

    @torch.no_grad()
    def _now_with_values(self, part: Part) -> tuple[Tensor, Tensor]:
        moved = part.to(self.forward.machine.device)
        with evaluating(self.forward.model):
            states = self.forward.states(moved.batch)
            return self._log_probs(states, moved)[0].cpu(), self._values(states).cpu()


def _row(rollout: Rollout) -> Row:
    return Row(np.asarray(rollout.ids, np.int64), rollout.mask.numpy(), [len(rollout.ids)])


def _of_all(scores: Scores, ranks: Ranks) -> Scores:
    """The scores of all processes' answers: a deviation is of the whole step."""
    found = ranks.gather({"total": scores.total, "components": scores.components})
    components = {name: list(chain(*(each["components"][name] for each in found))) for name in scores.components}
    return Scores(list(chain(*(each["total"] for each in found))), components)


def _figures(rollouts: Sequence[Rollout], scores: Scores) -> Figures:
    lengths = [float(len(each.completion_ids)) for each in rollouts]
    finished = sum(each.finished for each in rollouts)
    return {
        **{name: (value, 1.0) for name, value in scores.figures().items()},
        "length": (sum(lengths), float(len(lengths))),
        "finished": (float(finished), float(len(rollouts))),
    }
