"""Fine-tuning with LoRA, `bottega train` against TRL's trainers on PEFT: tokens per second, memory, and the losses.

Same random Llama (tied, float32), same adapter (r 8 on all linear layers, alpha 16, no dropout, same first values),
same conversations or pairs (log-normal lengths, 150 tokens on average) in the same order, 8 examples a step, AdamW at
a constant rate, same clipping. Every run is a process of its own; the runs of the sides alternate, their medians are
printed. Tokens are real ones: padding counts for nobody. Memory is the peak above what was held after the imports.

Ways of TRL, all of them exact:
- as it comes: padded batches, activations computed again for the gradient (its defaults, but for bf16);
- no recomputing: the same without gradient checkpointing;
- packed (sft): its packing (best-fit decreasing), without checkpointing, as many rows a step as hold the same tokens;
- reference before (dpo): the reference's log-probabilities are taken before the first step, as ours are.
The reference of dpo is the model with its adapter switched off. What is done before the first step counts: its seconds
are added to the steps', and every example is seen once.

The chat template ends with the last answer's stop token. Where one writes a line feed behind it, as ChatML does, TRL's
dpo trains it as part of the answer and ours does not, and losses differ from the fifth digit on.

The floor is the products that nobody can leave out over their measured rate: frozen weights forward and backward to
their inputs, the adapter's three passes, the head where tokens are trained; for dpo a forward pass more.

    python -m venv trl && trl/bin/pip install torch==2.13.0 -r benchmarks/requirements-trl.txt
    python benchmarks/finetune_vs_trl.py --trl trl/bin/python
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import alternate
from bottega.checkpoint.config import ModelConfig
from bottega.core.machine import peak_memory_bytes
from bottega.data.spec import Form
from finetune_material import Shape, flops_per_token, write_examples, write_model
from finetune_sides import Clock, import_bottega, import_trl, serve, train_with_bottega, train_with_trl

MODELS = {
    "2M": Shape(2, 128, 384, 8192, kv_heads=2),
    "20M": Shape(8, 384, 1024, 16384, kv_heads=6),
    "110M": Shape(12, 768, 2048, 32000, kv_heads=12),
}
WAYS = {
    "sft": ("as it comes", "no recomputing", "packed"),
    "dpo": ("as it comes", "no recomputing", "reference before"),
}
FORMS: dict[str, Form] = {"sft": "chat", "dpo": "pairs"}
GOALS, MEMORY_GOAL = {"sft": 2.0, "dpo": 1.5}, 0.6
BATCH, ROW_LENGTH, RANK, ALPHA, RATE, CLIP, BETAS = 8, 512, 8, 16, 2e-4, 1.0, (0.9, 0.95)
WARM_UP = 2  # steps of a run that are not timed
SHOWN = 10  # losses
TOLERANCE = 1e-4  # nats between the losses of one step

Runs = dict[str, list[alternate.Answer]]  # of each side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a model of 2M, four steps, one run of each side")
    parser.add_argument("--trl", default=sys.executable, help="a Python that has TRL (default: this one)")
    parser.add_argument("--model", choices=MODELS, action="append", help="default: 20M and 110M")
    parser.add_argument("--stage", choices=WAYS, action="append", help="default: both")
    parser.add_argument("--steps", type=int, default=None, help="of each run (default: 12)")
    parser.add_argument("--repeat", type=int, default=None, help="runs of each side (default: 3)")
    parser.add_argument("--only", choices=("ours", "trl"), help="one side alone")
    alternate.add_machine_options(parser)
    arguments = parser.parse_args()
    if arguments.side:
        (ours if arguments.side == "ours" else peer)(arguments.settings)
        return
    if arguments.trl == sys.executable and importlib.util.find_spec("trl") is None:
        print("trl is not installed here, and --trl names no other Python: only our side is measured")
        arguments.only = "ours"
    machine = alternate.machine_settings(arguments)
    rates = alternate.say_machine(machine["threads"])
    steps = arguments.steps or (4 if arguments.quick else 12)
    repeat = arguments.repeat or (1 if arguments.quick else 3)
    rows = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for model in arguments.model or (["2M"] if arguments.quick else ["20M", "110M"]):
                folder = Path(scratch) / model / "model"
                write_model(folder, MODELS[model])
                for stage in arguments.stage or WAYS:
                    settings = {"folder": str(folder), "stage": stage, "steps": steps, **machine}
                    data = folder.with_name(f"{stage}.jsonl")
                    settings |= write_examples(data, folder, stage, BATCH * steps, ROW_LENGTH)
                    settings |= prepare(settings)
                    runs = run_all(settings, arguments.trl, repeat, arguments.only)
                    rows += table(model, settings, runs, rates.float32)
    finally:  # what was measured is shown, whatever happens to the rest
        alternate.print_table(
            ("model", "stage", "TRL", "ours, tok/s", "TRL, tok/s", "ratio", "goal", "floor, tok/s",
             "ours, MiB", "TRL, MiB", "ratio", "goal", "TRL's padding"), rows,
        )  # fmt: skip


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """What TRL has to know of our side: the `order` of the examples, and a file of the `adapter`'s first values."""
    import torch
    from safetensors.torch import save_file

    from bottega.data.examples import Examples
    from bottega.data.raw import prepare_raw
    from bottega.model.adapter_config import AdapterSettings
    from bottega.model.load import load_decoder
    from bottega.model.lora import adapter_tensors, add_adapter

    folder, data, stage = Path(settings["folder"]), Path(settings["data"]), settings["stage"]
    decoder, path = load_decoder(folder), data.with_name("adapter.safetensors")
    add_adapter(decoder, AdapterSettings(r=RANK, alpha=ALPHA), torch.Generator().manual_seed(0))
    save_file(adapter_tensors(decoder), path)
    tokens = prepare_raw(data, FORMS[stage], folder, data.with_name(f"{stage} tokens"))
    examples = Examples(tokens, row_length=ROW_LENGTH, seed=0)
    return {"order": examples.order(0, examples.count), "adapter": str(path)}


