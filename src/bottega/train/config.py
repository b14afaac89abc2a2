"""Settings of the verb `train`. Imports no torch.

What only some stages need stands in sections of its own: `adapter`, `preference` (reward, dpo, kto, orpo, simpo, cpo),
`policy` and `rewards` (grpo, ppo). The section `train` of a recipe is a heading: what stands under it are the settings
of this model, as if they stood beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bottega.core.dial import SIZES, Dial, Size
from bottega.core.schema import Compute, Config, Seed, Writes
from bottega.data.config import ExampleOptions
from bottega.data.spec import Form
from bottega.model.adapter_config import AdapterSettings
from bottega.train.launch.config import LaunchSettings
from bottega.train.optimizer_names import OptimizerName
from bottega.train.parallel_config import ParallelSettings
from bottega.train.rewards.config import RewardSettings
from bottega.train.schedule import Schedule

Rate = Annotated[float, Field(ge=0, lt=1)]
Stage = Literal["pretrain", "sft", "reward", "dpo", "kto", "orpo", "simpo", "cpo", "ppo", "grpo"]
TOKEN_STAGES = ("pretrain", "sft")
PAIR_STAGES = ("reward", "dpo", "orpo", "simpo", "cpo")
POLICY_STAGES = ("ppo", "grpo")
REFERENCE_STAGES = ("dpo", "kto")
# The form of tokens folder that each stage trains on (docs/data.md).
FORMS: Mapping[str, Form] = {
    "pretrain": "text", "sft": "chat", "kto": "labelled", **dict.fromkeys(PAIR_STAGES, "pairs"),
    **dict.fromkeys(POLICY_STAGES, "prompts"),
}  # fmt: skip


PreferenceLoss = Literal[
    "sigmoid", "sigmoid_norm", "ipo", "hinge", "robust", "exo_pair", "nca_pair", "sppo_hard", "apo_zero", "apo_down",
    "kto", "apo_zero_unpaired",
]  # fmt: skip
UNPAIRED_LOSSES = ("kto", "apo_zero_unpaired")
# Which stages look at which setting of the sections; "" stands for the others.
PREFERENCE_USERS: Mapping[str, tuple[str, ...]] = {
    "loss": REFERENCE_STAGES, "beta": ("dpo", "kto", "orpo", "simpo", "cpo"), "label_smoothing": ("dpo", "cpo"),
    "margin": ("simpo",), "nll_weight": ("dpo", "orpo", "simpo", "cpo"), "centre": ("reward",), "": ("kto",),
}  # fmt: skip
POLICY_USERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("advantage", "normaliser"), ("grpo",)),
    **dict.fromkeys(("discount", "trace", "value_weight", "value_clip", "value_learning_rate"), ("ppo",)),
    "": POLICY_STAGES,
}


class PreferenceSettings(Config):
    """What losses on preferences need. Each stage has defaults of its own where None is the default here."""

    loss: PreferenceLoss | None = None
    """Variant of dpo (default sigmoid; sigmoid_norm divides by the answer's length), or of kto (apo_zero_unpaired)."""
    beta: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Strength (default: 0.1; simpo 2.0)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the labels believed to be wrong (dpo: sigmoid, robust; cpo)."""
    margin: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Margin of simpo, as a share of beta (default: 0.5)."""
    nll_weight: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Weight of the chosen answers' own loss (default: 1 for orpo and cpo, else 0)."""
    desirable_weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Weight of the good examples of kto."""
    undesirable_weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Weight of the bad examples of kto."""
    balance: bool = False
    """Let the rarer kind of examples of kto weigh more, so that both have the same say."""
    centre: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight of the pull of a reward model's scores to a mean of zero."""


class PolicySettings(Config):
    """What learning from the model's own answers needs."""

    group: int = Field(default=8, ge=1)
    """Answers to each prompt."""
    advantage: Literal["grpo", "dr_grpo", "rloo"] = "grpo"
    """What an answer's reward is measured by: its group's mean and deviation, mean only, or the mean of the others."""
    normaliser: Literal["grpo", "dapo", "dr_grpo"] = "dapo"
    """Mean over each answer then answers (grpo), over all tokens (dapo), or by the greatest length (dr_grpo)."""
    updates: int = Field(default=1, ge=1)
    """Optimiser steps on each batch of answers."""
    clip_low: float = Field(default=0.2, gt=0)
    """How far the probability ratio may fall below 1."""
    clip_high: float | None = Field(default=None, gt=0)
    """How far it may rise above 1 (default: as clip_low; DAPO 0.28)."""
    ratio: Literal["token", "sequence"] = "token"
    """Probability ratio of each token, or of the answer as a whole (GSPO)."""
    beta: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Weight of the distance (KL) to the model that was started from (default: 0 for grpo, 0.05 for ppo)."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer, in tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of the answers, and of the probabilities that are trained."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability that answers are drawn from."""
    mask_truncated: bool = False
    """Whether answers that were cut at max_new_tokens are left out of the loss."""
    discount: float = Field(default=1.0, gt=0, le=1)
    """Discount of later rewards (ppo; gamma)."""
    trace: float = Field(default=0.95, ge=0, le=1)
    """Weight of longer looks ahead in the advantages (ppo; lambda of GAE)."""
    value_weight: float = Field(default=0.1, ge=0)
    """Weight of the value loss (ppo)."""
    value_clip: float = Field(default=0.2, gt=0)
    """How far a value may move in one batch of answers (ppo)."""
    value_learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Learning rate of the value head (default: ten times the model's)."""


class Train(ExampleOptions, Writes, Compute):
    """Pre-train a new model, fine-tune one, align it with preferences, or let it learn from rewards."""

    without_effect: ClassVar = frozenset({"launch", "parallel", "save_every", "trackers", "prompts", "sample_every"})
    sections = {
        "stage": "What is trained on what",
        "size": "A new model",
        "adapter": "What is trained of the model",
        "max_steps": "Batch and steps",
        "optimizer": "Optimiser",
        "preference": "Preferences and rewards",
        "heldout": "Measuring",
        "save_every": "Running",
    }

    stage: Stage = "pretrain"
    """pretrain: text; sft: talks; reward, dpo, orpo, simpo, cpo: pairs; kto: judged answers; ppo, grpo: prompts."""
    data: Path
    """Data: a file or folder of examples in any common format, or tokens that `bottega data prepare` wrote."""
    model: Path | None = None
    """Model to start from; without it a new one is made from --size."""
    tokenizer: Path | None = None
    """Tokenizer of a new model (a folder with tokenizer.json)."""
    size: Size | None = None
    """The dial: sizes of a new model, batch, rate and tokens follow from it (default: small, of a new model)."""
    layers: int | None = Field(default=None, ge=1)
    """Layers of a new model (default: from the dial)."""
    hidden_size: int | None = Field(default=None, ge=16)
    """Width of a new model, a multiple of 64 (default: 32 per layer)."""
    adapter: AdapterSettings | None = None
    """Train a low-rank adapter and leave the model as it is: {type: lora, r: 16}; see docs/adapters.md."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """What trained weights are kept in; bfloat16 only with the optimiser adamw_kahan or adamw_masters."""
    checkpointing: Literal["none", "full", "offload"] = "none"
    """Compute each layer's activations again for the gradient (full), or put them into the CPU's memory (offload)."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps, instead of --tokens or --epochs."""
    batch_size: int | None = Field(default=None, ge=1)
    """Examples per optimiser step, instead of --tokens-per-step; pairs and prompts are counted so (default: 16)."""
    row_length: int | None = Field(default=None, ge=8)
    """Tokens per packed row, and of the longest example (default: from the dial, at most the model's context)."""
    tokens_per_step: int | None = Field(default=None, ge=8)
    """Tokens per optimiser step (default: from the dial)."""
    micro_batch_tokens: int = Field(default=8192, ge=8)
    """Tokens that pass through the model at once; the rest of the batch is accumulated."""
    tokens: int | None = Field(default=None, ge=1, le=10**15)
    """Tokens to train on in all (default: from the dial)."""
    epochs: float | None = Field(default=None, gt=0, le=10_000)
    """Passes over the data, instead of --tokens."""
    optimizer: OptimizerName | None = None
    """muon (the blocks' matrices; AdamW for the rest) or another (default: muon; adamw for adapters and alignment)."""
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Peak learning rate (default: by stage and size, see docs/dial.md)."""
    betas: tuple[Rate, Rate] | None = None
    """How slowly the two moments of AdamW (of Lion: its two) change (default: 0.9, 0.95; of lion 0.9, 0.99)."""
    weight_decay: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Decay of the matrices, per unit of learning rate (default: 0.1; 0 for adapters)."""
    schedule: Schedule = "wsd"
    """wsd (warm-up, stable, decay), cosine, linear or constant."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the rate rises."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps in which the rate rises, instead of --warmup."""
    decay: float = Field(default=0.4, gt=0, le=1)
    """Share of the steps in which wsd falls."""
    final_rate: float = Field(default=0.0, ge=0, le=1)
    """Rate at the end, as a share of the peak."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the whole gradient."""
    on_bad_step: Literal["skip", "stop"] = "skip"
    """What to do when loss or gradient is not finite, or the loss spikes."""
    spike_sigma: float = Field(default=6.0, gt=0)
    """A loss this many standard deviations (and half a nat) above the last 128 is a spike."""
    preference: PreferenceSettings = PreferenceSettings()
    """Settings of losses on preferences: {beta: 0.1, loss: ipo}; see docs/alignment.md."""
    policy: PolicySettings = PolicySettings()
    """Settings of grpo and ppo: {group: 8, max_new_tokens: 256}; see docs/alignment.md."""
    rewards: tuple[RewardSettings, ...] = ()
    """What answers are rewarded for: [{type: exact, field: answer}]; see docs/rewards.md."""
    allow_code: bool = False
    """Let rewards of type python run the file that they name."""
    heldout: Path | None = None
    """Data of the same kind to measure on while training."""
    evaluate_every: int = Field(default=50, ge=1)
    """Steps between measurements on --heldout."""
    evaluate_tokens: int = Field(default=32768, ge=1)
    """Tokens of --heldout to measure on."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many measurements without a better one, and keep the best weights."""
    compare: bool | None = None
    """Compare with the start afterwards: general text, KL, tasks (default: briefly, for adapters and alignment)."""
    tasks: tuple[str, ...] = ()
    """Tasks of `bottega eval` for the comparison, or a suite (smoke needs no data)."""
    compare_text: Path | None = None
    """General text for the comparison: a text file, .jsonl, or a corpus (default: this Python's documentation)."""
    sample_every: int | None = Field(default=None, ge=1)
    """Steps between sample texts (default: only at the start and the end)."""
    prompts: tuple[str, ...] = ()
    """Prompts of the samples."""
    parallel: ParallelSettings = ParallelSettings()
    """How several processes share the run: {strategy: zero1}; see docs/scale.md."""
    launch: LaunchSettings | None = None
    """Write files that start the run elsewhere: torchrun, slurm, skypilot, deepspeed, or {kind: slurm, nodes: 2}."""
    save_every: int = Field(default=25, ge=1)
    """Steps between the states from which an interrupted run goes on."""
    compile: bool = False
    """Compile norms and feed-forward layers (a minute at the start; pays on long runs; needs a C++ compiler)."""
    when_empty: Literal["stop", "copy"] = "stop"
    """What to do when the data holds nothing to train on: stop, or copy --model unchanged."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where to log besides metrics.jsonl, if installed."""
    seed: Seed = 0
    """Seed of the initial weights, of the order of the data, and of the answers that are drawn."""

    @model_validator(mode="before")
    @classmethod
    def _heading(cls, values: Any) -> Any:
        """What stands under `train` are settings like the others."""
        if not isinstance(values, dict) or "train" not in values:
            return values
        under = values["train"]
        if not isinstance(under, dict):
            raise ValueError("train is a heading: write the settings of the training under it")
        if twice := sorted(under.keys() & values.keys()):
            raise ValueError(f"{twice[0]!r} is given twice, under train and beside it")
        return {**{key: value for key, value in values.items() if key != "train"}, **under}

    @model_validator(mode="after")
    def _consistent(self) -> Train:
        for wrong, message in (*self._amounts(), *self._starting_points(), *self._alignment(), *self._unused()):
            if wrong:
                raise ValueError(message)
        return self

    def _amounts(self) -> list[tuple[bool, str]]:
        given = [name for name in ("max_steps", "tokens", "epochs") if getattr(self, name) is not None]
        rows = self.stage in TOKEN_STAGES
        return [
            (len(given) > 1, f"give {' or '.join(given)}, not both"),
            (self.batch_size is not None and self.tokens_per_step is not None,
             "give batch_size (examples) or tokens_per_step, not both"),
            (not rows and (self.tokens_per_step or self.tokens) is not None,
             f"{self.stage} counts examples: give batch_size, and max_steps or epochs"),
            (self.stage == "pretrain" and self.batch_size is not None, "pretrain counts tokens: give tokens_per_step"),
            (self.patience is not None and self.heldout is None, "patience needs heldout to measure on"),
            (self.dtype == "float16", "gradients would vanish in float16; train in float32 or bfloat16"),
            ((self.weights == "bfloat16") != (self.optimizer in ("adamw_kahan", "adamw_masters")),
             "weights: bfloat16 belongs together with optimizer: adamw_kahan or adamw_masters: without what they keep, "
             "small steps would be rounded away"),
            ("warmup" in self.model_fields_set and self.warmup_steps is not None,
             "give warmup (a share of the steps) or warmup_steps, not both"),
        ]  # fmt: skip

    def _starting_points(self) -> list[tuple[bool, str]]:
        new = self.tokenizer or self.layers or self.hidden_size
        return [
            (self.model is None and self.stage != "pretrain", f"{self.stage} needs a model to start from"),
            (self.model is None and self.tokenizer is None,
             "a new model needs a tokenizer; to go on with a model, give it as model"),
            (self.when_empty == "copy" and self.model is None, "when_empty=copy needs a model to copy"),
            (self.model is not None and bool(new),
             "tokenizer, layers and hidden_size are for a new model; model brings its own"),
            (self.model is None and self.adapter is not None, "an adapter needs a model to be put on"),
            (self.adapter is not None and self.weights == "bfloat16", "adapters are kept in float32"),
            (self.model is None and bool(self.compare), "a new model has no start to be compared with"),
            (self.stage == "reward" and bool(self.compare), "a reward model says nothing that could be compared"),
            (not self.compares and bool(self.tasks or self.compare_text),
             "tasks and compare_text are for the comparison with the start: say compare: true"),
        ]  # fmt: skip

    def _unused(self) -> list[tuple[bool, str]]:
        """Settings of a section that the stage does not look at: nothing is ignored in silence."""
        found = []
        for section, users in ((self.preference, PREFERENCE_USERS), (self.policy, POLICY_USERS)):
            for name in sorted(section.model_fields_set):
                stages = users.get(name, users[""])
                where = "policy" if section is self.policy else "preference"
                found.append((self.stage not in stages, f"{where}.{name} is for {', '.join(stages)}, not {self.stage}"))
        return found

    def _alignment(self) -> list[tuple[bool, str]]:
        by_policy, loss = self.stage in POLICY_STAGES, self.preference.loss
        return [
            (loss is not None and self.stage not in REFERENCE_STAGES,
             f"preference.loss is a variant of dpo or kto; {self.stage} has one loss"),
            (loss is not None and (loss in UNPAIRED_LOSSES) != (self.stage == "kto"),
             f"preference.loss {loss} is not one of {self.stage}"),
            (by_policy and not self.rewards, f"{self.stage} needs rewards: say what an answer is rewarded for"),
            (not by_policy and bool(self.rewards), f"rewards are for grpo and ppo, not for {self.stage}"),
            (self.stage == "grpo" and self.policy.group < 2, "grpo compares answers of a group: it needs 2 at least"),
            (by_policy and self.adapter is None and self.kl_weight > 0,
             "the distance to the start (policy.beta) is measured with the adapter switched off: train an adapter, or "
             "give beta: 0"),
            (self.preference.loss == "exo_pair" and not self.preference.label_smoothing,
             "exo_pair needs a label_smoothing above 0; the paper's code has 0.001"),
        ]  # fmt: skip

    @property
    def compares(self) -> bool:
        """Whether the run ends with a comparison with its start."""
        if self.compare is not None:
            return self.compare
        return self.stage != "reward" and (self.stage not in TOKEN_STAGES or self.adapter is not None)

    def compared_tokens(self, trained: int) -> int:
        """Tokens to compare on; where nobody asked for it, the comparison takes a small part of the run at most."""
        return self.evaluate_tokens if self.compare else min(self.evaluate_tokens, max(1024, trained // 8))

    @property
    def preference_loss(self) -> str:
        """The loss on pairs or judged answers."""
        return self.preference.loss or {"dpo": "sigmoid"}.get(self.stage, self.stage)

    @property
    def beta(self) -> float:
        """Strength of the loss on preferences."""
        return self.preference.beta or (2.0 if self.stage == "simpo" else 0.1)

    @property
    def nll_weight(self) -> float:
        """Weight of the chosen answers' own loss."""
        default = 1.0 if self.stage in ("orpo", "cpo") else 0.0
        return default if self.preference.nll_weight is None else self.preference.nll_weight

    @property
    def by_the_dial(self) -> bool:
        """Whether the dial says how to train: it knows new models, and those that were made with it."""
        return self.adapter is None and self.stage in TOKEN_STAGES and (self.model is None or self.size is not None)

    @property
    def dial(self) -> Dial:
        """What follows from the size."""
        return SIZES[self.size or "small"]

    @property
    def example_options(self) -> dict[str, Any]:
        """How raw examples become tokens."""
        return {name: getattr(self, name) for name in ExampleOptions.model_fields}

    @property
    def form(self) -> Form:
        """The form of data that the stage trains on."""
        return FORMS[self.stage]

    @property
    def drops(self) -> bool:
        """Whether an adapter's dropout is at work: not where what is trained is held against what was without it."""
        return self.stage not in (*REFERENCE_STAGES, *POLICY_STAGES)

    @property
    def kl_weight(self) -> float:
        """Weight of the distance to the model that was started from, of ppo and grpo."""
        default = 0.05 if self.stage == "ppo" else 0.0
        return default if self.policy.beta is None else self.policy.beta
