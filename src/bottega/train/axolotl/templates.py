"""Chat templates that Axolotl calls by name, and whether a model's own is one of them.

Here a model is trained with the template in its own folder, the one it will be served with. So a name in a file is no
choice but a statement about the model, which is checked where the folder is at hand.
"""

from __future__ import annotations

from pathlib import Path

from bottega.core.model_files import chat_template, optional_object
from bottega.train.axolotl.reading import Reading

# What only a template of that name writes.
MARKS = {
    "alpaca": "### Instruction:", "chatml": "<|im_start|>", "llama3": "<|start_header_id|>", "gemma": "<start_of_turn>",
    "gemma2": "<start_of_turn>", "gemma3": "<start_of_turn>", "mistral": "[INST]", "mistral_v1": "[INST]",
    "mistral_v2v3": "[INST]", "mistral_v3_tekken": "[INST]", "mistral_v7_tekken": "[SYSTEM_PROMPT]", "inst": "[INST]",
    "llama2": "[INST]", "llama-2": "[INST]", "phi_3": "<|end|>", "phi_35": "<|end|>", "qwen_25": "<|im_start|>",
    "qwen3": "<|im_start|>", "cohere": "<|START_OF_TURN_TOKEN|>", "llama4": "<|header_start|>", "zephyr": "<|user|>",
    "vicuna": "USER:", "vicuna_v1.1": "USER:", "metharme": "<|model|>", "exaone": "[|assistant|]",
    "deepseek_v2": "Assistant:", "deepseek_v3": "<｜Assistant｜>", "llama-3": "<|start_header_id|>",
}  # fmt: skip
OWN = "tokenizer_default"
REMEDY = "give the model that template: bottega tokenizer extend MODEL --template chatml (or a FILE) --out DIR"


def own_template(model: str) -> tuple[bool, str]:
    """Whether the folder of the model is here, and its chat template, which may be empty."""
    folder = Path(model)
    if not folder.is_dir():
        return False, ""
    return True, chat_template(folder, optional_object(folder / "tokenizer_config.json")) or ""


def check_template(reading: Reading, key: str, name: str, model: str) -> None:
    """A line for the template that `key` names; an error if the model's own is known to be another."""
    known, own = own_template(model)
    wanted = name.removeprefix(f"{OWN}_fallback_")
    if name == OWN or (wanted != name and own):
        reading.note(key, "the model's own template is used, as there")
    elif wanted not in MARKS:
        reading.refuse(key, f"a template called {name!r} is not known here; {REMEDY}")
    elif not known:
        reading.differs(key, f"the model's own template is used: see that it is {wanted} (bottega tokenizer inspect)")
    elif MARKS[wanted] in own:
        reading.note(key, f"the model's own template is {wanted}")
    else:
        what = "is another" if own else "is missing"
        reading.refuse(key, f"the model's own template {what}; {REMEDY}")