def run_all(settings: dict[str, Any], python: str, repeat: int, only: str | None) -> Runs:
    """Each side's runs: ours, and TRL's ways."""
    names = [] if only == "trl" else ["ours"]
    names += [] if only == "ours" else list(WAYS[settings["stage"]])
    runs: Runs = {name: [] for name in names}
    others = alternate.OtherWork()
    for number in range(repeat):
        for name in names:
            out = Path(settings["data"]).with_name("runs") / f"{settings['stage']} {name} {number}"
            mine = {**settings, "way": name, "out": str(out)}
            side = alternate.Side(__file__, name, mine, sys.executable if name == "ours" else python)
            runs[name].append(side.ask())
            side.close()
            shutil.rmtree(out, ignore_errors=True)
    others.say()
    return runs


def ours(settings: dict[str, Any]) -> None:
    """Our side: the command line's verb, from a recipe."""
    import_bottega(settings["threads"])
    baseline = peak_memory_bytes()

    def work() -> alternate.Answer:
        clock = Clock(settings["stage"], partial(alternate.now, settings))
        rows = train_with_bottega(our_recipe(settings), Path(settings["out"]), clock)
        losses, memory = [row["loss"] for row in rows], peak_memory_bytes() - baseline
        before = clock.before.get("reference model", 0.0)
        return {"losses": losses, "seconds": clock.seconds(), "before": before, "memory": memory}

    serve(work)


def our_recipe(settings: dict[str, Any]) -> dict[str, Any]:
    """What stands in the recipe."""
    return {
        "stage": settings["stage"],
        "model": settings["folder"],
        "data": settings["data"],
        "adapter": {"type": "lora", "r": RANK, "alpha": ALPHA},
        "dtype": "float32",
        "threads": settings["threads"],
        "train": {
            "max_steps": settings["steps"], "learning_rate": RATE, "schedule": "constant", "warmup": 0,
            "optimizer": "adamw", "clip": CLIP, "batch_size": BATCH, "row_length": ROW_LENGTH,
        },
    }  # fmt: skip


