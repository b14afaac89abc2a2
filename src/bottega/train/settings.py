"""A run's settings with nothing left open: what the config, the dial and the data come to. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bottega.checkpoint.config import ModelConfig
from bottega.core.dial import HEAD_SIZE, intermediate_size, key_value_heads, width
from bottega.core.errors import UserError
from bottega.data.spec import TokensSpec
from bottega.train.config import Train

# Fine-tuning moves a trained model: a lower rate, and half the batch, as conversations are few (docs/dial.md).
FINETUNE_RATE = 0.4
FINETUNE_BATCH = 0.5


@dataclass(frozen=True)
class Settings:
    """What the loop needs to know. Tokens are counted with prompts and all."""

    steps: int
    rows_per_step: int
    row_length: int
    tokens: int
    learning_rate: float
    config: Train


def resolve(config: Train, model: ModelConfig, data: TokensSpec) -> Settings:
    """Fill in what the user left to the dial."""
    dial = config.dial
    row_length = min(config.row_length or dial.row_length, model.context_length)
    pretrains = config.stage == "pretrain"
    wanted = config.tokens_per_step or round(dial.tokens_per_step * (1.0 if pretrains else FINETUNE_BATCH))
    rows_per_step = max(1, wanted // row_length)
    # What a fine-tuned model is later asked about as "seen" it must have seen: one pass at least.
    budget = dial.pretrain_tokens if pretrains else max(dial.finetune_tokens, data.tokens)
    tokens = math.ceil(config.epochs * data.tokens) if config.epochs else config.tokens or budget
    rate = config.learning_rate or dial.learning_rate * (1.0 if pretrains else FINETUNE_RATE)
    steps = max(1, math.ceil(tokens / (rows_per_step * row_length))) if data.documents else 0
    return Settings(steps, rows_per_step, row_length, steps * rows_per_step * row_length, rate, config)


def with_whole_pass(settings: Settings, epoch_rows: int) -> Settings:
    """The settings with steps for every row once, where fine-tuning was left to the dial; rows are never quite full."""
    config = settings.config
    if config.stage == "pretrain" or config.tokens or config.epochs:
        return settings
    steps = max(settings.steps, math.ceil(epoch_rows / settings.rows_per_step))
    return replace(settings, steps=steps, tokens=steps * settings.rows_per_step * settings.row_length)


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
