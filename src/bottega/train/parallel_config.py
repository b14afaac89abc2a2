"""How several processes share a training run: the section `parallel` of a recipe. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bottega.core.schema import Config
from bottega.train.optimizer_names import OptimizerName

Strategy = Literal["none", "ddp", "zero1", "zero2", "zero3", "deepspeed"]
SHARDED = ("zero2", "zero3")
# They move every value by itself, so that a piece of a matrix can be moved without the rest of it.
ELEMENTWISE: tuple[OptimizerName, ...] = ("adamw", "adamw_kahan", "adamw_masters")


class ParallelSettings(Config):
    """What each process keeps of the run, where torchrun started more than one (docs/scale.md)."""

    strategy: Strategy = "ddp"
    """What is split: nothing (ddp), optimiser states (zero1), also gradients (zero2), also weights (zero3); deepspeed:
    its engine."""
    deepspeed: Path | dict[str, Any] | None = None
    """DeepSpeed's configuration, a file or {zero_optimization: {stage: 2}}; what the recipe decides is "auto" there."""
    gather_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which zero2 and zero3 send a layer's weights; bfloat16 halves the traffic."""
    timeout: int = Field(default=30, ge=1)
    """Minutes after which processes that wait for another give up."""

    @model_validator(mode="after")
    def _consistent(self) -> ParallelSettings:
        if self.gather_dtype != "float32" and self.strategy not in SHARDED:
            raise ValueError(f"gather_dtype is for zero2 and zero3, {self.strategy} sends no weights")
        if self.deepspeed is not None and self.strategy != "deepspeed":
            raise ValueError("deepspeed's configuration is for strategy: deepspeed")
        return self

    def refusal(self, optimizer: OptimizerName, *, draws: bool = False) -> str:
        """Why the strategy cannot be used with this optimiser, or in a stage that `draws` answers; empty if it can."""
        if self.strategy in SHARDED and optimizer not in ELEMENTWISE:
            return (
                f"{optimizer} needs whole matrices, {self.strategy} cuts them into rows: "
                f"take zero1, or optimizer {' or '.join(ELEMENTWISE)}"
            )
        if self.strategy == "deepspeed" and optimizer == "muon":
            return f"DeepSpeed's engine moves flat pieces, {optimizer} needs whole matrices: take optimizer: adamw"
        if self.strategy in SHARDED and draws:
            return f"each process draws answers from whole weights, {self.strategy} has none: take ddp or zero1"
        return ""
