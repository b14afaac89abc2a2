"""Where the bytes go, and how few will do.

Weights that are about normally distributed are put into sixteen levels, in two ways, and their scales are rounded too.
Then the bytes of a run are added up, by optimiser and by stage of ZeRO, for a model of seven billion parameters.
"""

from collections.abc import Iterator

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Chart, Series, Table
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 20
LLAMA_2_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "vocab_size": 32000,
    "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip

# Of weights, gradients, states: which are divided among the devices.
DIVIDED = {
    "ddp": (False, False, False), "zero1": (False, False, True), "zero2": (False, True, True),
    "zero3": (True, True, True),
}  # fmt: skip


class Params(Config):
    """What can be changed."""

    devices: int = Field(default=8, ge=1, le=1024)
    """GPUs among which ZeRO divides."""
    outlier: float = Field(default=30.0, ge=1, le=1000)
    """Size of the one large weight that is planted, in standard deviations."""


def run(params: Params) -> Iterator[Event]:
    """Round, count, divide."""
    yield from _four_bits(params.outlier)
    yield from _optimisers()
    yield from _zero(params.devices)


def _four_bits(outlier: float) -> Iterator[Event]:
    import torch

    from bottega.codec.nf4 import LEVELS, dequantise_nf4, quantise_nf4

    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(4096, 256, generator=draw) * 0.02
    shape, deviation = tuple(weights.shape), 0.02

    def error(read: torch.Tensor) -> float:
        return float((read - weights).square().mean().sqrt() / deviation)

    def bits(stored) -> float:
        parts = [stored.codes, stored.scales, stored.outer, stored.offset]
        return 8 * sum(each.numel() * each.element_size() for each in parts if each is not None) / weights.numel()

    once, twice = quantise_nf4(weights, double_quant=False), quantise_nf4(weights)
    blocks = weights.reshape(-1, 64)
    scales = blocks.abs().amax(1, keepdim=True)
    even = ((blocks / scales * 7).round() / 7 * scales).reshape(shape)
    whole = ((weights / weights.abs().max() * 7).round() / 7) * weights.abs().max()
    errors = [error(dequantise_nf4(each, shape)) for each in (once, twice)]
    rows = [
        ("15 even levels, one scale for all", "4.000", f"{error(whole):.4f}"),
        ("15 even levels, a scale for every 64", "4.500", f"{error(even):.4f}"),
        ("NF4, a scale for every 64", f"{bits(once):.3f}", f"{errors[0]:.4f}"),
        ("NF4, scales in 8 bits", f"{bits(twice):.3f}", f"{errors[1]:.4f}"),
    ]
    yield Show("bits", Table("A million normal weights in four bits", ["how", "bits a weight", "error"], rows,
                             note="Root of the mean squared error, in standard deviations."))  # fmt: skip
    planted = weights.clone()
    planted[0, 0] = outlier * deviation
    block = planted.reshape(-1)[:64]
    near = dequantise_nf4(quantise_nf4(block, double_quant=False), (64,))
    zeros = float((near[1:] == 0).float().mean())
    before = float((dequantise_nf4(quantise_nf4(blocks[0], double_quant=False), (64,)) == 0).float().mean())
    yield Say(
        f"One weight of {outlier:g} deviations in a block: {zeros:.0%} of the others are zero ({before:.0%} without)."
    )
    levels = [(float(i), level) for i, level in enumerate(LEVELS)]
    straight = [(float(i), -1 + i * 2 / 15) for i in range(16)]
    yield Show("levels", Chart("The sixteen levels", "code", "value, in scales",
                               [Series("NF4", levels), Series("evenly spaced", straight, baseline=True)]))  # fmt: skip
    yield Value("even_error", error(even), "deviations", 0.02)
    yield Value("nf4_error", errors[0], "deviations", 0.02)
    yield Value("double_error", errors[1], "deviations", 0.02)
    yield Value("nf4_bits", bits(once), "bits a weight", 1e-4)
    yield Value("double_bits", bits(twice), "bits a weight", 1e-4)
    yield Value("whole_error", error(whole), "deviations", 0.05)
    yield Value("outlier_zeros", zeros, "of the neighbours", 0.15)
    yield Effect("NF4's levels fit normal weights better than even ones", errors[0] < 0.95 * error(even))
    yield Effect("double quantisation saves 0.37 bits", abs(bits(once) - bits(twice) - 0.373) < 0.002)
    yield Effect("and costs less than a hundredth of the error", errors[1] < 1.01 * errors[0])


