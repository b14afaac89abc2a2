"""What a plan of `train` foresees: trainable share, operations, memory by kind, time. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bottega.checkpoint.config import ModelConfig
from bottega.core.machine import measure, memory_check, resolve_threads
from bottega.core.plan import Check, Cost, Plan
from bottega.core.view import Table, human_bytes, human_count
from bottega.data.spec import TokensSpec
from bottega.train.cost import run_flops, run_seconds
from bottega.train.extent import Extent
from bottega.train.memory import Load, TrainMemory, train_memory, trained_tensors
from bottega.train.settings import Settings


@dataclass(frozen=True)
class Certain:
    """Which figures of a plan are what the run will have; the others are told with "about".

    Attributes:
        steps: unless they follow from lengths that only a sample was asked for, or from how full rows will be packed.
        tokens: of packed rows of plain text, which are full; examples are of any length.
        passes: over the data.
    """

    steps: bool
    tokens: bool
    passes: bool

    @classmethod
    def of(cls, settings: Settings, *, counted: bool) -> Certain:
        """Of a run on data whose documents and tokens were `counted`, not estimated."""
        config = settings.config
        if settings.examples_per_step:
            return cls(counted or config.max_steps is not None, False, counted)
        text = config.stage == "pretrain"
        # Without a number of its own, a run's length follows from the dial, or from the data.
        from_data = config.epochs is not None or not config.by_the_dial
        given = config.max_steps is not None or config.tokens is not None
        steps = given or (text and (counted or not from_data))
        return cls(steps, text and steps, text and counted)


def about(figure: str, is_certain: bool) -> str:
    """The figure as it stands, or as an estimate."""
    return figure if is_certain else f"about {figure}"


def foresee(
    plan: Plan, settings: Settings, model: ModelConfig, data: TokensSpec, dtype: str, device: str, heldout: int,
    certain: Certain,
) -> None:  # fmt: skip
    """Put cost, figures, tables and the check of memory into the plan; `heldout` are the tokens to measure on."""
    config, extent = settings.config, Extent.of(settings, data)
    load = Load(
        tokens=extent.part,
        trained=round(extent.part * extent.trained),
        context=round(extent.document),
        accumulates=extent.parts > 1,
        cached=extent.cached,
    )
    memory = train_memory(config, model, settings.optimizer, load, dtype, device=device)
    trainable = sum(tensor.size for tensor in trained_tensors(config, model))
    total = model.parameter_count() + (0 if config.adapter is None else trainable)
    flops = run_flops(settings, model, data, extent, trainable, heldout)
    plan.cost = _cost(settings, model, data, memory, flops, dtype, device, trainable)
    plan.figures = {
        "trainable": {"trained": trainable, "parameters": total, "share": trainable / total},
        "flops": flops,
        "memory": memory.as_data(),
        "extent": {"steps": settings.steps, "tokens": settings.tokens, "examples": settings.examples_per_step}
        | asdict(extent),
        "certain": asdict(certain),
    }
    plan.details["memory"] = memory
    plan.tables = [_amounts(plan.figures, settings, certain), memory.table()]
    plan.checks.append(_memory_check(memory, device))


def _cost(
    settings: Settings, model: ModelConfig, data: TokensSpec, memory: TrainMemory, flops: dict[str, float],
    dtype: str, device: str, trainable: int,
) -> Cost:  # fmt: skip
    config, parameters = settings.config, model.parameter_count()
    seconds = None
    if device == "cpu":  # only the CPU's rates are measured
        rates = measure(threads=resolve_threads(config.threads))
        seconds = run_seconds(flops, model.hidden_size, rates.bfloat16 if dtype == "bfloat16" else rates.float32)
    # A state holds weights and moments, and the artefact the weights once more; of an adapter, its own.
    written = 4 * parameters * 4 if config.adapter is None else memory.optimizer + 8 * trainable
    read = data.tokens * 2 + (4 * parameters if config.model else 0)
    return Cost(
        bytes_read=read, bytes_written=written, peak_memory=memory.total, flops=sum(flops.values()), seconds=seconds
    )


def _memory_check(memory: TrainMemory, device: str) -> Check:
    """Against the memory of where it is computed."""
    if device != "cuda":
        return memory_check(memory.total)
    import torch

    needed, free = memory.total - memory.process, torch.cuda.mem_get_info()[0]
    return Check("memory", needed < free, f"needs about {human_bytes(needed)}, {human_bytes(free)} of the GPU are free")


def _amounts(figures: dict[str, Any], settings: Settings, certain: Certain) -> Table:
    """What is trained, on how much, with how many operations."""
    trainable, extent, flops = figures["trainable"], figures["extent"], figures["flops"]
    share = f"{human_count(trainable['trained'])} of {human_count(trainable['parameters'])} ({trainable['share']:.2%})"
    step = about(f"{human_count(extent['step'])} tokens", certain.tokens)
    step += f", in parts of up to {human_count(extent['part'])}"
    examples = f"{settings.examples_per_step} examples, " if settings.examples_per_step else ""
    rows: list[tuple[str, str]] = [
        ("trained", share),
        ("steps", about(f"{settings.steps:,}", certain.steps)),
        ("a step", examples + step),
        ("tokens whose logits are formed", about(f"{extent['trained']:.0%}", extent["trained"] in (0, 1))),
    ]
    rows += [(f"operations: {name}", about(f"{human_count(value)}FLOP", False)) for name, value in flops.items()]
    return Table("Training", ("", ""), rows)
