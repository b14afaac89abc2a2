"""An Axolotl file as settings of `train`.

Key names, defaults and meanings follow Axolotl's published schema (axolotl-ai-cloud/axolotl, src/axolotl/utils/schemas,
0.18) and TRL's for what Axolotl hands on. `translate` is pure but for one look at the model's folder, if it is here, to
see whether its chat template is the one that the file names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bottega.core.errors import did_you_mean
from bottega.core.foreign import Foreign
from bottega.core.model_files import optional_object
from bottega.tokenizer.files import named_tokens
from bottega.train.axolotl.adapter import OF_ADAPTERS, read_adapter
from bottega.train.axolotl.alignment import OF_LOSSES, read_losses, read_stage
from bottega.train.axolotl.data import read_data
from bottega.train.axolotl.keys import EXTEND, NOTED, REFUSED, look_up
from bottega.train.axolotl.reading import Reading
from bottega.train.axolotl.schedule import read_batch, read_optimiser, read_precision
from bottega.train.axolotl.templates import check_template
from bottega.train.config import TOKEN_STAGES

TELLING = (
    "datasets", "pretraining_dataset", "sequence_len", "micro_batch_size", "gradient_accumulation_steps", "num_epochs",
    "adapter", "rl", "lora_r", "model_type", "tokenizer_type", "sample_packing", "val_set_size", "output_dir",
)  # fmt: skip
READ = (
    "base_model", "base_model_config", "tokenizer_config", "revision_of_model", "model_revision", "chat_template",
    "chat_template_jinja", "special_tokens", "eot_tokens", "train_on_inputs", "roles_to_train", "test_datasets",
    "shuffle_merged_datasets", "load_in_4bit", "load_in_8bit", "batch_size", "max_steps", "warmup_steps",
    "warmup_ratio", "eval_steps", "save_steps", "early_stopping_patience", "learning_rate", "weight_decay",
    "max_grad_norm", "seed", "optimizer", "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler",
    "lr_scheduler_kwargs", "cosine_min_lr_ratio", "float32", "bf16", "bfloat16", "fp16", "float16",
    "gradient_checkpointing", "activation_offloading", "torch_compile", "trl", "reward_model", "num_labels",
    *TELLING, *OF_ADAPTERS, *OF_LOSSES,
)  # fmt: skip
ROLES_OF_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


def is_axolotl(data: Any) -> bool:
    """Whether plain data are an Axolotl file: base_model beside other keys of its own, no stage and no model."""
    if not isinstance(data, dict) or "base_model" not in data or {"stage", "model"} & data.keys():
        return False
    return any(key in data for key in TELLING)


def translate(data: dict[str, Any]) -> Foreign | None:
    """The settings of `train` that an Axolotl file comes to, with a line for each of its keys; None for other files."""
    if not is_axolotl(data):
        return None
    reading = Reading(data)
    model = _model(reading)
    stage = read_stage(reading)
    if stage is not None:
        read_data(reading, stage, model)
        read_adapter(reading)
        read_losses(reading, stage)
        read_batch(reading, stage)
        read_optimiser(reading)
        read_precision(reading)
        _words(reading, stage, model)
        _remaining(reading)
    return Foreign("Axolotl", reading.settings, tuple(reading.lines))


def _model(reading: Reading) -> str:
    """Where the model is, with its revision; and where the result goes."""
    model = str(reading.take("base_model"))
    key, revision = reading.first("revision_of_model", "model_revision")
    if revision is not None:
        reading.note(key, "part of the model's name")
    named = f"{model}@{revision}" if revision is not None else model
    reading.use("base_model", "model", named)
    for other in ("base_model_config", "tokenizer_config"):
        reading.expect(other, (model,), "the model's folder brings its own; put the files into a copy of it")
    if out := reading.take("output_dir"):
        reading.use("output_dir", "out", out)
    return model


def _words(reading: Reading, stage: str, model: str) -> None:
    """Chat template, special tokens, and whose words are trained."""
    template, given = reading.take("chat_template"), reading.take("chat_template_jinja")
    if given or template == "jinja":
        reading.refuse("chat_template_jinja", "put it into a copy of the model's folder as chat_template.jinja")
    elif template:
        check_template(reading, "chat_template", str(template), model)
    if (stops := reading.take("eot_tokens")) is not None:
        reading.differs("eot_tokens", f"{stops}: what ends a turn is told from the template and generation_config.json")
    _special_tokens(reading, dict(reading.take("special_tokens") or {}), model)
    everything = reading.take("train_on_inputs")
    if everything is not None and stage in TOKEN_STAGES:
        if everything and stage == "sft":
            reading.use("train_on_inputs", "train_on", "all")
        else:
            reading.note("train_on_inputs", f"{everything}, as here")
    elif everything is not None:
        reading.note("train_on_inputs", f"without effect on {stage}, as there")
    if "roles_to_train" in reading.rest:
        reading.refuse("roles_to_train", "give it in the data set, or train_on: all")
        reading.take("roles_to_train")


def _special_tokens(reading: Reading, wanted: dict[str, Any], model: str) -> None:
    """Only a statement here: the tokenizer's own are kept, and padding is never needed."""
    own = _own_tokens(model)
    for name, text in wanted.items():
        key = f"special_tokens.{name}"
        if text in (None, [], ""):
            continue
        if name == "pad_token":
            reading.note(key, "nothing is padded; masks go by position, so it may be any token")
        elif name not in ROLES_OF_TOKENS:
            reading.refuse(key, EXTEND)
        elif own is None or name not in own:
            reading.differs(key, f"the tokenizer's own is kept: see that it is {text}")
        elif own[name] == text:
            reading.note(key, "the tokenizer's own")
        else:
            reading.refuse(key, f"the tokenizer's own is {own[name]}; change it in a copy of the model's folder")


def _own_tokens(model: str) -> dict[str, str] | None:
    """Special tokens of a model whose folder is here, by role; None if it is not."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    names = ("special_tokens_map.json", "tokenizer_config.json")
    return {role: text for name in names for role, text in named_tokens(optional_object(folder / name)).items()}


def _remaining(reading: Reading) -> None:
    """Every key that no part above has taken: a note, an error, or unknown."""
    for key in list(reading.rest):
        value = reading.take(key)
        if (reason := look_up(NOTED, key)) is not None:
            reading.note(key, reason)
        elif key == "plugins":
            _plugins(reading, value)
        elif (reason := look_up(REFUSED, key)) is not None:
            if value in (False, 0, "no"):
                reading.note(key, "off, as here")
            else:
                reading.refuse(key, reason)
        elif value is False:
            reading.note(key, "not known here, and off")
        else:
            known = [name for name in (*READ, *NOTED, *REFUSED) if not name.endswith("*")]
            reading.refuse(key, f"is no key of Axolotl's that is known here. {did_you_mean(key, known)}".strip())


def _plugins(reading: Reading, plugins: Any) -> None:
    for plugin in plugins if isinstance(plugins, list) else [plugins]:
        if "liger" in str(plugin).lower() or "cut_cross_entropy" in str(plugin).lower():
            reading.note("plugins", f"{plugin}: speed only, the loss never holds all logits here")
        else:
            reading.refuse("plugins", f"{plugin}: no code is loaded from elsewhere")
