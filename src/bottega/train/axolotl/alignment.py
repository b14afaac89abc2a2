"""Axolotl's `rl`, the keys of its losses, and its section `trl`, as our stage, `preference` and `policy`.

Axolotl hands these to TRL, so what a file leaves out is TRL's default, and a name means what TRL's formula makes of it.
"""

from __future__ import annotations

from typing import Any

from bottega.train.axolotl.data import plain_text
from bottega.train.axolotl.reading import Reading

STAGES = {"dpo": "dpo", "ipo": "dpo", "kto": "kto", "orpo": "orpo", "simpo": "simpo", "grpo": "grpo"}
DPO_LOSSES = ("sigmoid", "ipo", "hinge", "robust", "sigmoid_norm")
# TRL's defaults where ours are others (CPOConfig, GRPOConfig).
SIMPO_BETA, SIMPO_GAMMA, SIMPO_NLL = 0.1, 0.5, 1.0
GRPO_LOSSES = {"grpo": "grpo", "dapo": "dapo", "dr_grpo": "dr_grpo"}
OF_LOSSES = (
    "rl_beta", "dpo_beta", "orpo_alpha", "rpo_alpha", "simpo_gamma", "cpo_alpha", "kto_desirable_weight",
    "kto_undesirable_weight", "dpo_label_smoothing", "dpo_loss_type", "center_rewards_coefficient", "max_prompt_len",
)  # fmt: skip
TRL_NOTED = (
    "use_vllm", "log_completions", "num_completions_to_print", "use_liger_loss", "ref_model_mixup_alpha",
    "ref_model_sync_steps", "async_prefetch", "use_data_producer",
)  # fmt: skip


def read_stage(reading: Reading) -> str | None:
    """The stage; None, with an error in the lines, for one that is not there."""
    asked = reading.take("rl")
    if asked is not None:
        stage = STAGES.get(str(asked))
        if stage is None:
            reading.refuse("rl", f"{asked} is not there: {', '.join(STAGES)}")
            return None
        reading.use("rl", "stage", stage)
        if asked == "ipo":
            reading.use("rl", "preference.loss", "ipo")
        return stage
    if reading.take("reward_model"):
        reading.use("reward_model", "stage", "reward")
        reading.expect("num_labels", (1,), "a reward is one number")
        return "reward"
    if plain_text(reading.rest):
        reading.use("datasets[0].type", "stage", "pretrain")
        return "pretrain"
    reading.use("datasets[0].type", "stage", "sft")
    return "sft"


def read_losses(reading: Reading, stage: str) -> None:
    """Settings of the losses on preferences, and of grpo."""
    if stage == "grpo":
        _policy(reading)
    elif "trl" in reading.rest:
        section: dict[str, Any] = dict(reading.take("trl") or {})
        if section.get("beta") is not None and "rl_beta" not in reading.rest:
            reading.rest["rl_beta"] = section.pop("beta")
        for name in section:
            reading.note(f"trl.{name}", f"without effect on {stage}")
    {"dpo": _dpo, "kto": _kto, "orpo": _orpo, "simpo": _simpo, "reward": _reward}.get(stage, _nothing)(reading)
    if length := reading.number("max_prompt_len"):
        if stage in ("pretrain", "sft"):
            reading.note("max_prompt_len", f"without effect on {stage}, as there")
        else:
            reading.differs("max_prompt_len", f"prompts are not cut to {length:g}; whole examples are, to row_length")
    for key in [key for key in OF_LOSSES if key in reading.rest]:
        reading.take(key)
        reading.note(key, f"without effect on {stage}, as there")


def _beta(reading: Reading) -> float | None:
    key, value = reading.first("rl_beta", "dpo_beta")
    if value is None:
        return None
    reading.use(key, "preference.beta", float(value))
    return float(value)


def _dpo(reading: Reading) -> None:
    _beta(reading)
    reading.pass_number("dpo_label_smoothing", "preference.label_smoothing")
    reading.pass_number("rpo_alpha", "preference.nll_weight")
    losses = reading.take("dpo_loss_type")
    losses = losses if isinstance(losses, list) else [losses] if losses else []
    if len(losses) > 1 or (losses and losses[0] not in DPO_LOSSES):
        reading.refuse("dpo_loss_type", f"{', '.join(map(str, losses))}: one of {', '.join(DPO_LOSSES)}")
    elif losses:
        reading.use("dpo_loss_type", "preference.loss", losses[0])


def _kto(reading: Reading) -> None:
    _beta(reading)
    reading.pass_number("kto_desirable_weight", "preference.desirable_weight")
    reading.pass_number("kto_undesirable_weight", "preference.undesirable_weight")


