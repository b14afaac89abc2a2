"""From torchrun's environment to the processes of a run.

torchrun starts one process for each GPU (or as many as it is told) and says to each in RANK, WORLD_SIZE and LOCAL_RANK
which one it is, and in MASTER_ADDR and MASTER_PORT where they meet.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from bottega.core.errors import BottegaError, UserError
from bottega.core.ranks import rank, world_size
from bottega.train.parallel.ranks import Ranks, Replicas, SplitOptimizer
from bottega.train.parallel_config import SHARDED, ParallelSettings


@contextmanager
def entered(settings: ParallelSettings, device: torch.device, clip: float = 1.0) -> Iterator[Ranks]:
    """Meet the other processes, if there are any; yields what the loop asks. `clip` is DeepSpeed's to know.

    Raises UserError if the settings are for one process and there are several, or the other way round; BottegaError
    if the others do not come.
    """
    if settings.strategy == "deepspeed":
        from bottega.train.parallel.deepspeed import meet_alone, require_deepspeed

        require_deepspeed()
        meet_alone()
    elif world_size() == 1:
        yield Ranks()
        return
    if settings.strategy == "none":
        raise UserError(f"{world_size()} processes were started for a run with parallel: {{strategy: none}}")
    if not dist.is_initialized():  # a second run in the same processes meets where the first did
        meet(settings, device)
    yield ranks_of(settings, clip)
    atexit.register(_leave)  # not after an error: the others would be waited for, and torchrun ends them


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def meet(settings: ParallelSettings, device: torch.device) -> None:
    """Make the process group: NCCL between GPUs, Gloo between CPUs."""
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type not in ("cuda", "cpu"):
        raise UserError(f"several processes can share a run on cuda and cpu, not on {device.type}")
    try:
        dist.init_process_group(backend, timeout=timedelta(minutes=settings.timeout))
    except (RuntimeError, ValueError) as error:
        hint = "Start the run with torchrun, or without RANK and WORLD_SIZE in the environment."
        raise BottegaError(f"process {rank()} of {world_size()} cannot meet the others: {error}", hint=hint) from None


def ranks_of(settings: ParallelSettings, clip: float = 1.0) -> Ranks:
    """What the loop asks, once the processes have met."""
    if settings.strategy == "deepspeed":
        from bottega.train.parallel.deepspeed import Engine

        return Engine(settings, clip)
    if settings.strategy in SHARDED:
        from bottega.train.parallel.sharding import Shards

        return Shards(settings)
    return SplitOptimizer() if settings.strategy == "zero1" else Replicas()