def peer(settings: dict[str, Any]) -> None:
    """TRL's side: the trainer of the stage."""
    import datasets
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file

    trainer_type, config_type = import_trl(settings["threads"])[settings["stage"]]
    baseline = peak_memory_bytes()
    clock = Clock(settings["stage"], partial(alternate.now, settings))

    class Timed(trainer_type):
        def _precompute_ref_logps(self, *arguments: Any) -> Any:
            with clock.bar("reference model", None):
                return super()._precompute_ref_logps(*arguments)

    def work() -> alternate.Answer:
        rows = [json.loads(line) for line in Path(settings["data"]).read_text("utf-8").splitlines()]
        folder = Path(settings["folder"])
        config = config_type(**their_settings(settings))
        trainer = Timed(
            model=transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            args=config,
            train_dataset=datasets.Dataset.from_list([rows[at] for at in settings["order"]]),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder),
            peft_config=peft.LoraConfig(
                r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        peft.set_peft_model_state_dict(trainer.model, load_file(settings["adapter"]))
        losses, counted = train_with_trl(trainer, clock)
        memory = peak_memory_bytes() - baseline
        answer = {"losses": losses, "seconds": clock.seconds(), "before": clock.before.get("reference model", 0.0)}
        tokens, padded = zip(*counted, strict=True)
        return {**answer, "memory": memory, "tokens": tokens, "padded": padded}

    serve(work)


def their_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """TRL's config: our recipe in its words, and how this side runs."""
    way, rows = settings["way"], BATCH
    if way == "packed":
        rows = max(1, round(sum(settings["lengths"]) / settings["steps"] / ROW_LENGTH))
    more = {
        "sft": {"assistant_only_loss": True, "packing": way == "packed"},
        "dpo": {"precompute_ref_log_probs": way == "reference before"},
    }[settings["stage"]]
    return more | {
        "output_dir": settings["out"], "max_steps": settings["steps"], "per_device_train_batch_size": rows,
        "learning_rate": RATE, "lr_scheduler_type": "constant", "optim": "adamw_torch", "weight_decay": 0.0,
        "adam_beta1": BETAS[0], "adam_beta2": BETAS[1], "max_grad_norm": CLIP, "max_length": ROW_LENGTH,
        "train_sampling_strategy": "sequential", "bf16": False, "use_cpu": True, "logging_steps": 1,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False, "seed": 0,
        "gradient_checkpointing": way == "as it comes",
    }  # fmt: skip


def table(model: str, settings: dict[str, Any], runs: Runs, rate: float) -> list[list[str]]:
    """The rows of one model and stage; prints the losses, and ends the script where those of the sides differ."""
    stage = settings["stage"]
    show_losses(model, stage, runs)
    seen = sum(length * length for length in settings["documents"]) / sum(settings["documents"])
    floor = rate / flops_per_token(
        ModelConfig.read(Path(settings["folder"])), seen=seen, rank=RANK, head_share=settings["trained_share"],
        reference=stage == "dpo",
    )  # fmt: skip
    speeds = {name: median_speed(settings, answers) for name, answers in runs.items()}
    memories = {name: alternate.median(answers, "memory") / 2**20 for name, answers in runs.items()}
    rows = []
    for way in [name for name in runs if name != "ours"] or ["–"]:
        answer = runs[way][0] if way in runs else {}
        padding = f"{1 - sum(answer['tokens']) / sum(answer['padded']):.0%}" if answer else "–"
        rows.append([
            model, stage, way, *_compared(speeds, way), f"≥ {GOALS[stage]}", f"{floor:,.0f}",
            *_compared(memories, way), f"≤ {MEMORY_GOAL}", padding,
        ])  # fmt: skip
    return rows


def show_losses(model: str, stage: str, runs: Runs) -> None:
    """The first losses side by side; packed rows hold other documents in each step, and are not compared."""
    print(f"{model}, {stage}: losses of the first steps")
    for name, answers in runs.items():
        print(f"  {name:16}", *(f"{loss:.5f}" for loss in answers[0]["losses"][:SHOWN]))
    compared = [answers[0]["losses"][:SHOWN] for name, answers in runs.items() if name != "packed"]
    largest = max(max(step) - min(step) for step in zip(*compared, strict=True))
    print(f"  largest difference in a step: {largest:.1e}")
    if largest > TOLERANCE:
        raise SystemExit("the sides do not compute the same loss")


def median_speed(settings: dict[str, Any], answers: list[alternate.Answer]) -> float:
    """Real tokens a second over the steps behind the warm-up: the median of the runs."""
    return statistics.median(_speed(settings, answer) for answer in answers)


def _speed(settings: dict[str, Any], answer: alternate.Answer) -> float:
    steps, seconds = settings["steps"], answer["seconds"]
    ordered = [settings["lengths"][at] for at in settings["order"]]
    tokens = answer.get("tokens") or [sum(ordered[at : at + BATCH]) for at in range(0, len(ordered), BATCH)]
    if not len(seconds) == steps <= len(tokens):
        raise SystemExit(f"{len(seconds)} steps were timed, not {steps}")
    first = min(WARM_UP, steps - 1)
    timed = tokens[first:steps]
    return sum(timed) / (sum(seconds[first:]) + answer["before"] * sum(timed) / sum(tokens[:steps]))


def _compared(values: dict[str, float], way: str) -> list[str]:
    one, other = values.get("ours"), values.get(way)
    shown = ["–" if value is None else f"{value:,.0f}" for value in (one, other)]
    return [*shown, f"**{one / other:.2f}**" if one and other else "–"]


if __name__ == "__main__":
    main()
