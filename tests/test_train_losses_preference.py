"""Losses on pairs, on single answers and of reward models: what numbers equal to a peer's do not show."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bottega.core.errors import UserError
from bottega.train.losses.preference import REFERENCE_FREE, VARIANTS, log_odds, preference_loss
from bottega.train.losses.reward import reward_loss
from bottega.train.losses.unpaired import balanced_weights, divergence_estimate, unpaired_loss

NAMES = sorted(VARIANTS)


def pairs(count: int, seed: int = 0) -> list[Tensor]:
    """chosen, rejected, their references, their lengths."""
    generator = torch.Generator().manual_seed(seed)
    sums = -20 * torch.rand(4, count, generator=generator, dtype=torch.float64)
    return [*sums, *torch.randint(1, 40, (2, count), generator=generator)]


def loss_of(name: str, inputs: list[Tensor], **options: float) -> tuple[Tensor, dict[str, Tensor]]:
    chosen, rejected, reference_chosen, reference_rejected, chosen_tokens, rejected_tokens = inputs
    defaults = {"beta": 0.3, "label_smoothing": 0.05 if name == "exo_pair" else 0.0, "margin": 0.2}
    references = (None, None) if name in REFERENCE_FREE else (reference_chosen, reference_rejected)
    return preference_loss(
        chosen, rejected, *references, chosen_tokens, rejected_tokens, loss=name, **(defaults | options)
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_step_in_parts_has_the_losses_and_figures_of_the_whole(name: str) -> None:
    inputs = pairs(7)
    whole, figures = loss_of(name, inputs, nll_weight=0.4, tokens_per_pair=11.5)
    parts = [loss_of(name, [x[rows] for x in inputs], nll_weight=0.4, tokens_per_pair=11.5)
             for rows in (slice(0, 3), slice(3, 7))]  # fmt: skip
    assert torch.equal(whole, torch.cat([losses for losses, _ in parts]))
    for key, values in figures.items():
        assert values.shape == (7,) and torch.equal(values, torch.cat([part[key] for _, part in parts]))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    inputs = pairs(5)
    for tensor in inputs[:2]:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda c, r: loss_of(name, [c, r, *inputs[2:]], nll_weight=0.5)[0], inputs[:2], atol=1e-6
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "apo_down"])
def test_a_step_down_makes_the_chosen_answer_likelier_than_the_rejected_one(name: str) -> None:
    # At the start of training. apo_down lowers the chosen answers too, the rejected ones more.
    chosen, _, _, _, tokens, _ = pairs(6)
    trained = [chosen.clone().requires_grad_(), chosen.clone().requires_grad_()]
    inputs = [*trained, chosen, chosen, tokens, tokens]
    losses, figures = loss_of(name, inputs)
    for_chosen, for_rejected = torch.autograd.grad(losses.sum(), trained)
    assert (for_chosen < 0).all() and (for_rejected > 0).all()
    assert (figures["reward_margin"] == 0).all() and (figures["reward_accuracy"] == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("distance", [-3000.0, 3000.0])
def test_answers_far_apart_have_finite_losses_and_gradients(name: str, distance: float) -> None:
    near, tokens = torch.full((1,), -1e-9), torch.ones(1, dtype=torch.long)
    far = near - abs(distance)
    chosen, rejected = ((far, near) if distance < 0 else (near, far))
    chosen, rejected = (x.clone().requires_grad_() for x in (chosen, rejected))
    losses, _ = loss_of(name, [chosen, rejected, near, near, tokens, tokens])
    gradients = torch.autograd.grad(losses.sum(), [chosen, rejected])
    assert all(torch.isfinite(x).all() for x in (losses, *gradients))


@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_norm", "simpo", "cpo"])
def test_label_smoothing_is_the_expectation_over_wrong_labels(name: str) -> None:
    inputs = pairs(5)
    swapped = [inputs[i] for i in (1, 0, 3, 2, 5, 4)]
    right, wrong = (loss_of(name, x, margin=0.0)[0] for x in (inputs, swapped))
    smoothed, _ = loss_of(name, inputs, margin=0.0, label_smoothing=0.2)
    torch.testing.assert_close(smoothed, 0.8 * right + 0.2 * wrong)


def test_robust_undoes_wrong_labels() -> None:
    inputs = pairs(5)
    swapped = [inputs[i] for i in (1, 0, 3, 2, 5, 4)]
    right, wrong = (loss_of("robust", x, label_smoothing=0.2)[0] for x in (inputs, swapped))
    # Chowdhury et al. 2024: with labels flipped at rate ε, the loss is in expectation that of the true labels.
    torch.testing.assert_close(0.8 * right + 0.2 * wrong, loss_of("sigmoid", inputs)[0])


def test_the_cross_entropy_is_a_mean_by_answer_or_by_token() -> None:
    inputs = pairs(4)
    plain, _ = loss_of("sigmoid", inputs)
    by_answer, figures = loss_of("sigmoid", inputs, nll_weight=0.5)
    torch.testing.assert_close(by_answer, plain - 0.5 * inputs[0] / inputs[4])
    torch.testing.assert_close(figures["nll_chosen"], -inputs[0] / inputs[4])
    tokens = inputs[4].sum().item()
    by_token, _ = loss_of("sigmoid", inputs, nll_weight=0.5, tokens_per_pair=tokens / 4)
    torch.testing.assert_close(by_token.mean(), plain.mean() - 0.5 * inputs[0].sum() / tokens)


def test_figures_tell_length_bias() -> None:
    inputs = pairs(3)
    inputs[4:] = [torch.tensor([5, 9, 4]), torch.tensor([4, 9, 5])]
    assert loss_of("sigmoid", inputs)[1]["longer_chosen"].tolist() == [1, 0, 0]


@pytest.mark.parametrize("log_prob", [-1e-6, -0.1, -math.log(2), -0.7, -5.0, -300.0])
def test_log_odds(log_prob: float) -> None:
    x = torch.tensor(log_prob, dtype=torch.float64, requires_grad=True)
    value = log_odds(x)
    assert value.item() == pytest.approx(log_prob - math.log(-math.expm1(log_prob)), rel=1e-12)
    value.backward()
    assert x.grad is not None and x.grad.item() == pytest.approx(1 / -math.expm1(log_prob), rel=1e-9)


def test_log_odds_of_certainty_are_finite() -> None:
    x = torch.zeros(1, requires_grad=True)
    value = log_odds(x)
    value.backward()
    assert 16 < value.item() < 18 and x.grad is not None and torch.isfinite(x.grad).all()


def test_refusals() -> None:
    inputs = pairs(2)
    with pytest.raises(UserError, match="no preference loss 'sigmoids'") as caught:
        loss_of("sigmoids", inputs)
    assert "'sigmoid'" in caught.value.hint
    with pytest.raises(UserError, match="needs log-probabilities of a reference"):
        preference_loss(inputs[0], inputs[1], None, None, inputs[4], inputs[5], loss="ipo", beta=0.1)
    with pytest.raises(UserError, match="is not from 0"):
        loss_of("robust", inputs, label_smoothing=0.5)
    with pytest.raises(UserError, match="exo_pair needs"):
        loss_of("exo_pair", inputs, label_smoothing=0.0)
    with pytest.raises(UserError, match="'ktoo'"):
        unpaired_loss(inputs[0], inputs[1], inputs[0] > 0, loss="ktoo", beta=0.1)


def test_kto_measures_gains_from_the_distance_to_the_reference() -> None:
    scores = torch.tensor([0.5, 2.0, -1.0, 3.0], dtype=torch.float64, requires_grad=True)
    desirable = torch.tensor([True, True, False, False])
    losses, figures = unpaired_loss(
        scores, torch.zeros(4), desirable, 0.5, beta=0.7, desirable_weight=2.0, undesirable_weight=3.0
    )
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    by_hand = [2 * (1 - sigmoid(0.0)), 2 * (1 - sigmoid(0.7 * 1.5)), 3 * (1 - sigmoid(0.7 * 1.5)),
               3 * (1 - sigmoid(0.7 * -2.5))]  # fmt: skip
    assert losses.tolist() == pytest.approx(by_hand)
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    assert (gradient[:2] < 0).all() and (gradient[2:] > 0).all()
    assert figures["reward_desirable"].tolist() == pytest.approx([0.35, 1.4])
    assert figures["reward_accuracy"].tolist() == [1, 1, 1, 0] and figures["kl"].tolist() == [0.5]


def test_examples_of_one_kind_only() -> None:
    losses, figures = unpaired_loss(torch.zeros(3), torch.zeros(3), torch.ones(3, dtype=torch.bool), beta=0.1)
    assert losses.tolist() == [0.5] * 3 and figures["reward_undesirable"].shape == (0,)


def test_the_estimate_of_the_distance_is_never_negative() -> None:
    log_probs = torch.tensor([-1.0, -2.0, -6.0], requires_grad=True)
    reference = torch.tensor([-2.0, -4.0, -1.0])
    assert divergence_estimate(log_probs, reference).item() == 0  # the mean is -2/3, though two of three are above
    estimate = divergence_estimate(log_probs[:2], reference[:2])
    assert estimate.item() == 1.5 and not estimate.requires_grad


@pytest.mark.parametrize("counts", [(30, 10), (10, 30), (7, 7), (5, 0)])
def test_balanced_weights_give_both_kinds_the_same_say(counts: tuple[int, int]) -> None:
    desirable, undesirable = balanced_weights(*counts)
    assert min(desirable, undesirable) == 1.0
    assert counts[0] * desirable == max(counts) and (counts[1] * undesirable == max(counts) or not counts[1])


def test_the_reward_loss_is_the_likelihood_of_the_choices() -> None:
    chosen, rejected, margins = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 1.0]), torch.tensor([0.1, 0.0])
    losses, figures = reward_loss(chosen, rejected, margins, centre=0.01)
    by_hand = [math.log1p(math.exp(-0.4)) + 0.01 * 1.5**2, math.log1p(math.exp(3.0)) + 0.01 * 1.0]
    assert losses.tolist() == pytest.approx(by_hand)
    assert figures["reward_accuracy"].tolist() == [1, 0] and figures["reward"].shape == (4,)
