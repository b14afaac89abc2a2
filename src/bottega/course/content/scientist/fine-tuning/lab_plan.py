"""A recipe, its plan, and what each machine holds.

A recipe for a model of seven billion parameters is planned, not run: the toolchain counts what the memory holds, way by
way. The same sums are then done on the course's model and held against the bytes that really exist.
"""

from collections.abc import Iterator

from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Chart, Series, Table
from bottega.course.companion import companion
from bottega.course.lab import Effect, Event, Say, Show, Value

BUDGET = 20
LLAMA_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}  # fmt: skip
RECIPE = """\
base_model: meta-llama/Llama-2-7b-hf
load_in_4bit: true
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_target_linear: true
datasets:
  - path: talks.jsonl
    type: chat_template
sequence_len: 4096
sample_packing: true
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 3
optimizer: adamw_torch
learning_rate: 0.0002
lr_scheduler: cosine
warmup_ratio: 0.03
gradient_checkpointing: true
val_set_size: 0.05
lora_dropout: 0.05
learning_rte: 0.0001
"""


class Params(Config):
    """What can be changed."""

    machines: int = Field(default=8, ge=1, le=1024)
    """GPUs among which ZeRO divides."""
    rank: int = Field(default=16, ge=1, le=512)
    """Rank of the adapters."""


def run(params: Params) -> Iterator[Event]:
    """Read a recipe, plan, divide, and check against the bytes of a real optimiser."""
    yield from read_recipe()
    from bottega.checkpoint.config import ModelConfig
    from bottega.train.config import Train
    from bottega.train.memory import Load, train_memory

    model = ModelConfig.from_data(LLAMA_7B)
    load = Load(tokens=4096, trained=4096, context=2048)
    ways = {
        "all weights, AdamW": ({}, "adamw"),
        "all weights, AdamW in 8 bits": ({}, "adamw8bit"),
        f"LoRA, rank {params.rank}": ({"adapter": {"type": "lora", "r": params.rank}}, "adamw"),
        f"QLoRA, rank {params.rank}": ({"adapter": {"type": "qlora", "r": params.rank}}, "adamw"),
    }
    rows, total = [], {}
    for way, (settings, optimizer) in ways.items():
        config = Train.parse({"stage": "sft", "model": "m", "data": "d", "out": "o", "checkpointing": "full", **settings})
        memory = train_memory(config, model, optimizer, load, "bfloat16", device="cuda").as_data()
        kept = [memory[kind] / 1e9 for kind in ("weights", "gradients", "optimizer")]
        total[way] = sum(kept)
        rows.append((way, *(f"{each:.1f}" for each in kept), f"{memory['activations'] / 1e9:.1f}", f"{sum(kept):.1f}"))
    columns = ["way", "weights", "gradients", "optimiser", "activations of 4,096 tokens", "without activations"]
    yield Show("ways", Table("Seven billion parameters, in GB", columns, rows))
    yield Show("bars", Bars("Without activations", "GB", [Bar(way, value, reference=80.0) for way, value in total.items()],
                            reference_label="a GPU of 80 GB"))  # fmt: skip

    count = parameters(LLAMA_7B)
    stages = {stage: zero_bytes(count, stage, params.machines) / 1e9 for stage in range(4)}
    rows = [(f"stage {stage}", text, f"{stages[stage]:.1f}") for stage, text in enumerate((
        "nothing", "optimiser states", "and gradients", "and weights"))]  # fmt: skip
    yield Show("zero", Table(f"ZeRO among {params.machines}: GB for each, {count / 1e9:.2f} billion parameters",
                             ["stage", "what is divided", "GB for each"], rows))  # fmt: skip
    lines = [Series(f"stage {stage}", [(n, zero_bytes(count, stage, n) / 1e9) for n in (1, 2, 4, 8, 16, 32, 64)]) for stage in range(4)]
    yield Show("divided", Chart("What each GPU holds", "GPUs", "GB", lines, log_x=True, log_y=True))

    real = measured_bytes()
    yield Show("measured", Table("The course's model after one step of AdamW, float32", ["", "bytes", "a parameter"],
                                 [(name, value, f"{value / real['numbers']:.2f}") for name, value in real.items() if name != "numbers"]))  # fmt: skip
    padded, packed = padding()
    yield Say(f"Of the tokens of 200 conversations, one a row and 16 rows a batch, {padded:.0%} are padding; packed, {packed:.0%}.")
    yield Value("full", total["all weights, AdamW"], "GB", 0.02)
    yield Value("eight", total["all weights, AdamW in 8 bits"], "GB", 0.02)
    yield Value("lora", total[f"LoRA, rank {params.rank}"], "GB", 0.02)
    yield Value("qlora", total[f"QLoRA, rank {params.rank}"], "GB", 0.02)
    yield Value("parameters", count / 1e9, "billion", 0)
    for stage, each in stages.items():
        yield Value(f"stage_{stage}", each, "GB", 0)
    yield Value("padding", padded, "of the tokens", 0.1)
    yield Value("packed_padding", packed, "of the tokens", 0.5)
    yield Effect("AdamW keeps two numbers for each weight", 8 * real["numbers"] <= real["optimiser"] < 8.1 * real["numbers"])
    yield Effect("the plan counts 16 bytes a parameter in full training", abs(total["all weights, AdamW"] * 1e9 / count - 16) < 0.5)
    yield Effect("stage 3 on one machine divides nothing", zero_bytes(count, 3, 1) == zero_bytes(count, 0, 1))
    if params.rank <= 64:
        yield Effect("QLoRA fits where LoRA's base alone takes three times as much",
                     total[f"QLoRA, rank {params.rank}"] < total[f"LoRA, rank {params.rank}"] / 2)  # fmt: skip


