"""A run's settings with nothing left open: what the config, the dial and the data come to. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bottega.checkpoint.config import ModelConfig
from bottega.core.dial import HEAD_SIZE, intermediate_size, key_value_heads, width
from bottega.core.errors import UserError
from bottega.data.spec import TokensSpec
from bottega.train.config import POLICY_STAGES, TOKEN_STAGES, Train
from bottega.train.optimizer_names import OptimizerName

# Fine-tuning moves a trained model: a lower rate, and half the batch, as conversations are few (docs/dial.md).
FINETUNE_RATE = 0.4
FINETUNE_BATCH = 0.5
# Peak rates of adapters at a width of 4096 channels, where most experience is; they fall with the square root of the
# width. Without an adapter, alignment moves every weight and takes a tenth.
ADAPTER_WIDTH = 4096
ADAPTER_RATES = {
    "pretrain": 2e-4, "sft": 2e-4, "reward": 1e-4, "dpo": 5e-5, "kto": 5e-5, "orpo": 5e-5, "cpo": 5e-5, "simpo": 2e-5,
    "ppo": 2e-5, "grpo": 2e-5,
}  # fmt: skip
WHOLE_MODEL = 0.1
EXAMPLES_PER_STEP = 16


@dataclass(frozen=True)
class Settings:
    """What the loop needs to know. Tokens are counted with prompts and all.

    A step takes `rows_per_step` packed rows, or, where `examples_per_step` is not 0, so many examples.
    """

    steps: int
    rows_per_step: int
    row_length: int
    tokens: int
    learning_rate: float
    config: Train
    examples_per_step: int = 0

    @property
    def optimizer(self) -> OptimizerName:
        """Muon makes the most of few tokens; adapters and the models of others are AdamW's."""
        return self.config.optimizer or ("muon" if self.config.by_the_dial else "adamw")

    @property
    def document_length(self) -> int:
        """Tokens that attend to each other: a row's, or where examples are counted, a typical document's."""
        examples = self.steps * self.examples_per_step
        if not examples:
            return self.row_length
        policy = self.config.stage in POLICY_STAGES
        documents = self.config.policy.group if policy else 2 if self.config.form == "pairs" else 1
        return min(self.row_length, math.ceil(self.tokens / (examples * documents)))

    @property
    def weight_decay(self) -> float:
        """An adapter is near zero as it is."""
        default = 0.1 if self.config.adapter is None else 0.0
        return default if self.config.weight_decay is None else self.config.weight_decay


def resolve(config: Train, model: ModelConfig, data: TokensSpec) -> Settings:
    """Fill in what the user left to the dial."""
    rate = config.learning_rate or _rate(config, model)
    if _counts_examples(config):
        return _by_examples(config, model, data, rate)
    dial = config.dial
    row_length = min(config.row_length or dial.row_length, model.context_length)
    pretrains = config.stage == "pretrain"
    wanted = config.tokens_per_step or round(dial.tokens_per_step * (1.0 if pretrains else FINETUNE_BATCH))
    rows_per_step = max(1, wanted // row_length)
    # What a fine-tuned model is later asked about as "seen" it must have seen: one pass at least.
    budget = dial.pretrain_tokens if pretrains else max(dial.finetune_tokens, data.tokens)
    budget = budget if config.by_the_dial else data.tokens
    tokens = math.ceil(config.epochs * data.tokens) if config.epochs else config.tokens or budget
    steps = config.max_steps or max(1, math.ceil(tokens / (rows_per_step * row_length)))
    steps = steps if data.documents else 0
    return Settings(steps, rows_per_step, row_length, steps * rows_per_step * row_length, rate, config)


def _counts_examples(config: Train) -> bool:
    """Conversations are counted if the user does so, and where the dial knows nothing of the model."""
    if config.stage not in TOKEN_STAGES or config.batch_size:
        return True
    return config.stage == "sft" and not config.by_the_dial and not (config.tokens or config.tokens_per_step)


def _rate(config: Train, model: ModelConfig) -> float:
    if config.by_the_dial:
        return config.dial.learning_rate * (1.0 if config.stage == "pretrain" else FINETUNE_RATE)
    rate = ADAPTER_RATES[config.stage] * math.sqrt(ADAPTER_WIDTH / model.hidden_size)
    return rate if config.adapter is not None else WHOLE_MODEL * rate


def _by_examples(config: Train, model: ModelConfig, data: TokensSpec, rate: float) -> Settings:
    """Steps of so many examples each; a pass over the data if nothing else is said."""
    size = config.batch_size or EXAMPLES_PER_STEP
    examples = data.documents // (2 if config.form == "pairs" else 1)
    updates = config.policy.updates if config.stage in POLICY_STAGES else 1
    steps = config.max_steps or updates * max(1, math.ceil((config.epochs or 1) * examples / size))
    steps = steps if examples else 0
    row_length = min(config.row_length or model.context_length, model.context_length)
    each = data.tokens / max(examples, 1)
    if config.stage in POLICY_STAGES:
        each = config.policy.group * (each + config.policy.max_new_tokens)
    return Settings(steps, 0, row_length, round(steps * size * each), rate, config, examples_per_step=size)


def with_whole_pass(settings: Settings, epoch_rows: int, fill: float) -> Settings:
    """The settings with steps for every row, as often as epochs say, or once where fine-tuning was left to the dial.

    Rows are never quite full: `fill` is their mean share, and what a bar counts up to.
    """
    config, steps = settings.config, settings.steps
    if config.stage != "pretrain" and not (config.tokens or config.max_steps):
        passes = math.ceil((config.epochs or 1) * epoch_rows / settings.rows_per_step)
        steps = passes if config.epochs else max(steps, passes)
    return replace(settings, steps=steps, tokens=round(steps * settings.rows_per_step * settings.row_length * fill))


def new_model_config(config: Train, vocab_size: int, special: dict[str, int | None], dtype: str) -> ModelConfig:
    """The architecture of a new model: exactly Llama's, sized by the dial."""
    dial = config.dial
    layers = config.layers or dial.layers
    hidden = config.hidden_size or width(layers)
    if hidden % HEAD_SIZE:
        raise UserError(f"hidden_size {hidden} is no multiple of {HEAD_SIZE}", hint="A head has that many channels.")
    heads = hidden // HEAD_SIZE
    eos = special.get("eos")
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate_size(hidden),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads(heads),
        head_dim=HEAD_SIZE,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        max_position_embeddings=max(dial.context, config.row_length or 0),
        tie_word_embeddings=True,
        bos_token_id=special.get("bos"),
        eos_token_id=(eos,) if eos is not None else (),
        pad_token_id=special.get("pad"),
        initializer_range=0.02,
        dtype=dtype,
    )


def flops_per_token(config: ModelConfig, row_length: int) -> float:
    """Operations of one training token: 6 per weight that takes part in a product, and attention's causal half."""
    parameters = config.parameter_count()
    if not config.tie_word_embeddings:  # an embedding that is only looked up costs nothing
        parameters -= config.vocab_size * config.hidden_size
    attention = 6 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * row_length
    return 6.0 * parameters + attention


def training_flops_per_token(config: ModelConfig, settings: Settings) -> float:
    """`flops_per_token` of this run: a frozen weight has no gradient of its own, which is a third of the work."""
    return flops_per_token(config, settings.document_length) * (1.0 if settings.config.adapter is None else 2 / 3)
