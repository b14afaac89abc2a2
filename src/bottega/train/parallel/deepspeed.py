"""DeepSpeed's engine in the place between gradients and weights (parallel: {strategy: deepspeed}).

The loop, the data and the losses stay ours; the engine sums gradients over the processes, keeps the optimiser's states
as its ZeRO stage says (Rajbhandari et al. 2019, arXiv:1910.02054), clips, and moves the weights. Its own checkpoints
are pickles: what it remembers is written by `pieces.py` instead, a file for each process.

Not stage 3: it cuts weights that a loss takes directly; `strategy: zero3` is torch's own.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bottega.core.errors import UserError
from bottega.model.decoder import Decoder
from bottega.train.parallel.ranks import Held, Replicas, equal_turns
from bottega.train.parallel_config import ParallelSettings

T = TypeVar("T")
INSTALL = "DS_BUILD_OPS=0 pip install --no-build-isolation deepspeed"
# What the recipe says and DeepSpeed's file may not say otherwise, with where the recipe says it.
OURS = {
    "train_batch_size": "batch_size or tokens_per_step", "train_micro_batch_size_per_gpu": "micro_batch_tokens",
    "gradient_accumulation_steps": "micro_batch_tokens", "optimizer": "optimizer and learning_rate",
    "scheduler": "schedule, warmup and decay", "fp16": "dtype", "bf16": "dtype", "amp": "dtype",
}  # fmt: skip


def require_deepspeed() -> Any:
    """The package; raises UserError with the command that installs it."""
    try:
        import deepspeed  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("parallel: {strategy: deepspeed} needs the package deepspeed", hint=INSTALL) from None
    return deepspeed


def read_config(given: Path | dict[str, Any] | None) -> dict[str, Any]:
    """The user's DeepSpeed configuration, a file or a mapping; raises UserError where it is no JSON object."""
    if not isinstance(given, Path):
        return dict(given or {})
    try:
        data = json.loads(given.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{given} is not a DeepSpeed configuration: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{given} is not a DeepSpeed configuration: it is not a JSON object")
    return data


def engine_config(given: dict[str, Any], clip: float) -> dict[str, Any]:
    """What the engine is given: `given`, with what the recipe decides filled in.

    "auto" stands for the recipe's value, as in other programs' files. Raises UserError for what contradicts the
    recipe, and for stage 3.
    """
    config = {key: value for key, value in given.items() if value != "auto"}
    for key, setting in OURS.items():
        if key in config and not _is_off(config.pop(key)):
            raise UserError(f"DeepSpeed's {key} is decided by the recipe", hint=f"Leave it out, and set {setting}.")
    norm = config.pop("gradient_clipping", clip)
    if norm != clip:
        raise UserError(f"DeepSpeed's gradient_clipping is {norm}, the recipe's clip is {clip}", hint="Keep one.")
    zero = {key: value for key, value in config.pop("zero_optimization", {}).items() if value != "auto"}
    stage = zero.setdefault("stage", 1)
    if stage not in (0, 1, 2):
        raise UserError(f"DeepSpeed's ZeRO stage {stage} cannot be used here", hint="strategy: zero3 is torch's own.")
    return {
        **config, "zero_optimization": zero, "gradient_clipping": clip, "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1, "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False, "steps_per_print": config.get("steps_per_print", 10**9),
    }  # fmt: skip


def _is_off(value: Any) -> bool:
    """Whether a section says nothing: every value auto, or not enabled."""
    if isinstance(value, dict):
        return value.get("enabled") in (False, "auto") or all(_is_off(each) for each in value.values())
    return value == "auto"


def meet_alone() -> None:
    """Say to the engine that this process is the only one, where no launcher has said anything."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in alone.items():
        os.environ.setdefault(name, value)


class EngineOptimizer:
    """An optimiser as the loop has it, whose step is the engine's."""

    def __init__(self, engine: Any, inner: torch.optim.Optimizer) -> None:
        self.engine, self.inner = engine, inner

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of the optimiser within: their `lr` is what the engine moves by."""
        return self.inner.param_groups

    @property
    def state(self) -> dict[Tensor, Any]:
        """What the optimiser remembers of this process's part."""
        return self.inner.state

    def step(self) -> None:
        """Clip, move the weights, and send them to the other processes."""
        self.engine.step()

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: ARG002
        """Forget the gradients, those of a refused step too."""
        self.engine.optimizer.zero_grad()


class Engine(Replicas):
    """Processes that share a run through DeepSpeed's engine."""

    def __init__(self, settings: ParallelSettings, clip: float) -> None:
        super().__init__()
        self.deepspeed = require_deepspeed()
        self.config = engine_config(read_config(settings.deepspeed), clip)
        self.deepspeed.init_distributed("nccl" if self.device != "cpu" else "gloo", verbose=False)

    def wrap(self, model: Decoder) -> Decoder:
        """The engine is made with the optimiser."""
        self._model = super().wrap(model)
        return model

    def adopt(self, optimizers: list[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
        """Make the engine around the one optimiser."""
        (inner,) = optimizers
        self.engine, *_ = self.deepspeed.initialize(model=self._model, optimizer=inner, config=self.config)
        optimizer: Any = EngineOptimizer(self.engine, inner)
        return [optimizer]

    def turns(self, parts: Sequence[T], spare: Sequence[T] = ()) -> list[tuple[T, float]]:
        """The parts, and the last one again for nothing, until all processes have as many: they sum as they go."""
        return equal_turns(self, parts, spare, "deepspeed")

    def backward(self, loss: Tensor, is_last: bool) -> None:
        """Gradients of a part of the step; the engine takes the mean over processes, the loop wants the sum."""
        self.engine.set_gradient_accumulation_boundary(is_last)
        self.engine.backward(loss * self.world)

    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """The engine has summed them in its backward passes."""

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> float:  # noqa: ARG002
        """The norm of the whole gradient; the engine clips to it in its step."""
        if hasattr(self.engine.optimizer, "scaled_global_norm"):
            return float(self.engine.optimizer.scaled_global_norm())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return float(nn.utils.get_total_norm(gradients))

    def finish_step(self) -> None:
        """The engine has sent the weights."""

    def held(self, model: nn.Module) -> list[Held]:
        """All weights, written by the first process; and this process's part of what the optimiser moves."""
        whole = super().held(model)
        flat = getattr(self.engine.optimizer, "single_partition_of_fp32_groups", None)
        if flat is None:
            return whole
        return [replace(each, moves=False) for each in whole] + [
            Held(f"engine.{self.rank}-of-{self.world}.{i}", part, 0, tuple(part.shape), moves=True, writes=True)
            for i, part in enumerate(flat)
        ]