def _optimisers() -> Iterator[Event]:
    from bottega.train.optimizers.bytes import Base, frozen_bytes, parameter_bytes

    shape = (4096, 4096)
    size = shape[0] * shape[1]
    rows = []
    for name in ("adamw", "adamw_masters", "muon", "lion", "adamw8bit", "adamw_kahan"):
        kinds = parameter_bytes(name, shape)
        rows.append(
            (name, *(f"{each / size:.2f}" for each in (kinds.weights, kinds.gradients, kinds.states, kinds.total)))
        )
    frozen: list[tuple[str, Base, bool]] = [
        ("frozen, bfloat16", "none", True), ("frozen, NF4", "nf4", False), ("frozen, NF4 twice", "nf4", True),
    ]  # fmt: skip
    for name, base, double in frozen:
        stored = frozen_bytes(base, shape, 2, double_quant=double) / size
        rows.append((name, f"{stored:.3f}", "", "", f"{stored:.3f}"))
    yield Show("optimisers", Table("Bytes a parameter of a matrix of 4096 × 4096",
                                   ["optimiser", "weight", "gradient", "states", "in all"], rows))  # fmt: skip
    adam, eight = (parameter_bytes(name, shape).states / size for name in ("adamw", "adamw8bit"))
    yield Value("adam_states", adam, "bytes a parameter", 1e-4)
    yield Value("eight_states", eight, "bytes a parameter", 1e-4)
    yield Effect("states in 8 bits take about a quarter of the room", 0.24 < eight / adam < 0.27)


def _zero(devices: int) -> Iterator[Event]:
    from bottega.checkpoint.config import ModelConfig
    from bottega.train.config import Train
    from bottega.train.memory import Load, train_memory

    model = ModelConfig.from_data(LLAMA_2_7B)
    config = Train.parse({"data": "rows.jsonl", "model": "model", "out": "run", "stage": "sft", "batch_size": 16,
                          "weights": "bfloat16", "optimizer": "adamw_masters"})  # fmt: skip
    memory = train_memory(config, model, "adamw_masters", Load(2048, 2048, 2048), "bfloat16")
    kinds = [memory.weights, memory.gradients, memory.optimizer]
    shares = {name: [devices if each else 1 for each in divided] for name, divided in DIVIDED.items()}
    rows, totals = [], {}
    for name, divisors in shares.items():
        parts = [kind / by / 1e9 for kind, by in zip(kinds, divisors, strict=True)]
        totals[name] = sum(parts)
        rows.append((name, *(f"{each:.1f}" for each in (*parts, totals[name]))))
    size = model.parameter_count()
    yield Show("zero", Table(
        f"Gigabytes on each of {devices} GPUs, of {size / 1e9:.2f} billion parameters",
        ["strategy", "weights", "gradients", "states", "in all"], rows,
        note="Activations come on top: they are not divided.",
    ))  # fmt: skip
    line = []
    for name in shares:
        points = []
        for n in (1, 2, 4, 8, 16, 32, 64):
            kept = sum(kind / (n if divided else 1) for kind, divided in zip(kinds, DIVIDED[name], strict=True))
            points.append((float(n), kept / 1e9))
        line.append(Series(name, points))
    yield Show("zero_devices", Chart("What each GPU keeps", "GPUs", "gigabytes", line, log_x=True, log_y=True))
    yield Value("parameters", model.parameter_count() / 1e9, "billion", 0)
    for name, total in totals.items():
        yield Value(name, total, "GB", 1e-3)
    yield Value("activations", memory.activations / 1e9, "GB", 0.2)
    exact = 16 * model.parameter_count() / 1e9
    yield Effect("16 bytes a parameter, as the arithmetic says", abs(totals["ddp"] - exact) < 0.001 * exact)
    yield Effect("zero3 divides all of it", abs(totals["zero3"] * devices - exact) < 0.001 * exact)
