"""The memory that a training run's plan foresees, against what autograd keeps and what a process holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bottega.checkpoint.config import ModelConfig
from bottega.core.plan import Specs
from bottega.model.adapter_config import AdapterSettings
from bottega.model.checkpointing import checkpoint_blocks
from bottega.model.decoder import Decoder
from bottega.model.kernels.library import LANES
from bottega.model.lora import add_adapter
from bottega.model.quantised import quantise_base
from bottega.train.activations import Kept, kept_bytes
from bottega.train.batch import MicroBatch
from bottega.train.config import Train
from bottega.train.memory import Load, train_memory, trained_tensors
from bottega.train.optimizer_names import OptimizerName
from bottega.train.plan import plan_train
from bottega.train.rollout import DEFAULT_BATCH
from bottega.train.settings import Settings
from bottega.train.sizes import CACHE_BLOCK, ROLLOUT_BATCH
from bottega.train.stage import Forward, Machine
from bottega.train.stages.tokens import token_loss
from bottega.train.trainee import make_optimizers
from conftest import Workshop, peak_of_command

TINY: dict[str, Any] = {
    "layers": 1, "hidden_size": 64, "row_length": 64, "tokens_per_step": 256, "tokens": 20 * 256, "threads": 1,
    "dtype": "float32", "save_every": 4,
}  # fmt: skip
LORA = {"type": "lora", "r": 8}
TOKENS = 70
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"hidden_act": "gelu_new", "num_key_value_heads": 4, "head_dim": 24},
    "gemma2": {"hidden_act": "gelu_pytorch_tanh", "extra": {"attn_logit_softcapping": 50.0, "sliding_window": 32}},
    "qwen3": {},
    "mixtral": {"extra": {"num_local_experts": 4, "num_experts_per_tok": 2}},
}


def model_config(layers: int = 3, family: str = "llama") -> ModelConfig:
    sizes = {
        "model_type": family, "vocab_size": 384, "hidden_size": 96, "intermediate_size": 160,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "max_position_embeddings": 128, "tie_word_embeddings": family != "mixtral",
    }  # fmt: skip
    return ModelConfig(**{**sizes, **FAMILIES[family]})


def one_document(tokens: int, vocab_size: int) -> MicroBatch:
    ids, last = torch.randint(0, vocab_size, (1, tokens)), tokens - 1
    owners = torch.zeros(last, dtype=torch.long)
    return MicroBatch(ids, [tokens], torch.arange(last), ids[0, 1:], owners, torch.tensor([last]))


def made(config: ModelConfig, dtype: torch.dtype, weights: str, adapter: AdapterSettings | None) -> Decoder:
    generator = torch.Generator().manual_seed(0)
    model = Decoder(config).initialise(generator)
    if weights == "bfloat16":
        return model.to(torch.bfloat16)
    if adapter is not None:
        model = model.to(dtype)
        if adapter.base != "none":
            quantise_base(model, adapter.base, adapter.double_quant)
        add_adapter(model, adapter, generator)
    return model.train()


def kept_by_autograd(model: Decoder, dtype: torch.dtype) -> int:
    """Bytes of what is saved for the backward pass beside weights, and beside what the loss itself keeps."""
    own = {part.untyped_storage().data_ptr() for part in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}
    alive = []

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        alive.append(storage)
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        Forward(model, Machine(torch.device("cpu"), dtype, None)).hidden(one_document(TOKENS, 384))
    return sum(kept.values())


CASES: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "everything": ("float32", "float32", None),
    "everything, bfloat16 products": ("bfloat16", "float32", None),
    "everything, bfloat16 weights": ("bfloat16", "bfloat16", None),
    "adapter": ("float32", "float32", LORA),
    "adapter, bfloat16": ("bfloat16", "float32", LORA),
    "adapter on nf4": ("float32", "float32", {**LORA, "base": "nf4"}),
    "adapter on int8, bfloat16": ("bfloat16", "float32", {**LORA, "base": "int8"}),
    "adapter with dropout": ("float32", "float32", {**LORA, "dropout": 0.1}),
    "dora": ("float32", "float32", {**LORA, "use_dora": True}),
    "queries and values": ("float32", "float32", {**LORA, "target_modules": ["q_proj", "v_proj"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_what_autograd_keeps(case: str) -> None:
    dtype, weights, values = CASES[case]
    config, adapter = model_config(), AdapterSettings.parse(values) if values else None
    got = kept_by_autograd(made(config, getattr(torch, dtype), weights, adapter), getattr(torch, dtype))
    kept = Kept.of(config, dtype, weights=weights, adapter=adapter)
    assert kept_bytes(config, kept, TOKENS, TOKENS) == pytest.approx(got, rel=0.08)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_estimate_knows_the_families(family: str) -> None:
    config = model_config(family=family)
    got = kept_by_autograd(made(config, torch.float32, "float32", None), torch.float32)
    assert kept_bytes(config, Kept.of(config, "float32"), TOKENS, TOKENS) == pytest.approx(got, rel=0.15)


def test_checkpointing_keeps_a_layers_input_and_one_layer() -> None:
    few, many = model_config(2), model_config(12)
    for adapter in (None, AdapterSettings.parse(LORA)):
        sizes = []
        for config in (few, many):
            model = made(config, torch.float32, "float32", adapter)
            checkpoint_blocks(model, "full")
            sizes.append(kept_by_autograd(model, torch.float32))
        foreseen = [
            kept_bytes(config, Kept.of(config, "float32", adapter=adapter), TOKENS, TOKENS, checkpointing="full")
            for config in (few, many)
        ]
        assert foreseen[1] - foreseen[0] == pytest.approx(sizes[1] - sizes[0], rel=0.02)  # ten inputs
        whole = kept_bytes(many, Kept.of(many, "float32", adapter=adapter), TOKENS, TOKENS)
        assert foreseen[1] < whole / 3


RUNS: dict[str, tuple[OptimizerName, dict[str, Any]]] = {
    "muon": ("muon", {}),
    "adamw": ("adamw", {}),
    "adamw8bit": ("adamw8bit", {}),
    "adamw_kahan": ("adamw_kahan", {"weights": "bfloat16"}),
    "adapter": ("adamw", {"adapter": LORA}),
    "adapter, 8 bits": ("adamw8bit", {"adapter": LORA}),
    "nf4": ("adamw", {"adapter": {"type": "qlora", "r": 8}}),
    "int8": ("adamw", {"adapter": {**LORA, "base": "int8"}, "dtype": "bfloat16"}),
    "dora and whole modules": ("adamw", {"adapter": {**LORA, "use_dora": True, "modules_to_save": ["norm"]}}),
    "pissa": ("adamw", {"adapter": {**LORA, "init": "pissa"}}),
    "new tokens": ("adamw", {"adapter": {**LORA, "new_tokens": [3, 5]}}),
}


@pytest.mark.parametrize("run", RUNS)
def test_weights_gradients_and_states_are_those_of_a_step(run: str) -> None:
    optimizer, values = RUNS[run]
    settings = {"stage": "sft", "data": "d", "model": "m", "out": "o", "dtype": "float32", **values}
    config, model_settings = Train.parse({**settings, "optimizer": optimizer}), model_config()
    dtype = getattr(torch, config.dtype)
    model = made(model_settings, dtype, config.weights, config.adapter)
    machine = Machine(torch.device("cpu"), dtype, None)
    optimizers = make_optimizers(model, Settings(1, 1, 64, 64, 1e-3, config), machine)
    token_loss(Forward(model, machine), one_document(TOKENS, 384)).backward()
    for each in optimizers:
        each.step()
    held = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes()
            for part in (*model.parameters(), *model.buffers())}  # fmt: skip
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    states = sum(
        value.nbytes for each in optimizers for state in each.state.values() for value in state.values()
        if isinstance(value, torch.Tensor)
    )  # fmt: skip
    memory = train_memory(config, model_settings, optimizer, Load(TOKENS, TOKENS, TOKENS), config.dtype)
    assert Counter(tensor.shape for tensor in trained_tensors(config, model_settings)) == Counter(
        tuple(parameter.shape) for parameter in trained
    )
    assert memory.gradients == sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None)
    assert memory.optimizer == pytest.approx(states, abs=8 * len(trained))
    assert memory.weights == pytest.approx(sum(held.values()), rel=0.01)


def test_the_estimate_takes_the_larger_of_activations_and_the_optimizers_step() -> None:
    wide = ModelConfig(
        vocab_size=384, hidden_size=4096, intermediate_size=11008, num_hidden_layers=1, num_attention_heads=32,
        num_key_value_heads=32, head_dim=128, max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    config = Train.parse({"data": "d", "model": "m", "out": "o"})

    def memory(tokens: int, optimizer: OptimizerName = "muon", *, accumulates: bool = False) -> Any:
        return train_memory(config, wide, optimizer, Load(tokens, tokens, 128, accumulates), "float32")

    assert memory(16).step == memory(2**20).step == 4 * (3 * 4096 * 11008 + 2 * 4096**2)
    assert memory(16).total - memory(8).total == 0 < memory(2**20).total - memory(16).total
    assert memory(16, "adamw").step == 0
    # Where parts are added up, the gradients are there while the next part passes.
    gain = memory(2**20, accumulates=True).total - memory(2**20).total
    assert gain == memory(16).gradients == 4 * wide.parameter_count()


def test_rollouts_hold_a_cache_and_packed_weights() -> None:
    assert (ROLLOUT_BATCH, CACHE_BLOCK) == (DEFAULT_BATCH, LANES)
    settings = {"stage": "grpo", "data": "d", "model": "m", "out": "o", "rewards": [{"type": "exact"}]}
    config, model = Train.parse({**settings, "adapter": LORA}), model_config()
    quantised = Train.parse({**settings, "adapter": {"type": "qlora", "r": 8}})
    load = Load(8, 8, 64, cached=64)
    dense, small = (train_memory(each, model, "adamw", load, "float32") for each in (config, quantised))
    assert dense.cache == small.cache == model.kv_cache_bytes(32 * 80, 1, 4)
    assert dense.packed == 2 * 4 * model.parameter_count() + dense.cache and small.packed == 0
    assert dense.total == dense.process + dense.weights + dense.optimizer + dense.cache + dense.packed


def test_the_plan_counts_the_memory_of_what_passes_at_once(workshop: Workshop, tmp_path: Path) -> None:
    def memory(**settings: Any) -> int:
        values = {"data": workshop.tokens, "tokenizer": workshop.tokenizer, "out": tmp_path / "m", **TINY, **settings}
        return plan_train(Train.parse(values), Specs()).details["memory"].activations

    assert memory(micro_batch_tokens=8192) == memory(micro_batch_tokens=256)  # a step has 256
    assert memory(micro_batch_tokens=128) < memory(micro_batch_tokens=256)
    assert memory(micro_batch_tokens=8) == memory(micro_batch_tokens=64)  # a row has 64


def test_the_planned_memory_is_the_peak_of_the_process(workshop: Workshop, tmp_path: Path) -> None:
    """Deep and narrow, so that Muon's workspace decides: all matrices of a shape at once would be a fifth more."""
    settings: dict[str, Any] = {
        "data": workshop.tokens, "tokenizer": workshop.tokenizer, "out": tmp_path / "m", **TINY, "layers": 12,
        "hidden_size": 512, "tokens_per_step": 128, "tokens": 128,
    }  # fmt: skip
    planned = plan_train(Train.parse(settings), Specs()).cost.peak_memory or 0
    words = ["train", "--quiet", *(f"{key}={value}" for key, value in settings.items())]
    peak = peak_of_command(words, tmp_path)
    assert 0.88 < planned / peak < 1.15, (planned, peak)


