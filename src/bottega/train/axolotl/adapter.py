"""Axolotl's LoRA and QLoRA keys as our section `adapter`; PEFT's defaults where the file says nothing."""

from __future__ import annotations

import re
from typing import Any

from bottega.train.axolotl.reading import Reading

DEFAULT_RANK = DEFAULT_ALPHA = 8  # PEFT's
OF_ADAPTERS = (
    "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear", "lora_modules_to_save",
    "peft_use_dora", "peft_use_rslora", "peft_layers_to_transform", "peft_layers_pattern", "peft_init_lora_weights",
    "peft_trainable_token_indices", "peft", "bnb_config_kwargs", "loraplus_lr_ratio", "loraplus_lr_embedding",
    "lora_model_dir",
)  # fmt: skip


def read_adapter(reading: Reading) -> None:
    """The section `adapter`; without `adapter:` in the file everything is trained, and the rest is without effect."""
    kind = reading.take("adapter")
    four, eight = bool(reading.take("load_in_4bit")), bool(reading.take("load_in_8bit"))
    if kind is None:
        if four or eight:
            reading.refuse("load_in_4bit" if four else "load_in_8bit", "a base of few bits needs adapter: qlora")
        for key in [key for key in OF_ADAPTERS if key in reading.rest]:
            reading.take(key)
            reading.note(key, "without an adapter it has no effect, as there")
        return
    if kind not in ("lora", "qlora"):
        reading.refuse("adapter", f"{kind} is not there: lora or qlora")
        return
    reading.use("adapter", "adapter.type", kind)
    if kind == "qlora" or four:
        reading.use("load_in_4bit", "adapter.base", "nf4")
    elif eight:
        reading.use("load_in_8bit", "adapter.base", "int8")
    goes_on = reading.take("lora_model_dir")
    if goes_on:  # with an adapter whose own file says what the others would
        reading.use("lora_model_dir", "adapter.start", goes_on)
    rank = reading.whole("lora_r", None if goes_on else DEFAULT_RANK)
    alpha = reading.number("lora_alpha", None if goes_on else DEFAULT_ALPHA)
    for key, setting, value in (("lora_r", "r", rank), ("lora_alpha", "alpha", alpha)):
        if value is not None:
            reading.use(key, f"adapter.{setting}", value)
    reading.pass_number("lora_dropout", "adapter.dropout")
    reading.pass_number("loraplus_lr_ratio", "adapter.lora_plus_ratio")
    reading.expect("loraplus_lr_embedding", (1e-6, "1e-6"), "embeddings have no low-rank change of their own rate")
    _targets(reading, needed=not goes_on)
    for key, setting in (("peft_use_dora", "use_dora"), ("peft_use_rslora", "use_rslora")):
        if reading.take(key) is True:
            reading.use(key, f"adapter.{setting}", True)
    if modules := reading.take("lora_modules_to_save"):
        reading.use("lora_modules_to_save", "adapter.modules_to_save", modules)
    _rows(reading)
    _start(reading)
    _bits(reading)


def _targets(reading: Reading, *, needed: bool) -> None:
    linear, modules = reading.take("lora_target_linear"), reading.take("lora_target_modules")
    if linear is True or modules == "all-linear":
        reading.use("lora_target_linear", "adapter.target_modules", "all-linear")
        if modules not in (None, "all-linear"):
            reading.note("lora_target_modules", "lora_target_linear takes them in, as there")
    elif modules:
        reading.use("lora_target_modules", "adapter.target_modules", modules)
    elif needed:
        reading.refuse("lora_target_modules", "no layer is named: lora_target_linear: true takes all")
    if layers := reading.take("peft_layers_to_transform"):
        reading.use("peft_layers_to_transform", "adapter.layers_to_transform", layers)
    reading.expect("peft_layers_pattern", ("layers", ["layers"]), "layers are called `layers` here")


def _rows(reading: Reading) -> None:
    rows = reading.take("peft_trainable_token_indices")
    if isinstance(rows, dict):
        if set(rows) - {"embed_tokens", "lm_head"}:
            reading.refuse("peft_trainable_token_indices", "rows of embed_tokens and lm_head only")
            return
        rows = sorted({row for some in rows.values() for row in some})
    if rows:
        reading.use("peft_trainable_token_indices", "adapter.new_tokens", rows)


def _start(reading: Reading) -> None:
    """How the two matrices begin."""
    start = reading.take("peft_init_lora_weights", True)
    found = re.fullmatch(r"pissa(?:_niter_(\d+))?", str(start))
    if found:
        reading.use("peft_init_lora_weights", "adapter.init", "pissa")
        reading.use("peft_init_lora_weights", "adapter.pissa_iterations", int(found[1] or 0))
    elif start not in (True, "true"):
        reading.refuse("peft_init_lora_weights", f"{start} is not there: the usual start, or pissa")


def _bits(reading: Reading) -> None:
    """The options of the four-bit base."""
    options: dict[str, Any] = dict(reading.take("bnb_config_kwargs") or {})
    double = options.pop("bnb_4bit_use_double_quant", None)
    if double is not None:
        reading.use("bnb_config_kwargs.bnb_4bit_use_double_quant", "adapter.double_quant", bool(double))
    if (code := options.pop("bnb_4bit_quant_type", "nf4")) != "nf4":
        reading.refuse("bnb_config_kwargs.bnb_4bit_quant_type", f"{code} is not there: nf4")
    if options.pop("llm_int8_has_fp16_weight", False):
        reading.refuse("bnb_config_kwargs.llm_int8_has_fp16_weight", "the base is kept in int8 only")
    for name in options:
        reading.note(f"bnb_config_kwargs.{name}", "products are computed as dtype says")
    peft = dict(reading.take("peft") or {})
    if dtype := peft.pop("weight_dtype", None):
        base = {"nf4": "nf4", "int8": "int8"}.get(dtype)
        if base:
            reading.use("peft.weight_dtype", "adapter.base", base)
        else:
            reading.refuse("peft.weight_dtype", f"{dtype} is not there: nf4 or int8")
    peft.pop("backend", None)
    for name in peft:
        reading.refuse(f"peft.{name}", "is not there; the nearest is adapter.init: pissa")
