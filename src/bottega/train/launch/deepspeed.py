"""DeepSpeed's configuration from our settings (www.deepspeed.ai/docs/config-json). Imports no torch.

Two of its numbers look odd and are meant: our loss is divided by what the whole step's mean is over before it goes
backwards, and gradients are summed over the processes, so DeepSpeed must neither divide by the number of
micro-batches (gradient_accumulation_steps: 1, the loop says itself where a step ends) nor by that of processes.
"""

from __future__ import annotations

from typing import Any

from bottega.train.parallel_config import ParallelSettings


def deepspeed_config(settings: ParallelSettings, *, clip: float) -> dict[str, Any]:
    """What `deepspeed.initialize` takes beside model and optimiser."""
    stage = settings.deepspeed_stage
    zero: dict[str, Any] = {"stage": stage}
    if stage:
        zero |= {"overlap_comm": True, "contiguous_gradients": True}
    if settings.deepspeed_offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
