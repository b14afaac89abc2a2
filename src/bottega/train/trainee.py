"""The model that is trained: new, or read; whole, or frozen with an adapter on it; with the head of its stage."""

from __future__ import annotations

from pathlib import Path

import torch

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.hub import locate
from bottega.core.errors import UserError
from bottega.model.adapter_folder import load_adapter_into
from bottega.model.decoder import Decoder
from bottega.model.extend import added_tokens
from bottega.model.load import load_decoder
from bottega.model.load_quantised import load_quantised
from bottega.model.lora import add_adapter, learning_rate_factors
from bottega.model.reward import add_head
from bottega.train.config import Train
from bottega.train.optimizer import build_optimizers
from bottega.train.settings import Settings
from bottega.train.stage import Machine

SCORE_HEAD, VALUE_HEAD = "score", "value_head"
VALUE_RATE = 10.0


def make_trainee(config: Train, architecture: ModelConfig, machine: Machine) -> Decoder:
    """The decoder of a run, before its first step.

    What is trained is kept in float32 (or, asked for, in bfloat16 with Kahan's correction), whatever the precision of
    the products; a frozen base as its settings say.
    """
    generator = torch.Generator().manual_seed(config.seed)
    model = _base(config, architecture, machine, generator)
    if config.adapter is not None:
        if config.adapter.start is not None:
            load_adapter_into(model, config.adapter.start, settings=config.adapter)
        else:
            add_adapter(model, config.adapter, generator, added=_added(config))
    if config.stage == "reward":
        add_head(model, SCORE_HEAD, generator)
        if not architecture.tie_word_embeddings:  # it has no part in scores; a tied one is the embedding
            model.lm_head.requires_grad_(False)
    if config.stage == "ppo":
        add_head(model, VALUE_HEAD, generator)
    if config.checkpointing != "none":
        from bottega.model.checkpointing import checkpoint_blocks

        checkpoint_blocks(model, config.checkpointing)
    return model


def make_optimizers(model: Decoder, settings: Settings, machine: Machine) -> list[torch.optim.Optimizer]:
    """The optimisers of what is trained."""
    config, rate = settings.config, settings.learning_rate
    factors = learning_rate_factors(model) if config.adapter is not None else {}
    value_rate = config.policy.value_learning_rate
    factors[f"{VALUE_HEAD}.weight"] = value_rate / rate if value_rate else VALUE_RATE
    return build_optimizers(
        model,
        settings.optimizer,
        learning_rate=rate,
        weight_decay=settings.weight_decay,
        work_dtype=machine.dtype,
        betas=config.betas,
        factor=lambda name: factors.get(name, 1.0),
    )


def _added(config: Train) -> tuple[int, ...]:
    """The tokens that `new_tokens: auto` stands for."""
    if config.model is None or config.adapter is None or config.adapter.new_tokens != "auto":
        return ()
    found = added_tokens(locate(config.model))
    if not found:
        raise UserError(
            f"new_tokens: auto are the tokens that `bottega tokenizer extend` added, and {config.model} has none of it",
            hint="Give their ids: new_tokens: [32000, 32001].",
        )
    return found


def _base(config: Train, architecture: ModelConfig, machine: Machine, generator: torch.Generator) -> Decoder:
    if config.model is None:
        return Decoder(architecture).initialise(generator).to(machine.device)
    folder: Path = locate(config.model)
    adapter = config.adapter
    if adapter is not None and adapter.base != "none":
        return load_quantised(
            folder, adapter.base, double_quant=adapter.double_quant, device=machine.device, dtype=machine.dtype
        )
    if adapter is not None:
        return load_decoder(folder, device=machine.device, dtype=machine.dtype)
    dtype = torch.bfloat16 if config.weights == "bfloat16" else torch.float32
    return load_decoder(folder, device=machine.device, dtype=dtype)
