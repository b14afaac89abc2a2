"""What the card of a trained model or adapter says: data, method, comparison, limits. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bottega.checkpoint.card import CardText
from bottega.core.plan import Plan
from bottega.train.comparison_view import comparison_lines
from bottega.train.config import PAIR_STAGES, POLICY_STAGES, REFERENCE_STAGES, Train
from bottega.train.view import CUT

WHAT = {
    "pretrain": "pre-trained", "sft": "fine-tuned on conversations", "reward": "trained to score answers",
    "dpo": "aligned with preferences (DPO)", "kto": "aligned with judged answers (KTO)",
    "orpo": "aligned with preferences (ORPO)", "simpo": "aligned with preferences (SimPO)",
    "cpo": "aligned with preferences (CPO)", "ppo": "trained by rewards (PPO)", "grpo": "trained by rewards (GRPO)",
}  # fmt: skip
UNITS = {"text": "documents", "chat": "conversations", "pairs": "pairs", "labelled": "judged answers",
         "prompts": "prompts"}  # fmt: skip
LIMIT = "What it says may be wrong. Check before you rely on it."
REWARD_LIMIT = "A score says which of two answers people like those who made the data would prefer, not what is true."
PREFERENCE_LIMIT = "It was drawn towards what was preferred in its data: longer, surer or politer need not be better."
POLICY_LIMIT = "It was drawn towards what earned rewards: what the rewards do not measure may have suffered."


def card_text(plan: Plan, data: Mapping[str, Any]) -> CardText:
    """What a card says beyond what record and headers know; `data` are the metrics of the run."""
    config = plan.config
    assert isinstance(config, Train)
    kind = "A reward model" if config.stage == "reward" else "A language model"
    return CardText(
        title=config.out.name,
        summary=data["reason"] if data.get("copied") else f"{kind}, {WHAT[config.stage]} with bottega.",
        licence=plan.details["licence"],
        data=_data(plan, config, data),
        method=[] if data.get("copied") else _method(plan, config, data),
        compared=comparison_lines(data.get("comparison") or {}),
        base_model=base_name(config.model) if config.model else None,
        limits=_limits(config),
        tags=[config.stage],
    )


def applicable(config: Train) -> dict[str, Any]:
    """The settings without the sections that are of other ways of learning."""
    left_out = {"parallel"}
    left_out |= set() if config.stage in POLICY_STAGES else {"policy"}
    left_out |= set() if config.form in ("pairs", "labelled") else {"preference"}
    return {name: value for name, value in config.as_data().items() if name not in left_out}


def base_name(model: Path) -> str:
    """The name of the model that was started from: a folder's own, without where it lies, or org/name of the hub."""
    return model.resolve().name if model.exists() else str(model).partition("@")[0]


def _data(plan: Plan, config: Train, data: Mapping[str, Any]) -> list[str]:
    counts = data.get("data")
    line = f"{config.data.name}, as {config.form}"
    if counts:
        line += f": {counts['examples']:,} {UNITS[config.form]}, {counts['tokens']:,} tokens"
        line += f", of which {counts['trained_tokens']:,} are trained" if config.form not in ("text", "prompts") else ""
    licence = plan.details["data_licence"]
    lines = [f"{line}.", f"Licence of the text: {licence or 'not stated'}."]
    if data.get("conversations_truncated") or data.get("conversations_dropped"):
        lines.append(CUT.format(**data))
    return lines


def _method(plan: Plan, config: Train, data: Mapping[str, Any]) -> list[str]:
    """How it was trained, with what somebody would need to do it again."""
    settings = plan.details["settings"]
    amount = f"{data['examples_per_step']} {UNITS[config.form]}" if data.get("examples_per_step") else (
        f"{data['tokens_per_step']:,} tokens"
    )
    lines = [_goal(config), _trained(config)]
    lines.append(
        f"{data['steps']} steps of {amount}: {data['passes']:.3g} passes over the data; rows of {data['row_length']} "
        f"tokens; seed {config.seed}."
    )
    lines.append(
        f"Optimiser {settings.optimizer}, peak learning rate {data['learning_rate']:.3g}, schedule {config.schedule} "
        f"with {config.warmup:.0%} warm-up, weight decay {settings.weight_decay:.3g}, gradients clipped at a norm of "
        f"{config.clip:.3g}; products in {plan.details['dtype']}."
    )
    if data.get("stopped_early"):
        lines.append("It stopped early, when the held-out loss rose; the best weights were kept.")
    return lines


def _goal(config: Train) -> str:
    preference, policy = config.preference, config.policy
    if config.stage == "reward":
        return "Goal: reward, the loss of Bradley and Terry on pairs."
    if config.stage in PAIR_STAGES or config.stage == "kto":
        parts = [f"loss {config.preference_loss}", f"beta {config.beta:.3g}"]
        parts += [f"label smoothing {preference.label_smoothing:.3g}"] if preference.label_smoothing else []
        parts += [f"weight {config.nll_weight:.3g} of the chosen answers' own loss"] if config.nll_weight else []
        parts += ["the reference is the model it came from"] if config.stage in REFERENCE_STAGES else []
        return f"Goal: {config.stage}, {', '.join(parts)}."
    if config.stage in POLICY_STAGES:
        rewards = ", ".join(each.type for each in config.rewards)
        groups = f", {policy.group} to a prompt, advantages by {policy.advantage}" if config.stage == "grpo" else ""
        return (
            f"Goal: {config.stage}, rewards of its own answers ({rewards}){groups}; up to {policy.max_new_tokens} "
            f"tokens at temperature {policy.temperature:.3g}; steps on each batch of answers: {policy.updates}; weight "
            f"of the distance to the start {config.kl_weight:.3g}."
        )
    return f"Goal: {config.stage}, the mean of -log p over the trained tokens."


def _trained(config: Train) -> str:
    adapter = config.adapter
    if adapter is None:
        return f"Trained: all weights, kept in {config.weights}."
    targets = adapter.target_modules if isinstance(adapter.target_modules, str) else ", ".join(adapter.target_modules)
    kinds = [name for name, used in (("rsLoRA", adapter.use_rslora), ("DoRA", adapter.use_dora)) if used]
    kinds += ["PiSSA"] if adapter.init == "pissa" else []
    kinds += [f"LoRA+ with a ratio of {adapter.lora_plus_ratio:.3g}"] if adapter.lora_plus_ratio > 1 else []
    kinds += [f"base rounded to {adapter.base}"] if adapter.base != "none" else []
    alpha = "" if adapter.alpha is None else f", alpha {adapter.alpha:.3g}"
    return (
        f"Trained: a low-rank adapter of rank {adapter.r}{alpha} on {targets}, dropout {adapter.dropout:.3g}"
        + (f" ({', '.join(kinds)})." if kinds else ".")
    )


def _limits(config: Train) -> list[str]:
    if config.stage == "reward":
        return [REWARD_LIMIT]
    if config.stage in POLICY_STAGES:
        return [LIMIT, POLICY_LIMIT]
    return [LIMIT, PREFERENCE_LIMIT] if config.form in ("pairs", "labelled") else [LIMIT]
