"""Losses, gradients and figures equal those that TRL's trainers compute, on fixed tensors.

TRL's losses are methods of its trainers. The methods that run here are TRL's own; what they ask of a
model, an accelerator or a generation engine is answered with the fixed tensors.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import selective_log_softmax_and_entropy

from bottega.train.log_probs import linear_log_probs_and_entropy, sum_by_document
from bottega.train.losses.policy import (
    Normaliser,
    divergence,
    group_advantages,
    normaliser_share,
    policy_loss,
    token_weights,
)
from bottega.train.losses.preference import preference_loss
from bottega.train.losses.reward import reward_loss
from bottega.train.losses.unpaired import divergence_estimate, unpaired_loss
from trl_trainers import LENGTH, Answers, Arguments, assert_figures, assert_same, bare

PAIRS, VOCAB = 4, 11

PAIR_FIGURES = {
    "reward_chosen": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "reward_margin": "rewards/margins",
    "reward_accuracy": "rewards/accuracies",
}
PAIR_LOG_PROBS = {"log_prob_chosen": "logps/chosen", "log_prob_rejected": "logps/rejected"}


def dpo_of_trl(answers: Answers, reference: Tensor, losses: dict[str, float], beta: float, smoothing: float) -> Any:
    trainer = bare(
        DPOTrainer,
        loss_types=list(losses),
        loss_weights=list(losses.values()),
        beta=beta,
        label_smoothing=smoothing,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
    )
    zeros = torch.zeros_like(answers.padded)
    outputs = SimpleNamespace(
        log_probs=answers.padded * answers.mask, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
    )
    mask = torch.cat([torch.zeros(answers.count, 1, dtype=torch.long), answers.mask], 1)  # a prompt of one token
    inputs = {
        "input_ids": torch.ones_like(mask),
        "attention_mask": mask,
        "completion_mask": mask,
        "ref_chosen_logps": reference[:PAIRS],
        "ref_rejected_logps": reference[PAIRS:],
    }
    return trainer._compute_loss(lambda **_: outputs, inputs, return_outputs=False), trainer._metrics["train"]


@pytest.mark.parametrize(
    ("loss", "smoothing"),
    [("sigmoid", 0.0), ("sigmoid_norm", 0.0), ("ipo", 0.0), ("hinge", 0.0), ("robust", 0.1), ("exo_pair", 0.05),
     ("nca_pair", 0.0), ("sppo_hard", 0.0), ("apo_zero", 0.0), ("apo_down", 0.0)],
)  # fmt: skip
@pytest.mark.parametrize("nll_weight", [0.0, 0.7])
def test_preference_losses_with_a_reference(loss: str, smoothing: float, nll_weight: float) -> None:
    answers = Answers([3, 9, 5, 1, 4, 2, 9, 6], scale=2.0)
    reference = (answers.near(1, 0.8)).sum(1)
    weights = {loss: 1.0} | ({"sft": nll_weight} if nll_weight else {})
    theirs, metrics = dpo_of_trl(answers, reference, weights, beta=0.3, smoothing=smoothing)
    sums, tokens = answers.sums(), answers.lengths
    ours, figures = preference_loss(
        sums[:PAIRS], sums[PAIRS:], reference[:PAIRS], reference[PAIRS:], tokens[:PAIRS], tokens[PAIRS:],
        loss=loss, beta=0.3, label_smoothing=smoothing, nll_weight=nll_weight,
        tokens_per_pair=tokens[:PAIRS].sum().item() / PAIRS,
    )  # fmt: skip
    assert_same(answers, ours.mean(), theirs)
    assert_figures(figures, metrics, PAIR_FIGURES | PAIR_LOG_PROBS)


class Logits:
    """Logits of pairs, (2P, 1 + L, V), for the trainers of TRL that take log-probabilities themselves."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(4)
        shape = (2 * PAIRS, 1 + LENGTH, VOCAB)
        self.logits = torch.randn(shape, generator=generator).requires_grad_()
        self.ids = torch.randint(VOCAB, shape[:2], generator=generator)
        self.lengths = torch.tensor([3, 9, 5, 1, 4, 2, 9, 6])
        inside = torch.arange(1 + LENGTH) <= self.lengths.unsqueeze(1)  # the prompt is the first token
        labels = self.ids.masked_fill(~inside, -100)
        labels[:, 0] = -100
        self.batch = {
            "concatenated_input_ids": self.ids,
            "concatenated_attention_mask": inside.long(),
            "concatenated_labels": labels,
        }
        self.trained = labels[:, 1:] != -100

    def of_trl(self, trainer: Any) -> tuple[Tensor, dict[str, list[float]]]:
        trainer.concatenated_inputs = lambda *_, **__: self.batch
        model = lambda *_, **__: SimpleNamespace(logits=self.logits)  # noqa: E731
        loss, metrics = trainer.get_batch_loss_metrics(model, {"chosen_labels": self.ids[:PAIRS]})
        return loss, {name: [value] for name, value in metrics.items()}

    def sums(self) -> Tensor:
        log_p = self.logits[:, :-1].log_softmax(-1).gather(2, self.ids[:, 1:].unsqueeze(2)).squeeze(2)
        return (log_p * self.trained).sum(1)


