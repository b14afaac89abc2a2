"""PPO's rewards, advantages and value loss against their sums written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bottega.train.losses.policy import policy_loss
from bottega.train.losses.value import (
    explained_variance,
    generalised_advantages,
    moments,
    token_rewards,
    value_loss,
    whiten,
)

LENGTHS = torch.tensor([3, 1, 6, 2])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_score_comes_at_the_last_token_and_the_distance_at_each() -> None:
    log_probs, reference, scores = drawn(12, seed=1), drawn(12, seed=2), drawn(4, seed=3)
    for estimator in ("k1", "k3"):
        rewards = token_rewards(scores, log_probs, reference, LENGTHS, kl_weight=0.3, estimator=estimator).numpy()
        difference = (log_probs - reference).numpy()
        expected = -0.3 * (difference if estimator == "k1" else np.exp(-difference) - 1 + difference)
        expected[[2, 3, 9, 11]] += scores.numpy()
        np.testing.assert_allclose(rewards, expected)


def advantages_by_hand(
    rewards: np.ndarray, values: np.ndarray, final: float, discount: float, trace: float
) -> np.ndarray:
    """Schulman et al. 2015, Eq. 16, as the double sum that it is."""
    following = np.append(values[1:], final)
    change = rewards + discount * following - values
    count = len(rewards)
    return np.array([sum((discount * trace) ** (k - t) * change[k] for k in range(t, count)) for t in range(count)])


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    discount=st.sampled_from([1.0, 0.9]),
    trace=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    cut=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_advantages_are_the_sum_of_the_changes_to_come(
    lengths: list[int], discount: float, trace: float, cut: bool, seed: int
) -> None:
    count = sum(lengths)
    rewards, values, final = drawn(count, seed=seed), drawn(count, seed=seed + 1), drawn(len(lengths), seed=seed + 2)
    ours, returns = generalised_advantages(
        rewards, values, torch.tensor(lengths), discount=discount, trace=trace, final_values=final if cut else None
    )
    ends = np.cumsum(lengths)
    for i, (start, end) in enumerate(zip(ends - lengths, ends, strict=True)):
        behind = final[i].item() if cut else 0.0
        expected = advantages_by_hand(rewards[start:end].numpy(), values[start:end].numpy(), behind, discount, trace)
        np.testing.assert_allclose(ours[start:end].numpy(), expected, atol=1e-12)
    torch.testing.assert_close(returns, ours + values)


def test_at_full_length_the_returns_do_not_depend_on_the_values() -> None:
    rewards = drawn(12)
    returns = [generalised_advantages(rewards, drawn(12, seed=s), LENGTHS, discount=0.9, trace=1.0)[1] for s in (1, 2)]
    torch.testing.assert_close(*returns)
    assert returns[0][9].item() == pytest.approx(rewards[9].item())  # the last token of the third answer


def test_whitening_is_of_the_whole_step_over_parts_and_ranks() -> None:
    values = 5 + 3 * drawn(50)
    of = moments(values[:20]) + moments(values[20:])
    ours = torch.cat([whiten(values[:20], of), whiten(values[20:], of)])
    array = values.numpy()
    np.testing.assert_allclose(ours.numpy(), (array - array.mean()) / array.std(ddof=1), rtol=1e-7)
    np.testing.assert_allclose(whiten(values, of, shift=False).mean().item(), array.mean(), rtol=1e-7)
    assert torch.isfinite(whiten(values[:1], moments(values[:1]))).all()


def test_the_policy_and_value_losses_of_ppo() -> None:
    log_probs, old, advantages = 0.3 * drawn(12), 0.3 * drawn(12, seed=1), drawn(12, seed=2)
    values, old_values, returns = drawn(200, seed=3), drawn(200, seed=4), drawn(200, seed=5)
    owners = torch.arange(4).repeat_interleave(LENGTHS)
    losses, _ = policy_loss(log_probs, old, advantages, owners, 4)
    ratio = np.exp((log_probs - old).numpy())
    by_hand = np.maximum(-advantages.numpy() * ratio, -advantages.numpy() * np.clip(ratio, 0.8, 1.2))
    np.testing.assert_allclose(losses.numpy(), by_hand)
    losses, figures = value_loss(values.requires_grad_(), old_values, returns, 0.2)
    v, o, r = values.detach().numpy(), old_values.numpy(), returns.numpy()
    near = np.clip(v, o - 0.2, o + 0.2)
    np.testing.assert_allclose(losses.detach().numpy(), 0.5 * np.maximum((v - r) ** 2, (near - r) ** 2))
    np.testing.assert_array_equal(figures["value_clip"].numpy(), (near - r) ** 2 > (v - r) ** 2)
    (gradient,) = torch.autograd.grad(losses.sum(), values)
    # Where the clipped loss is the larger one, the value has moved far enough.
    expected = np.where((near - r) ** 2 > (v - r) ** 2, 0.0, v - r)
    np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-12)
    assert (expected == 0).any()


def test_explained_variance() -> None:
    returns = drawn(30)
    assert explained_variance(returns, returns).item() == 1
    assert explained_variance(torch.full_like(returns, 3.0), returns).item() == pytest.approx(0)
    assert explained_variance(-returns, returns).item() == pytest.approx(-3)


