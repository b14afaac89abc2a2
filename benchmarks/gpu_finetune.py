"""Training on one GPU: tokens per second, MFU and memory of `bottega train` and of what else trains there.

Random weights, rows of equal length (nothing to pad or to pack), bfloat16 products. Shapes: 125M and 1B trained whole,
8B (Llama 3.1's) with LoRA on a bfloat16 base and 8-bit states. Sides, each in a process of its own: ours, ours with its
layers compiled, TRL's SFTTrainer as it comes, with torch.compile, and with Liger's kernels. A side that is not
installed, or does not run, is told as "not run" with the reason.

MFU is model operations over the processor's dense bfloat16 peak: 6 a weight and token (4 where the weight is frozen,
6 of the adapter), attention's causal half; recomputed activations do not count. Memory is the allocator's peak, on a
CPU the process's peak above what it held after its imports. Goal: 45 % MFU.

    python -m venv trl && trl/bin/pip install torch==2.13.0 -r benchmarks/requirements-trl.txt
    trl/bin/pip install liger-kernel bitsandbytes==0.50.2
    python benchmarks/gpu_finetune.py --trl trl/bin/python
    python benchmarks/gpu_finetune.py --device cpu --shape tiny       # a dry run
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alternate
from bottega.checkpoint.config import ModelConfig
from bottega.core.machine import peak_memory_bytes
from finetune_material import Shape, flops_per_token, write_model
from finetune_sides import Clock, import_bottega, import_trl, serve, train_with_bottega, train_with_trl

GOAL, RANK, WARM_UP = 0.45, 16, 3
# Dense bfloat16 operations a second, from the makers' data sheets; of others the products are measured.
PEAKS = {"B200": 2250e12, "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
SIDES = ("ours", "ours, compiled", "TRL", "TRL, compiled", "TRL, Liger")


@dataclass(frozen=True)
class Run:
    """What is trained: rows of `row_length` tokens, `rows` at once, `step_rows` a step."""

    shape: Shape
    row_length: int
    rows: int
    step_rows: int
    adapter: bool = False
    recompute: bool = False


RUNS = {
    "tiny": Run(Shape(2, 128, 384, 8192, kv_heads=2), 128, 2, 4),
    "tiny LoRA": Run(Shape(2, 128, 384, 8192, kv_heads=2), 128, 2, 4, adapter=True, recompute=True),
    "125M": Run(Shape(12, 768, 2048, 32000, kv_heads=12), 1024, 32, 64),
    "1B": Run(Shape(16, 2048, 8192, 128256, kv_heads=8), 2048, 8, 32),
    "8B LoRA": Run(
        Shape(32, 4096, 14336, 128256, kv_heads=8, head=128, tied=False), 2048, 4, 16, adapter=True, recompute=True
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest shapes, few steps")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--shape", choices=RUNS, action="append", help="default: 125M, 1B, 8B LoRA")
    parser.add_argument("--only", choices=SIDES, action="append", help="default: all sides")
    parser.add_argument("--trl", default=sys.executable, help="a Python that has TRL (default: this one)")
    parser.add_argument("--steps", type=int, default=None, help="default: 12")
    parser.add_argument("--scratch", type=Path, help="folder for the models (8B: 16 GB; default: the system's)")
    alternate.add_machine_options(parser)
    arguments = parser.parse_args()
    if arguments.side:
        (ours if arguments.side.startswith("ours") else peer)(arguments.settings)
        return
    machine = {"device": arguments.device, **alternate.machine_settings(arguments)}
    peak = say_device(machine)
    steps = arguments.steps or (5 if arguments.quick else 12)
    rows = []
    for name in arguments.shape or (["tiny", "tiny LoRA"] if arguments.quick else ["125M", "1B", "8B LoRA"]):
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            settings = prepare(Path(scratch), RUNS[name], steps) | {"shape": name, "steps": steps, **machine}
            for side in arguments.only or SIDES:
                python = sys.executable if side.startswith("ours") else arguments.trl
                rows.append([name, side, *measure(side, settings, python, peak)])
    alternate.print_table(("shape", "side", "tok/s", "MFU", "goal", "memory, GiB", "first loss", "last loss"), rows)


def say_device(machine: dict[str, Any]) -> float:
    """Print what we run on; returns its peak in operations a second."""
    import torch

    if machine["device"] == "cpu":
        return alternate.say_machine(machine["threads"]).float32
    if not torch.cuda.is_available():
        raise SystemExit("no GPU is here; a dry run: --device cpu --shape tiny")
    name = torch.cuda.get_device_name()
    measured = _measured_product(torch)
    peak = next((value for part, value in PEAKS.items() if part in name), measured)
    print(f"{name}, torch {torch.__version__}; products measured {measured / 1e12:.0f}, peak {peak / 1e12:.0f} TFLOP/s")
    return peak


def _measured_product(torch: Any, size: int = 8192, times: int = 20) -> float:
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        torch.mm(a, b)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        torch.mm(a, b)
    torch.cuda.synchronize()
    return 2 * size**3 * times / (time.perf_counter() - started)


def prepare(folder: Path, run: Run, steps: int) -> dict[str, Any]:
    """A model and rows of random tokens on disk, for all sides to read."""
    import numpy as np

    from bottega.core.atomic import write_json
    from bottega.data.shards import ShardWriter

    dtype = "bfloat16" if run.adapter and run.shape.layers > 2 else "float32"
    write_model(folder / "model", run.shape, dtype=dtype, context=run.row_length)
    tokens, random = folder / "tokens", np.random.default_rng(0)
    tokens.mkdir()
    writer = ShardWriter(tokens, vocab_size=run.shape.vocab, chat=False, shard_tokens=10**9)
    rows = [(random.zipf(1.3, run.row_length) % run.shape.vocab).tolist() for _ in range(run.step_rows * steps)]
    for row in rows:
        writer.add(row)
    writer.close()
    write_json(tokens / "manifest.json", {
        "schema_version": 1, "kind": "tokens", "chat": False, "vocab_size": run.shape.vocab, "tokenizer_hash": "",
        "template_hash": "", "tokens": writer.tokens, "documents": writer.documents, "longest": writer.longest,
        "trained_tokens": writer.trained_tokens, "text_bytes": 0, "shards": writer.shards,
    })  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(rows), "utf-8")
    return {"folder": str(folder)}


def measure(side: str, settings: dict[str, Any], python: str, peak: float) -> list[str]:
    """The figures of one side, or why there are none."""
    run, nothing = RUNS[settings["shape"]], ["not run", "–", f"≥ {GOAL:.0%}", "–", "–", "–"]
    out = Path(settings["folder"]) / "out"
    shutil.rmtree(out, ignore_errors=True)
    answer = ask(side, {**settings, "side": side, "out": str(out)}, python)
    if "missing" in answer:
        print(f"{settings['shape']}, {side}: not run: {answer['missing']}")
        return nothing
    config = ModelConfig.read(Path(settings["folder"]) / "model")
    operations = flops_per_token(config, seen=run.row_length, rank=RANK if run.adapter else 0)
    seconds = answer["seconds"][min(WARM_UP, settings["steps"] - 1) :]
    speed = run.step_rows * run.row_length * len(seconds) / sum(seconds)
    memory = f"{answer['memory'] / 2**30:.2f}"
    losses = [f"{answer['losses'][at]:.4f}" for at in (0, -1)]
    return [f"{speed:,.0f}", f"**{operations * speed / peak:.1%}**", f"≥ {GOAL:.0%}", memory, *losses]


def ask(side: str, settings: dict[str, Any], python: str) -> alternate.Answer:
    """The answer of a side's process, or what is `missing` for one."""
    process = None
    try:
        process = alternate.Side(__file__, side, settings, python)
        return process.ask()
    except SystemExit as ended:
        return {"missing": str(ended)}
    finally:
        if process:
            process.close()


