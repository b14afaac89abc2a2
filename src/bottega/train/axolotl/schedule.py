"""Axolotl's batch, steps, optimiser and precision as ours.

Where a file says nothing, Axolotl's default is set, not ours: the same file is to mean the same.
"""

from __future__ import annotations

from typing import Any

from bottega.train.axolotl.reading import Reading

DEFAULT_LENGTH, DEFAULT_SEED, DEFAULT_EPOCHS = 512, 42, 1.0
ADAMW = ("adamw", "adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused", "adamw_anyprecision")
PAGED = ("paged_adamw_32bit", "paged_adamw")
EIGHT_BIT = ("adamw_bnb_8bit", "adamw_8bit", "adamw_torch_8bit", "ao_adamw_8bit", "paged_adamw_8bit")
SCHEDULES = {
    "cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant",
    "warmup_stable_decay": "wsd", "cosine_with_min_lr": "cosine",
}  # fmt: skip
BETA2 = 0.95  # of ours, where theirs is 0.999


def read_batch(reading: Reading, stage: str) -> None:
    """Rows, batch and steps.

    With sample_packing a micro batch counts packed rows of sequence_len tokens, else examples; of grpo it counts
    answers, a group of them to each prompt.
    """
    length = reading.whole("sequence_len", DEFAULT_LENGTH) or DEFAULT_LENGTH
    reading.use("sequence_len", "row_length", length)
    reading.differs("sequence_len", "longer examples are cut at their end and counted; there they are left out")
    micro, accumulated = reading.whole("micro_batch_size", 1) or 1, reading.whole("gradient_accumulation_steps", 1) or 1
    total, key = micro * accumulated, "micro_batch_size × gradient_accumulation_steps"
    if (whole := reading.whole("batch_size")) is not None:
        total, key = whole, "batch_size"
    packed = bool(reading.take("sample_packing", False))
    if stage == "grpo":
        _prompts_per_step(reading, key, total)
    elif stage == "pretrain" or (packed and stage == "sft"):
        reading.use(f"{key} × sequence_len", "tokens_per_step", total * length)
    else:
        reading.use(key, "batch_size", total)
    reading.differs(key, "the batch of a step is the same on any number of devices; there it grows with them")
    _steps(reading)