@pytest.mark.parametrize(
    ("loss", "trainer", "options"),
    [
        ("orpo", bare(ORPOTrainer, beta=0.2), {"beta": 0.2, "nll_weight": 1.0}),
        ("simpo", bare(CPOTrainer, loss_type="simpo", beta=2.0, simpo_gamma=0.9, label_smoothing=0.0, cpo_alpha=0.0,
                       alpha=0.0), {"beta": 2.0, "margin": 0.9}),
        ("simpo", bare(CPOTrainer, loss_type="simpo", beta=2.0, simpo_gamma=0.9, label_smoothing=0.1, cpo_alpha=0.5,
                       alpha=0.0), {"beta": 2.0, "margin": 0.9, "label_smoothing": 0.1, "nll_weight": 0.5}),
        ("cpo", bare(CPOTrainer, loss_type="sigmoid", beta=0.1, label_smoothing=0.2, cpo_alpha=1.0, alpha=0.0),
         {"beta": 0.1, "label_smoothing": 0.2, "nll_weight": 1.0}),
    ],
)  # fmt: skip
def test_preference_losses_without_a_reference(loss: str, trainer: Any, options: dict[str, float]) -> None:
    logits = Logits()
    theirs, metrics = logits.of_trl(trainer)
    sums, tokens = logits.sums(), logits.lengths
    ours, figures = preference_loss(
        sums[:PAIRS], sums[PAIRS:], None, None, tokens[:PAIRS], tokens[PAIRS:],
        loss=loss, tokens_per_pair=tokens[:PAIRS].sum().item() / PAIRS, **options,
    )  # fmt: skip
    torch.testing.assert_close(ours.mean(), theirs, rtol=1e-5, atol=1e-6)
    mine, expected = (torch.autograd.grad(x, logits.logits)[0] for x in (ours.mean(), theirs))
    torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-7)
    assert_figures(figures, metrics, PAIR_FIGURES)
    if loss == "cpo":  # TRL's others tell means over tokens under this name
        assert_figures(figures, metrics, PAIR_LOG_PROBS)
    if options.get("nll_weight"):
        assert_figures(figures, metrics, {"nll_chosen": "nll_loss"})