def status(key: str) -> int:
    """Bytes of a line of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


WIDE = ModelConfig(
    vocab_size=2048, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=64, max_position_embeddings=1024, tie_word_embeddings=True,
)  # fmt: skip
DOCUMENT = 256


def one_step(values: dict[str, Any], config: ModelConfig, tokens: int, parts: int) -> None:
    """What a run does between two steps, without data and files."""
    settings = Train.parse({"stage": "sft", "data": "d", "model": "m", "out": "o", "dtype": "float32", **values})
    model = made(config, torch.float32, "float32", settings.adapter)
    checkpoint_blocks(model, settings.checkpointing)
    machine = Machine(torch.device("cpu"), torch.float32, None)
    optimizers = make_optimizers(model, Settings(1, 1, DOCUMENT, tokens, 1e-3, settings), machine)
    batch = replace(one_document(tokens, config.vocab_size), segments=[DOCUMENT] * (tokens // DOCUMENT))
    for _ in range(parts):
        token_loss(Forward(model, machine), batch).backward()
    for each in optimizers:
        each.step()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells a process its own peak")
@pytest.mark.parametrize(
    ("values", "tokens", "parts"),
    [({}, 8192, 2), ({"adapter": LORA}, 8192, 1), ({"checkpointing": "full"}, 16384, 1)],
)
def test_more_than_half_a_gigabyte_is_foreseen(values: dict[str, Any], tokens: int, parts: int) -> None:
    """Memory is given back as soon as it is free, so that the peak is of what is needed (docs/planning.md)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "262144"}
    values = {"optimizer": "adamw", **values}
    words = [sys.executable, __file__, json.dumps(values), str(tokens), str(parts)]
    done = subprocess.run(words, capture_output=True, check=True, env=environment, cwd=Path(__file__).parent)
    config = Train.parse({"stage": "sft", "data": "d", "model": "m", "out": "o", **values})
    load = Load(tokens, tokens, DOCUMENT, parts > 1)
    memory = train_memory(config, WIDE, config.optimizer or "adamw", load, "float32")
    foreseen, peak = memory.total - memory.process, int(done.stdout)
    print("foreseen over peak:", round(foreseen / peak, 3), f"of {peak / 2**20:.0f} MiB")
    assert peak > 500e6
    assert 0.85 < foreseen / peak < 1.15


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = json.loads(sys.argv[1])
    one_step(given, replace(WIDE, num_hidden_layers=1), DOCUMENT, 1)  # what is loaded once
    before = status("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")  # the peak from now on
    one_step(given, WIDE, *map(int, sys.argv[2:]))
    print(status("VmHWM:") - before)
