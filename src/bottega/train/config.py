"""Settings of the verb `train`. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from bottega.core.dial import SIZES, Dial, Size
from bottega.core.schema import Compute, Seed, Writes
from bottega.train.optimizer_names import OptimizerName
from bottega.train.schedule import Schedule

Stage = Literal["pretrain", "sft"]


class Train(Writes, Compute):
    """Pre-train a new model, or fine-tune one, on a folder of prepared tokens."""

    without_effect: ClassVar = frozenset({"save_every", "trackers", "prompts", "sample_every"})

    stage: Stage = "pretrain"
    """pretrain: every token of plain text; sft: the assistant's tokens of conversations."""
    data: Path
    """Folder of tokens that `bottega data prepare` wrote."""
    heldout: Path | None = None
    """Folder of tokens to measure the loss on while training."""
    model: Path | None = None
    """Model to start from; without it a new one is made from --size."""
    tokenizer: Path | None = None
    """Tokenizer of a new model (a folder with tokenizer.json)."""
    size: Size = "small"
    """The dial: sizes of a new model, batch, learning rate and tokens follow from it."""
    layers: int | None = Field(default=None, ge=1)
    """Layers of a new model (default: from the dial)."""
    hidden_size: int | None = Field(default=None, ge=16)
    """Width of a new model, a multiple of 64 (default: 32 per layer)."""
    row_length: int | None = Field(default=None, ge=8)
    """Tokens per packed row (default: from the dial, at most the model's context)."""
    tokens_per_step: int | None = Field(default=None, ge=8)
    """Tokens per optimiser step (default: from the dial)."""
    micro_batch_tokens: int = Field(default=8192, ge=8)
    """Tokens that pass through the model at once; the rest of the batch is accumulated."""
    tokens: int | None = Field(default=None, ge=1, le=10**15)
    """Tokens to train on in all (default: from the dial)."""
    epochs: float | None = Field(default=None, gt=0, le=10_000)
    """Passes over the data, instead of --tokens."""
    optimizer: OptimizerName = "muon"
    """muon (matrices of the blocks; AdamW for the rest) or adamw."""
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Peak learning rate (default: from the dial; for sft less, see docs/dial.md)."""
    weight_decay: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Decay of the blocks' matrices, per unit of learning rate."""
    schedule: Schedule = "wsd"
    """wsd (warm-up, stable, decay), cosine, linear or constant."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the rate rises."""
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
    evaluate_every: int = Field(default=50, ge=1)
    """Steps between measurements on --heldout."""
    evaluate_tokens: int = Field(default=32768, ge=1)
    """Tokens of --heldout to measure on."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many measurements without a better one, and keep the best weights."""
    sample_every: int | None = Field(default=None, ge=1)
    """Steps between sample texts (default: only at the end)."""
    prompts: tuple[str, ...] = ()
    """Prompts of the samples."""
    save_every: int = Field(default=25, ge=1)
    """Steps between the states from which an interrupted run goes on."""
    compile: bool = False
    """Compile norms and feed-forward layers (a minute at the start; pays on long runs; needs a C++ compiler)."""
    when_empty: Literal["stop", "copy"] = "stop"
    """What to do when the data holds nothing to train on: stop, or copy --model unchanged."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where to log besides metrics.jsonl, if installed."""
    seed: Seed = 0
    """Seed of the initial weights and of the order of the data."""

    @model_validator(mode="after")
    def _consistent(self) -> Train:
        if self.tokens is not None and self.epochs is not None:
            raise ValueError("give tokens or epochs, not both")
        if self.model is None and self.tokenizer is None:
            raise ValueError("a new model needs a tokenizer; to go on with a model, give it as model")
        if self.stage == "sft" and self.model is None:
            raise ValueError("sft needs a model to start from")
        if self.when_empty == "copy" and self.model is None:
            raise ValueError("when_empty=copy needs a model to copy")
        if self.model is not None and (self.tokenizer or self.layers or self.hidden_size):
            raise ValueError("tokenizer, layers and hidden_size are for a new model; model brings its own")
        if self.patience is not None and self.heldout is None:
            raise ValueError("patience needs heldout to measure on")
        if self.dtype == "float16":
            raise ValueError("gradients would vanish in float16; train in float32 or bfloat16")
        return self

    @property
    def dial(self) -> Dial:
        """What follows from the size."""
        return SIZES[self.size]