@pytest.mark.parametrize("loss", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("closer", [False, True])
def test_losses_on_single_answers(loss: str, closer: bool) -> None:
    answers = Answers([3, 9, 5, 1, 4], scale=2.0)
    reference = answers.near(1, 0.6).sum(1)
    desirable = torch.tensor([True, False, False, True, True])
    mismatched = Answers([4, 3, 9, 5, 1], seed=7)
    # In one case the estimate is below 0 before it is clamped.
    their_reference = mismatched.sums().detach() + (0.5 if closer else -0.5)
    trainer = bare(
        KTOTrainer, loss_type=loss, beta=0.4, desirable_weight=1.3, undesirable_weight=0.6,
        precompute_ref_logps=True, calculate_KL=loss == "kto",
    )  # fmt: skip
    mask = torch.cat([torch.zeros(5, 1, dtype=torch.long), answers.mask], 1)
    zeros = torch.zeros_like(answers.padded)

    def model(input_ids: Tensor, **_: Any) -> Any:
        of = mismatched if input_ids[0, 0] == 2 else answers
        return SimpleNamespace(log_probs=of.padded * of.mask, entropy=zeros, mean_logits=zeros)

    batch = {
        "input_ids": torch.ones_like(mask), "attention_mask": mask, "completion_mask": mask, "label": desirable,
        "KL_input_ids": torch.full_like(mask, 2), "KL_attention_mask": mask, "KL_completion_mask": mask,
        "ref_logps": reference, "ref_KL_logps": their_reference,
    }  # fmt: skip
    theirs = trainer._compute_loss(model, batch, return_outputs=False)
    divergence = divergence_estimate(mismatched.sums(), their_reference)
    assert (divergence == 0) == closer and not divergence.requires_grad
    ours, figures = unpaired_loss(
        answers.sums(), reference, desirable, divergence,
        loss=loss, beta=0.4, desirable_weight=1.3, undesirable_weight=0.6,
    )  # fmt: skip
    assert_same(answers, ours.mean(), theirs)
    names = {"desirable": "chosen", "undesirable": "rejected"}
    expected = {f"{kind}_{mine}": f"{kind}s/{their}" for kind in ["reward"] for mine, their in names.items()}
    expected |= {f"log_prob_{mine}": f"logps/{their}" for mine, their in names.items()} | {"kl": "kl"}
    assert_figures(figures, trainer._metrics["train"], expected)


@pytest.mark.parametrize("margins", [None, torch.tensor([0.5, 0.0, 1.0])])
@pytest.mark.parametrize("centre", [None, 0.01])
def test_reward_loss(margins: Tensor | None, centre: float | None) -> None:
    scores = torch.randn(6, 1, generator=torch.Generator().manual_seed(5)).requires_grad_()
    trainer = bare(RewardTrainer, args=Arguments(center_rewards_coefficient=centre))
    inputs = {"attention_mask": torch.ones(6, 2)} | ({} if margins is None else {"margin": margins})
    theirs = trainer.compute_loss(lambda **_: SimpleNamespace(logits=scores), inputs)
    ours, figures = reward_loss(scores[:3, 0], scores[3:, 0], margins, centre=centre or 0.0)
    torch.testing.assert_close(ours.mean(), theirs)
    torch.testing.assert_close(*(torch.autograd.grad(x, scores)[0] for x in (ours.mean(), theirs)))
    names = {"reward": "mean_reward", "reward_margin": "margin", "reward_accuracy": "accuracy"}
    assert_figures(figures, trainer._metrics["train"], names)


LENGTHS = [3, 9, 5, 1, 4, 7]
ADVANTAGES = torch.tensor([1.2, -0.4, 0.0, -1.5, 0.7, -0.9], dtype=torch.float64)


def policy_trainer(answers: Answers, entropy: Tensor, **options: Any) -> Any:
    """GRPO's trainer, with everything that its loss asks for."""
    arguments = {"delta": None, "use_bias_correction_kl": False, "steps_per_generation": 1}
    defaults = {
        "loss_type": "dapo", "importance_sampling_level": "token", "epsilon_low": 0.2, "epsilon_high": 0.28,
        "beta": 0.0, "top_entropy_quantile": 1.0, "current_gradient_accumulation_steps": 1,
        "max_completion_length": 20,
    }  # fmt: skip
    arguments.update({name: options.pop(name) for name in list(options) if name in arguments})
    trainer = bare(GRPOTrainer, args=Arguments(**arguments), **(defaults | options))
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (answers.padded, entropy, None)
    return trainer


@pytest.mark.parametrize("normaliser", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"epsilon_high": 0.2, "beta": 0.05},
        {"delta": 1.4, "beta": 0.1},
        {"importance_sampling_level": "sequence", "epsilon_low": 0.05, "epsilon_high": 0.04},
    ],
    ids=["token", "kl", "delta", "sequence"],
)
@pytest.mark.parametrize("on_policy", [False, True])
def test_policy_losses_of_grpo(normaliser: Normaliser, options: dict[str, Any], on_policy: bool) -> None:
    assert_same_policy_loss(normaliser, options, on_policy)


