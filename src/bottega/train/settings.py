"""A run's settings with nothing left open: what the config, the dial and the data come to. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.data.spec import TokensSpec
from bottega.train.config import Train

# Fine-tuning moves a trained model; a quarter of the pre-training rate was best on the quickstart.
FINETUNE_RATE = 0.25


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
    row_length = min(config.row_length or dial.row_length, model.max_position_embeddings)
    wanted = config.tokens_per_step or dial.tokens_per_step
    rows_per_step = max(1, wanted // row_length)
    budget = dial.pretrain_tokens if config.stage == "pretrain" else dial.finetune_tokens
    tokens = math.ceil(config.epochs * data.tokens) if config.epochs else config.tokens or budget
    rate = config.learning_rate or dial.learning_rate * (1.0 if config.stage == "pretrain" else FINETUNE_RATE)
    steps = max(1, math.ceil(tokens / (rows_per_step * row_length))) if data.documents else 0
    return Settings(steps, rows_per_step, row_length, steps * rows_per_step * row_length, rate, config)


def new_model_config(config: Train, vocab_size: int, special: dict[str, int | None], dtype: str) -> ModelConfig:
    """The architecture of a new model: exactly Llama's, sized by the dial."""
    dial = config.dial
    layers = config.layers or dial.layers
    hidden = config.hidden_size or (64 * layers if config.layers else dial.hidden_size)
    if hidden % 64:
        raise UserError(f"hidden_size {hidden} is no multiple of 64", hint="Heads have 64 channels each.")
    heads = hidden // 64
    eos = special.get("eos")
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=-(-hidden * 8 // 3 // 32) * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2 if heads % 2 == 0 else 1 if heads == 3 else heads,
        head_dim=64,
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