def _orpo(reading: Reading) -> None:
    """The weight of the odds ratio is orpo_alpha there (TRL's beta, the paper's λ)."""
    key, value = reading.first("orpo_alpha", "rl_beta")
    if value is not None:
        reading.use(key, "preference.beta", float(value))
    reading.differs("rl", "the chosen answer's own loss leaves the prompt out, as in ORPO's paper; TRL's does not")


def _simpo(reading: Reading) -> None:
    """TRL subtracts simpo_gamma / beta from the difference of the mean log-probabilities: our margin is that share.

    It also adds the chosen answers' own loss, unless cpo_alpha is 0, which SimPO's paper does not.
    """
    beta = _beta(reading)
    if beta is None:
        reading.use("rl_beta", "preference.beta", SIMPO_BETA, silent=True)
    gamma = reading.number("simpo_gamma", SIMPO_GAMMA)
    reading.use("simpo_gamma / rl_beta", "preference.margin", round((gamma or 0.0) / (beta or SIMPO_BETA), 9))
    given = "cpo_alpha" in reading.rest
    reading.use("cpo_alpha", "preference.nll_weight", reading.number("cpo_alpha", SIMPO_NLL), silent=given is False)
    if not given:
        reading.note("cpo_alpha", "1 as there, which adds the chosen answers' own loss; SimPO's paper has 0")


def _reward(reading: Reading) -> None:
    reading.pass_number("center_rewards_coefficient", "preference.centre")


def _nothing(reading: Reading) -> None:
    del reading


def _policy(reading: Reading) -> None:
    """GRPO: the section trl. The names of its losses are TRL's."""
    trl = Reading({f"trl.{name}": value for name, value in dict(reading.take("trl") or {}).items()})
    trl.settings, trl.lines = reading.settings, reading.lines
    trl.use("trl.num_generations", "policy.group", trl.whole("trl.num_generations", 8))
    trl.use("trl.max_completion_length", "policy.max_new_tokens", trl.whole("trl.max_completion_length", 256))
    trl.use("trl.beta", "policy.beta", trl.number("trl.beta", 0.0))
    for name, setting in (
        ("temperature", "temperature"), ("top_p", "top_p"), ("epsilon", "clip_low"), ("epsilon_high", "clip_high"),
        ("num_iterations", "updates"),
    ):  # fmt: skip
        trl.pass_number(f"trl.{name}", f"policy.{setting}")
    scaled = trl.take("trl.scale_rewards", True)
    trl.use("trl.scale_rewards", "policy.advantage", "dr_grpo" if scaled in (False, "none") else "grpo")
    if scaled == "batch":
        trl.refuse("trl.scale_rewards", "rewards are measured by their own group: true or false")
    loss = str(trl.take("trl.loss_type", "dapo"))
    if loss in GRPO_LOSSES:
        trl.use("trl.loss_type", "policy.normaliser", GRPO_LOSSES[loss])
    else:
        trl.refuse("trl.loss_type", f"{loss} is not there: {', '.join(GRPO_LOSSES)}")
    masked = trl.take("trl.mask_truncated_completions", False)
    trl.use("trl.mask_truncated_completions", "policy.mask_truncated", bool(masked))
    level = trl.take("trl.importance_sampling_level")
    if level in ("token", "sequence"):
        trl.use("trl.importance_sampling_level", "policy.ratio", level)
    elif level is not None:
        trl.refuse("trl.importance_sampling_level", f"{level}: token or sequence")
    _rewards(trl)
    _the_rest(trl)


def _rewards(trl: Reading) -> None:
    """Functions of one's own are called otherwise here, so they are told; grpo refuses to run without rewards."""
    functions = trl.take("trl.reward_funcs")
    trl.take("trl.reward_weights")
    if functions:
        text = (
            f"{', '.join(map(str, functions))}: give rewards, such as rewards='[{{type: exact, field: answer}}]'; "
            "a function of your own is {type: python, path: FILE, function: NAME} (docs/rewards.md)"
        )
        trl.differs("trl.reward_funcs", text)


def _the_rest(trl: Reading) -> None:
    for name, off in (("top_k", (0, -1)), ("min_p", (0, 0.0)), ("repetition_penalty", (1, 1.0))):
        trl.expect(f"trl.{name}", off, "answers are drawn by temperature and top_p, so that what is trained is known")
    if trl.take("trl.sync_ref_model") is True:
        trl.refuse("trl.sync_ref_model", "the reference stays the model that was started from")
    for key in list(trl.rest):
        value = trl.take(key)
        if key.removeprefix("trl.") in TRL_NOTED or key.startswith("trl.vllm"):
            trl.note(key, "answers come from the engine here")
        elif value is not False:
            trl.refuse(key, "is not there")