def ours(settings: dict[str, Any]) -> None:
    """Our side: the command line's verb, from a recipe."""
    import_bottega(settings["threads"])
    baseline = peak_memory_bytes()

    def work() -> alternate.Answer:
        clock = _clock(settings, "pretrain")
        rows = train_with_bottega(our_recipe(settings), Path(settings["out"]), clock)
        return {"losses": [row["loss"] for row in rows], "seconds": clock.seconds(), "memory": _memory(baseline)}

    serve(work)


def our_recipe(settings: dict[str, Any]) -> dict[str, Any]:
    """What stands in the recipe."""
    run, folder = RUNS[settings["shape"]], Path(settings["folder"])
    on_gpu = settings["device"] == "cuda"
    recipe = {
        "stage": "pretrain", "model": str(folder / "model"), "data": str(folder / "tokens"),
        "device": settings["device"], "dtype": "bfloat16" if on_gpu else "float32", "threads": settings["threads"],
        "compile": settings["side"] == "ours, compiled", "checkpointing": "full" if run.recompute else "none",
        "train": {
            "max_steps": settings["steps"], "row_length": run.row_length, "learning_rate": 1e-4, "warmup": 0,
            "schedule": "constant", "optimizer": "adamw8bit" if run.adapter else "adamw", "weight_decay": 0.0,
            "tokens_per_step": run.step_rows * run.row_length, "micro_batch_tokens": run.rows * run.row_length,
        },
    }  # fmt: skip
    return recipe | ({"adapter": {"type": "lora", "r": RANK, "alpha": 2 * RANK}} if run.adapter else {})