def read_recipe() -> Iterator[Event]:
    """Axolotl's own file, read key by key: what became of each, and the misspelt one is an error."""
    import yaml

    from bottega.core.errors import UserError
    from bottega.train.axolotl.mapping import translate

    read = translate(yaml.safe_load(RECIPE))
    assert read is not None
    try:
        read.require("the recipe")
        said = "nothing"
    except UserError as error:
        said = error.message
    yield Say(f"The recipe as it stands: {said}")
    yield Effect("a misspelt key is an error, not a default", "learning_rte" in said)
    rows = [(line.key, line.fate, line.text) for line in read.lines]
    yield Show("recipe", Table("What becomes of each key", ["key", "is", "here"], rows))


def parameters(config: dict) -> int:
    """N of a Llama, from its sizes."""
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    return 2 * v * d + config["num_hidden_layers"] * (4 * d * d + 3 * d * f + 2 * d) + d


def zero_bytes(count: int, stage: int, machines: int) -> float:
    """Bytes for each machine: 2 of weights, 2 of gradients, 12 of master weights and moments, divided by stage."""
    weights, gradients, states = 2.0, 2.0, 12.0
    return count * (
        weights / (machines if stage >= 3 else 1)
        + gradients / (machines if stage >= 2 else 1)
        + states / (machines if stage >= 1 else 1)
    )


def measured_bytes() -> dict[str, int]:
    """Bytes of weights, gradients and states of the course's model after a step of torch's AdamW."""
    import torch

    from bottega.model.load import load_decoder

    decoder = load_decoder(companion("new"))
    optimiser = torch.optim.AdamW(decoder.parameters())
    decoder(torch.arange(6, 40)[None]).square().mean().backward()
    optimiser.step()
    every = list(decoder.parameters())
    states = [value for state in optimiser.state.values() for value in state.values() if torch.is_tensor(value)]
    sizes = {"weights": every, "gradients": [each.grad for each in every if each.grad is not None], "optimiser": states}
    return {"numbers": sum(each.numel() for each in every),
            **{name: sum(each.numel() * each.element_size() for each in tensors) for name, tensors in sizes.items()}}  # fmt: skip


def padding() -> tuple[float, float]:
    """The share of padding in batches of 16 conversations, and in rows packed first-fit to 512."""
    import random

    draw = random.Random(0)
    lengths = [max(16, min(512, round(draw.lognormvariate(4.6, 0.7)))) for _ in range(200)]
    batches = [lengths[at : at + 16] for at in range(0, len(lengths), 16)]
    alone = 1 - sum(lengths) / sum(len(batch) * max(batch) for batch in batches)
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        fit = next((at for at, used in enumerate(rows) if used + length <= 512), None)
        if fit is None:
            rows.append(length)
        else:
            rows[fit] += length
    return alone, 1 - sum(lengths) / (512 * len(rows))
