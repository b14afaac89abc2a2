"""Group advantages, the clipped objective and its normalisers, by brute force."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bottega.train.losses.policy import (
    Normaliser,
    divergence,
    group_advantages,
    normaliser_share,
    policy_loss,
    token_weights,
)

NORMALISERS: list[Normaliser] = ["grpo", "dapo", "dr_grpo"]


def test_leave_one_out_is_the_mean_of_the_others() -> None:
    rewards = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    advantages, _ = group_advantages(rewards, "rloo")
    for group in range(5):
        for i in range(6):
            others = torch.cat([rewards[group, :i], rewards[group, i + 1 :]])
            assert advantages[group, i].item() == pytest.approx((rewards[group, i] - others.mean()).item())


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "batch", "rloo"])
def test_what_teaches_nothing_has_no_advantage(kind: Any) -> None:
    nan = torch.nan
    rewards = torch.tensor([[0.3] * 6, [nan, 0.7] * 3, [nan] * 6, [0.1, 0.2, nan] * 2])
    rewards[1, 3:] = nan
    # In float32 the mean of six such rewards is not quite the reward; divided by 1e-4 that would be a lesson.
    assert (rewards[0] - rewards[0].mean()).abs().max() > 0
    advantages, figures = group_advantages(rewards, kind)
    assert advantages[:3].tolist() == [[0.0] * 6] * 3 and advantages[3, 2] == 0
    assert advantages[3, 0] < 0 < advantages[3, 1]
    assert figures["zero_variance"].tolist() == [1, 1, 1, 0] and figures["reward"].shape == (11,)
    assert torch.isfinite(figures["reward_deviation"]).all()


def test_one_answer_to_each_prompt() -> None:
    for kind in ("grpo", "dr_grpo", "rloo"):
        assert group_advantages(torch.tensor([[1.0], [2.0]]), kind)[0].tolist() == [[0.0], [0.0]]


def answers(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """log_probs, old, reference, advantages of 4 answers, owners."""
    generator = torch.Generator().manual_seed(seed)
    owners = torch.arange(4).repeat_interleave(torch.tensor([2, 5, 1, 3]))
    log_probs, old, reference = -torch.rand(3, len(owners), generator=generator, dtype=torch.float64)
    return log_probs.requires_grad_(), old, reference, torch.tensor([1.0, -0.5, 0.3, -1.1]).double(), owners


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("ratio", ["token", "sequence", "product"])
def test_a_step_in_parts_has_the_gradient_of_the_whole(normaliser: Normaliser, ratio: Any) -> None:
    log_probs, old, reference, advantages, owners = answers()

    def of(selected: list[int]) -> tuple[Tensor, float]:
        rows = torch.isin(owners, torch.tensor(selected))
        renumbered = torch.tensor([selected.index(int(i)) for i in owners[rows]])
        losses, _ = policy_loss(
            log_probs[rows], old[rows], advantages[owners[rows]], renumbered, len(selected),
            ratio=ratio, reference=reference[rows], kl_weight=0.1,
        )  # fmt: skip
        weights = token_weights(renumbered, len(selected), normaliser)
        return (losses * weights).sum(), normaliser_share(len(selected), len(losses), normaliser, 8)

    whole, share = of([0, 1, 2, 3])
    parts = [of([0, 2]), of([1]), of([3])]
    assert sum(part[1] for part in parts) == share
    together = torch.stack([part[0] for part in parts]).sum()
    gradients = (torch.autograd.grad(x / share, log_probs)[0] for x in (whole, together))
    torch.testing.assert_close(*gradients)


def test_normalisers_by_hand() -> None:
    owners = torch.tensor([0, 0, 2, 2, 2, 2])  # the answer 1 was left out
    assert token_weights(owners, 3, "grpo").tolist() == [0.5] * 2 + [0.25] * 4
    assert token_weights(owners, 3, "dapo").tolist() == [1.0] * 6
    assert [normaliser_share(3, 6, name, 10) for name in NORMALISERS] == [3, 6, 30]


@pytest.mark.parametrize("ratio", ["token", "product"])
def test_the_first_update_is_the_policy_gradient(ratio: Any) -> None:
    log_probs, _, _, advantages, owners = answers()
    losses, figures = policy_loss(log_probs, None, advantages[owners], owners, 4, ratio=ratio)
    weights = token_weights(owners, 4, "dapo" if ratio == "token" else "grpo")
    (gradient,) = torch.autograd.grad((losses * weights).sum(), log_probs)
    torch.testing.assert_close(gradient, -advantages[owners])  # of the log-probability of the whole answer
    assert (figures["drift"] == 0).all() and not figures["clip_low"].any() and not figures["clip_high"].any()


def test_the_clip_stops_what_went_far_enough_and_nothing_else() -> None:
    ratios = torch.tensor([0.5, 0.9, 1.1, 1.5, 9.0] * 2, dtype=torch.float64)
    log_probs = ratios.log().requires_grad_()
    advantages = torch.tensor([1.0] * 5 + [-1.0] * 5, dtype=torch.float64)
    owners = torch.arange(10)
    losses, figures = policy_loss(
        log_probs, torch.zeros_like(ratios), advantages, owners, 10, clip_low=0.2, clip_high=0.3, delta=4.0
    )
    (gradient,) = torch.autograd.grad(losses.sum(), log_probs)
    assert losses.tolist() == pytest.approx([-0.5, -0.9, -1.1, -1.3, -1.3, 0.8, 0.9, 1.1, 1.5, 4.0])
    assert (gradient != 0).tolist() == [True, True, True, False, False, False, True, True, True, False]
    assert figures["clip_high"].tolist() == [0, 0, 0, 1, 1] + [0] * 5
    assert figures["clip_low"].tolist() == [0] * 5 + [1, 0, 0, 0, 0]


def test_sequence_ratios_of_one_token_are_token_ratios() -> None:
    log_probs, old, _, _, _ = answers()
    owners, advantages = torch.arange(11), torch.linspace(-1, 1, 11, dtype=torch.float64)
    whole = [policy_loss(log_probs, old, advantages, owners, 11, ratio=r)[0] for r in ("token", "sequence", "product")]
    assert torch.equal(whole[0], whole[1]) and torch.equal(whole[0], whole[2])


def test_both_estimates_have_the_divergence_as_their_mean() -> None:
    p, q = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    expected = (p.exp() * (p - q)).sum()
    for estimator in ("k1", "k3"):
        torch.testing.assert_close((p.exp() * divergence(p, q, estimator)).sum(), expected)
    assert (divergence(p, q, "k3") >= 0).all() and (divergence(p, q, "k1") < 0).any()