def peer(settings: dict[str, Any]) -> None:
    """TRL's side, on the same rows."""
    missing = _missing(settings)
    if missing:
        serve(lambda: {"missing": f"{', '.join(missing)} not installed"})
        return
    import datasets
    import peft
    import torch
    import transformers

    trainer_type, config_type = import_trl(settings["threads"])["sft"]
    baseline = peak_memory_bytes()

    def work() -> alternate.Answer:
        run, folder, clock = RUNS[settings["shape"]], Path(settings["folder"]), _clock(settings, "sft")
        rows = json.loads((folder / "rows.json").read_text("utf-8"))
        half = settings["device"] == "cuda" and run.adapter
        lora = peft.LoraConfig(
            r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        trainer = trainer_type(
            model=transformers.AutoModelForCausalLM.from_pretrained(
                folder / "model", dtype=torch.bfloat16 if half else torch.float32
            ),
            args=config_type(**their_settings(settings)),
            train_dataset=datasets.Dataset.from_dict({"input_ids": rows, "labels": rows}),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder / "model"),
            peft_config=lora if run.adapter else None,
        )
        losses, _ = train_with_trl(trainer, clock)
        return {"losses": losses, "seconds": clock.seconds(), "memory": _memory(baseline)}

    serve(work)


def their_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """TRL's config: our recipe in its words."""
    run, on_gpu = RUNS[settings["shape"]], settings["device"] == "cuda"
    return {
        "output_dir": settings["out"], "max_steps": settings["steps"], "per_device_train_batch_size": run.rows,
        "gradient_accumulation_steps": run.step_rows // run.rows, "learning_rate": 1e-4, "weight_decay": 0.0,
        "lr_scheduler_type": "constant", "optim": _optimizer(run), "adam_beta2": 0.95, "max_grad_norm": 1.0,
        "max_length": run.row_length, "train_sampling_strategy": "sequential", "bf16": on_gpu, "use_cpu": not on_gpu,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "seed": 0,
        "gradient_checkpointing": run.recompute, "torch_compile": settings["side"] == "TRL, compiled",
        "use_liger_kernel": settings["side"] == "TRL, Liger",
    }  # fmt: skip


def _optimizer(run: Run) -> str:
    return "adamw_bnb_8bit" if run.adapter else "adamw_torch_fused"


def _missing(settings: dict[str, Any]) -> list[str]:
    """What this side needs and this Python has not."""
    wanted = ["trl", "peft", "datasets"]
    wanted += ["liger_kernel"] if settings["side"] == "TRL, Liger" else []
    wanted += ["bitsandbytes"] if RUNS[settings["shape"]].adapter else []
    return [name for name in wanted if importlib.util.find_spec(name) is None]


def _clock(settings: dict[str, Any], stage: str) -> Clock:
    import torch

    def now() -> float:
        if settings["device"] == "cuda":
            torch.cuda.synchronize()
        return alternate.now(settings)

    return Clock(stage, now)


def _memory(baseline: int) -> int:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory_bytes() - baseline


if __name__ == "__main__":
    main()