def test_the_bonus_for_entropy() -> None:
    # Under the other normalisers TRL's bonus stays a mean over tokens; ours is weighed as the token is.
    assert_same_policy_loss("dapo", {"entropy_coef": 0.02}, on_policy=False)


def assert_same_policy_loss(normaliser: Normaliser, options: dict[str, Any], on_policy: bool) -> None:
    bonus = options.get("entropy_coef", 0.0)
    answers = Answers(LENGTHS)
    old, reference, entropy = answers.near(1, 0.4), answers.near(2, 0.5), answers.near(3, 0.1).abs()
    trainer = policy_trainer(
        answers, entropy, loss_type=normaliser, _entropy_bonus_enabled=bool(bonus), use_adaptive_entropy=False,
        **options,
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.ones(6, 1, dtype=torch.long), "prompt_mask": torch.ones(6, 1, dtype=torch.long),
        "completion_ids": answers.mask, "completion_mask": answers.mask, "advantages": ADVANTAGES,
        "ref_per_token_logps": reference, "num_items_in_batch": answers.mask.sum(),
    } | ({} if on_policy else {"old_per_token_logps": old})  # fmt: skip
    theirs = trainer._compute_loss(None, inputs)
    losses, figures = policy_loss(
        answers.flat(), None if on_policy else answers.flat(old), ADVANTAGES[answers.owners], answers.owners, 6,
        ratio=options.get("importance_sampling_level", "token"), clip_low=options.get("epsilon_low", 0.2),
        clip_high=options.get("epsilon_high", 0.28), delta=options.get("delta"), reference=answers.flat(reference),
        kl_weight=options.get("beta", 0.0), entropy=answers.flat(entropy), entropy_weight=bonus,
    )  # fmt: skip
    weights = token_weights(answers.owners, 6, normaliser)
    ours = (losses * weights).sum() / normaliser_share(6, len(losses), normaliser, 20)
    assert_same(answers, ours, theirs)
    names = {"clip_low": "clip_ratio/low_mean", "clip_high": "clip_ratio/high_mean", "entropy": "entropy"}
    names |= {"kl": "kl"} if options.get("beta") else {}
    assert_figures(figures, trainer._metrics["train"], names)
    if not on_policy:
        assert figures["clip_low"].sum() > 0 and figures["clip_high"].sum() > 0
        assert figures["drift"].min() >= 0 and figures["drift"].mean() > 0.01


def test_the_whole_answer_is_one_action_in_rloo() -> None:
    answers = Answers(LENGTHS)
    old, entropy = answers.near(1, 0.1), answers.near(3, 0.1).abs()
    trainer = bare(RLOOTrainer, epsilon_low=0.2, epsilon_high=0.2)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (answers.padded, entropy, None)
    ids = {f"{part}_{kind}": answers.mask for part in ("prompt", "completion") for kind in ("ids", "mask")}
    theirs = trainer._compute_loss(None, ids | {"old_logps": old.sum(1), "advantages": ADVANTAGES})
    losses, figures = policy_loss(
        answers.flat(), answers.flat(old), ADVANTAGES[answers.owners], answers.owners, 6, ratio="product"
    )
    assert_same(answers, (losses * token_weights(answers.owners, 6, "grpo")).sum() / 6, theirs)
    names = {"clip_low": "clip_ratio/low_mean", "clip_high": "clip_ratio/high_mean"}
    assert_figures(figures, trainer._metrics["train"], names)
    assert figures["clip_low"].sum() + figures["clip_high"].sum() > 0