def _prompts_per_step(reading: Reading, key: str, answers: int) -> None:
    group = reading.settings["policy"]["group"]
    if answers % group:
        reading.refuse(key, f"{answers} answers are no whole groups of {group}")
    else:
        reading.use(f"{key} / num_generations", "batch_size", answers // group)


def _steps(reading: Reading) -> None:
    steps, epochs = reading.whole("max_steps"), reading.number("num_epochs", DEFAULT_EPOCHS)
    if steps is not None and steps > 0:
        reading.use("max_steps", "max_steps", steps)
        reading.note("num_epochs", "max_steps ends the run, as there")
    else:
        reading.use("num_epochs", "epochs", epochs)
    _warmup(reading)
    every = reading.number("eval_steps")
    if every is not None:
        share = 0 < every < 1
        if share and steps:
            reading.use("eval_steps", "evaluate_every", max(1, round(every * steps)))
        elif share:
            reading.note("eval_steps", "a share of the steps; give evaluate_every, in steps")
        elif every >= 1:
            reading.use("eval_steps", "evaluate_every", int(every))
    saved = reading.number("save_steps")
    if saved is not None and saved >= 1:
        reading.use("save_steps", "save_every", int(saved))
    elif saved is not None:
        reading.note("save_steps", "states to go on from are kept every save_every steps")
    patience = reading.whole("early_stopping_patience")
    if patience:
        reading.use("early_stopping_patience", "patience", patience)


def _warmup(reading: Reading) -> None:
    rise, share = reading.number("warmup_steps"), reading.number("warmup_ratio")
    if rise is not None:
        reading.use("warmup_steps", "warmup_steps", int(rise))
    elif share is not None:
        reading.use("warmup_ratio", "warmup", share)


def read_optimiser(reading: Reading) -> None:
    """Optimiser, learning rate and its schedule, decay and clipping."""
    _optimiser(reading)
    given = "learning_rate" in reading.rest
    rate = reading.number("learning_rate")
    if not given:
        reading.refuse("learning_rate", "is missing")
    elif rate is not None:
        reading.use("learning_rate", "learning_rate", rate)
    given = "weight_decay" in reading.rest
    reading.use("weight_decay", "weight_decay", reading.number("weight_decay", 0.0), silent=not given)
    reading.pass_number("max_grad_norm", "clip")
    given = "seed" in reading.rest
    reading.use("seed", "seed", reading.whole("seed", DEFAULT_SEED), silent=not given)
    _schedule(reading, rate)


def _optimiser(reading: Reading) -> None:
    name = str(reading.take("optimizer", "adamw_torch_fused"))
    chosen = _ours(name)
    if chosen is None:
        reading.refuse("optimizer", f"{name} is not there: take adamw, adamw8bit or muon")
        return
    if name == "optimi_adamw" and "adapter" not in reading.settings:
        reading.use("optimizer", "weights", "bfloat16")
        chosen = "adamw_kahan"
    reading.use("optimizer", "optimizer", chosen)
    if name.startswith("paged"):
        reading.note("optimizer", "paging moves the states when memory runs out; the update is the same")
    first, second = reading.number("adam_beta1"), reading.number("adam_beta2")
    if first is not None or second is not None:
        reading.use("adam_beta1, adam_beta2", "betas", [0.9 if first is None else first, second or 0.999])
    elif chosen != "muon":
        reading.differs("optimizer", f"β₂ is {BETA2}, not 0.999: give betas=[0.9,0.999] for theirs")
    reading.expect("adam_epsilon", (1e-8, "1e-8"), "ε is 1e-8")


def _ours(name: str) -> str | None:
    if name in EIGHT_BIT:
        return "adamw8bit"
    if name in ADAMW or name in PAGED or name == "optimi_adamw":
        return "adamw"
    return "muon" if name == "muon" else None


def _schedule(reading: Reading, rate: float | None) -> None:
    name = str(reading.take("lr_scheduler", "cosine"))
    if name not in SCHEDULES:
        reading.refuse("lr_scheduler", f"{name} is not there: cosine, linear, constant or wsd")
        return
    reading.use("lr_scheduler", "schedule", SCHEDULES[name])
    if name == "constant" and not {"warmup", "warmup_steps"} & reading.settings.keys():
        reading.use("lr_scheduler", "warmup", 0.0)
    more: dict[str, Any] = dict(reading.take("lr_scheduler_kwargs") or {})
    floor = reading.number("cosine_min_lr_ratio")
    if floor is None and more.get("min_lr_rate") is not None:
        floor = float(more.pop("min_lr_rate"))
    elif floor is None and more.get("min_lr") is not None and rate:
        floor = float(more.pop("min_lr")) / rate
    if floor is not None:
        reading.use("the lowest rate", "final_rate", round(floor, 9))
    if more:
        reading.refuse("lr_scheduler_kwargs", f"{', '.join(more)}: see warmup, decay and final_rate")


def read_precision(reading: Reading) -> None:
    """Precision of the products, checkpointing of activations, and compilation."""
    wide = any(reading.take(key) is True for key in ("float32",))
    narrow = {key: reading.take(key) for key in ("bf16", "bfloat16")}
    half = [key for key in ("fp16", "float16") if reading.take(key)]
    asked = next((value for value in narrow.values() if value not in (None, False)), None)
    if asked == "auto" or (asked is None and not wide and not half and narrow["bf16"] is None):
        reading.use("bf16", "dtype", "auto")
    elif asked is not None:
        reading.use("bf16", "dtype", "bfloat16")
        if asked == "full" or narrow["bfloat16"]:
            reading.note("bf16", "products in bfloat16; what is trained is kept in float32")
    else:
        reading.use("bf16", "dtype", "float32")
        for key in half:
            reading.differs(key, "gradients can vanish in float16; products are in float32, or dtype=bfloat16")
    kept, moved = reading.take("gradient_checkpointing"), reading.take("activation_offloading")
    if kept or moved:
        reading.use("gradient_checkpointing", "checkpointing", "full" if kept is True and not moved else "offload")
    if reading.take("torch_compile") is True:
        reading.use("torch_compile", "compile", True)