def scored(trainer: Any, rewards: Tensor) -> dict[str, Any]:
    """What TRL makes of rewards; NaN is an answer that no reward function scored."""
    count = rewards.numel()
    vars(trainer).update(
        _generate=lambda prompts: trainer.generated,
        _calculate_rewards=lambda *_: rewards.reshape(-1, 1),
        _tokenizer=SimpleNamespace(pad_token_id=0),
        processing_class=SimpleNamespace(batch_decode=lambda *_, **__: [""] * count),
        reward_weights=torch.ones(1), reward_func_names=["score"], reward_funcs=[None],
        num_generations=rewards.shape[1], multi_objective_aggregation="sum_then_normalize",
        _logs=defaultdict(list, rewards=defaultdict(list)), _pending_extra_logs={}, _pending_metrics={},
        num_iterations=1,
    )  # fmt: skip
    return trainer._generate_and_score_completions([{"prompt": ""}] * count)


REWARDS = torch.tensor(
    [[1.0, 0.0, 0.3, 0.5], [0.25] * 4, [0.2, torch.nan, -1.0, 0.9], [torch.nan, 1.0, torch.nan, torch.nan]]
)


@pytest.mark.parametrize(("kind", "scale"), [("grpo", "group"), ("dr_grpo", "none"), ("batch", "batch")])
def test_group_advantages(kind: Any, scale: str) -> None:
    rewards = REWARDS[:3] if kind == "grpo" else REWARDS  # TRL has NaN for the deviation of a single score
    answers = Answers([1] * rewards.numel())
    zeros = torch.zeros_like(answers.padded)
    trainer = policy_trainer(
        answers, zeros, scale_rewards=scale, generated=([[1]] * answers.count, [[2]] * answers.count, None,
        [""] * answers.count, None, {}, None, None),
    )  # fmt: skip
    trainer.args.gradient_accumulation_steps = trainer.args.per_device_train_batch_size = 1
    theirs = scored(trainer, rewards)["advantages"]
    ours, figures = group_advantages(rewards, kind)
    torch.testing.assert_close(ours.flatten(), theirs, rtol=1e-5, atol=1e-6)
    metrics = trainer._metrics["train"]
    names = {"zero_variance": "frac_reward_zero_std"} if kind == "grpo" else {}
    assert_figures(figures, metrics, {"reward": "reward"} | names)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_advantages_and_the_distance_taken_off_the_reward_in_rloo(beta: float) -> None:
    rewards = REWARDS
    answers = Answers([3, 9, 5, 1, 4, 7, 2, 2] * 2)
    reference = answers.near(2, 0.3)
    trainer = bare(
        RLOOTrainer, beta=beta, ref_model=object(), args=Arguments(per_device_train_batch_size=64),
        generated=([[1]] * 16, [[2] * n for n in answers.lengths.tolist()], [""] * 16),
    )  # fmt: skip
    trainer._get_per_token_logps_and_entropies = lambda model, *_, **__: (
        reference if model is trainer.ref_model else answers.padded, None, None
    )  # fmt: skip
    theirs = scored(trainer, rewards.double())["advantages"]
    distance = sum_by_document(divergence(answers.flat(), answers.flat(reference), "k1"), answers.owners, 16)
    ours, _ = group_advantages(rewards.double() - beta * distance.detach().reshape(4, 4), "rloo")
    torch.testing.assert_close(ours.flatten(), theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_and_entropies(temperature: float) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(30, 8, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(VOCAB, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(VOCAB, (30,), generator=generator)
    ours = linear_log_probs_and_entropy(hidden, weight, targets, temperature=temperature, trains_entropy=True)
    theirs = selective_log_softmax_and_entropy(hidden @ weight.T, targets, temperature=temperature)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected)
        gradients = (torch.autograd.grad(x.sum(), hidden, retain_graph=True)[0] for x in (mine, expected))
        torch.testing.assert_close(*gradients)
