"""Axolotl's `datasets`: where the rows are, and that they are rows which are read alike here.

The format of a row is told from its keys here (docs/data.md), so a `type` is checked against what its keys would be
read as. A type whose columns have other names is refused, with the names that are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bottega.train.axolotl.reading import UNSET, Reading
from bottega.train.axolotl.templates import check_template

ALPACA = "rows of instruction, input and output; the prompt's words are the model's chat template's, not Alpaca's"
TURNS = "conversations, told from their keys"
# Types of supervised data, up to the first `.` or `:`.
SFT_TYPES = {
    "alpaca": ALPACA, "gpteacher": ALPACA, "alpaca_w_system": ALPACA, "chat_template": TURNS, "sharegpt": TURNS,
    "chatml": TURNS, "completion": "plain text, every token trained", "pretrain": "plain text, every token trained",
}  # fmt: skip
# Types of judged data by their last part, and their columns; others (zephyr.nectar, say) are not read alike here.
PAIR_COLUMNS = {
    "intel": "question, chosen, rejected", "prompt_pairs": "prompt, chosen, rejected",
    "ultra": "prompt, chosen, rejected", "argilla_chat": "chosen, rejected", "icr": "input, chosen, rejected",
    "argilla": "instruction, chosen_response, rejected_response", "default": "messages, chosen, rejected",
    "chat_template": "prompt or input, chosen, rejected",
}  # fmt: skip
KTO_COLUMNS = {
    "prompt_pairs": "prompt, completion, label", "ultra": "prompt, completion, label",
    "intel": "question, completion, label", "argilla": "instruction, completion, label",
}  # fmt: skip
ROLES = {
    "user": {"user", "human", "prompter"},
    "assistant": {"assistant", "gpt", "bot", "model", "function_call"},
    "system": {"system"},
    "tool": {"tool", "function", "observation"},
}
FILE_KINDS = ("json", "jsonl", "csv", "parquet", "text")
# Keys of one data set that say only how it is fetched or split up for the work.
FETCHING = {
    "ds_type": "told from the file's name", "preprocess_shards": "memory only", "revision": "of the hub",
    "trust_remote_code": "no code of a data set is ever run", "input_format": "told from the keys",
    "field_tools": "tools", "field_messages": "messages", "shards_idx": "of shards",
}  # fmt: skip


def plain_text(data: dict[str, Any]) -> bool:
    """Whether what the file trains on is text without any structure: then the stage is pretrain."""
    if data.get("pretraining_dataset"):
        return True
    sets = [entry for entry in data.get("datasets") or [] if isinstance(entry, dict)]
    return bool(sets) and all(_kind(entry.get("type")) in ("completion", "pretrain") for entry in sets)


def read_data(reading: Reading, stage: str, model: str) -> None:
    """`data` and `heldout`, and the lines of everything said about them."""
    key, sets = reading.first("datasets", "pretraining_dataset")
    path = _read_sets(reading, key, sets, stage, model)
    if path is None:
        reading.refuse(key, "no data set is named")
    else:
        reading.use(f"{key}[0].path", "data", path)
    if tests := reading.take("test_datasets"):
        heldout = _read_sets(reading, "test_datasets", tests, stage, model)
        if heldout is not None:
            reading.use("test_datasets[0].path", "heldout", heldout)
    if share := reading.number("val_set_size"):
        reading.differs("val_set_size", f"all of the data is trained; put {share:g} of it into a file: heldout=FILE")
    if reading.take("shuffle_merged_datasets", True) is False:
        reading.refuse("shuffle_merged_datasets", "the order of the data is a permutation per epoch")


def _read_sets(reading: Reading, key: str, sets: Any, stage: str, model: str) -> str | None:
    sets = sets if isinstance(sets, list) else [sets]
    sets = [{"path": entry} if isinstance(entry, str) else entry for entry in sets if isinstance(entry, (str, dict))]
    if not sets:
        return None
    for number, entry in enumerate(sets):
        _Set(reading, f"{key}[{number}]", entry).read(stage, model)
    if len(sets) > 1:
        reading.refuse(key, "several data sets: put their files into one folder (formats may mix); data=FOLDER")
    return _path(reading, f"{key}[0]", sets[0])


def _path(reading: Reading, key: str, entry: dict[str, Any]) -> str | None:
    """The file or folder of one data set; what is not here is told."""
    path, files = entry.get("path"), entry.get("data_files") or []
    files = files if isinstance(files, list) else [files]
    if path in FILE_KINDS or (files and not path):
        path = files[0] if files else None
    elif len(files) == 1 and path:
        path = str(Path(path) / files[0]) if Path(path).is_dir() else files[0]
    if len(files) > 1:
        reading.refuse(f"{key}.data_files", "several files: put them into one folder, and give data=FOLDER")
    if path and not Path(path).exists():
        reading.differs(f"{key}.path", f"{path} is no file or folder here: download it, and give data=PATH")
    return path


class _Set:
    """One entry of `datasets`."""

    def __init__(self, reading: Reading, where: str, entry: dict[str, Any]) -> None:
        self.reading, self.where = reading, where
        self.entry = {str(name): value for name, value in entry.items() if value not in UNSET}

    def read(self, stage: str, model: str) -> None:
        """A line for everything that the entry says but where it is."""
        for name in ("path", "data_files"):
            self.entry.pop(name, None)
        kind = self.entry.pop("type", None)
        if stage in ("ppo", "grpo"):
            self._prompts(kind)
        elif stage in ("pretrain", "sft"):
            self._supervised(kind)
        else:
            self._judged(kind, KTO_COLUMNS if stage == "kto" else PAIR_COLUMNS, model)
        self._templates(model)
        self._names()
        self._shares()
        for name in list(self.entry):
            value = self.entry.pop(name)
            if name in FETCHING:
                self._say("note", name, FETCHING[name])
            elif value is not False:
                self._say("refuse", name, "is not known here")

    def _say(self, fate: str, name: str, text: str) -> None:
        getattr(self.reading, fate)(f"{self.where}.{name}", text)

    def _prompts(self, kind: Any) -> None:
        if kind is not None:
            text = f"{kind} is not run: rows need a prompt, and the fields that rewards compare with"
            self._say("differs", "type", text)

    def _supervised(self, kind: Any) -> None:
        name = _kind(kind)
        if isinstance(kind, dict):
            self._own_columns(kind)
        elif kind is None:
            self._say("note", "type", "none, so rows are tokens: input_ids and labels")
        elif name not in SFT_TYPES or kind.partition(".")[2] in ("load_open_orca", "load_camel_ai", "load_qa"):
            hint = "rows are read as instruction/output, messages, conversations, prompt/completion or text"
            self._say("refuse", "type", f"{kind} has columns that are not known here; {hint}")
        else:
            self._say("differs" if SFT_TYPES[name] == ALPACA else "note", "type", f"{kind}: {SFT_TYPES[name]}")

    def _own_columns(self, kind: dict[str, Any]) -> None:
        """A prompt written into the file: accepted where it only says what the columns would be read as anyway."""
        usual = {
            "field_instruction": "instruction", "field_input": "input", "field_output": "output",
            "field_system": "system", "field_prompt": "prompt", "field_chosen": "chosen", "field_label": "label",
            "field_rejected": "rejected", "field_completion": "completion",
        }  # fmt: skip
        formats = ("{instruction}", "{instruction} {input}", "{prompt}", "{chosen}", "{rejected}", "{completion}")
        other = [
            name for name, value in kind.items()
            if value not in UNSET and usual.get(name) != value and not (name.endswith("format") and value in formats)
        ]  # fmt: skip
        if other:
            text = f"{', '.join(other)}: a prompt of one's own; rename the columns, the words are the chat template's"
            self._say("refuse", "type", text)
        else:
            self._say("note", "type", "columns of the usual names, told from the keys")

    def _judged(self, kind: Any, columns: dict[str, str], model: str) -> None:
        if isinstance(kind, dict):
            self._own_columns(kind)
            return
        if kind is None:
            self._say("note", "type", "told from the keys")
            return
        first, _, last = str(kind).partition(".")
        found = columns.get(last or "ultra")
        if found is None:
            self._say("refuse", "type", f"{kind} has other columns; rename them to {columns['ultra']}")
            return
        self._say("note", "type", f"{kind}: rows of {found}")
        if first not in ("chat_template", "orpo", "bradley_terry", "user_defined"):
            check_template(self.reading, f"{self.where}.type", first, model)

    def _templates(self, model: str) -> None:
        for name in ("chat_template", "conversation"):
            if value := self.entry.pop(name, None):
                check_template(self.reading, f"{self.where}.{name}", str(value), model)
        if self.entry.pop("chat_template_jinja", None):
            self._say("refuse", "chat_template_jinja", "a template belongs into the model's folder")
        for name in ("train_on_split", "split"):
            value = self.entry.pop(name, None)
            if value == "train":
                self._say("note", name, "the file or folder is taken whole")
            elif value is not None:
                self._say("refuse", name, f"{value}: the file or folder is taken whole; give the file of that part")
        if value := self.entry.pop("name", None):
            self._say("note", "name", f"{value} is a part of a data set of the hub: download that part")

    def _names(self) -> None:
        """Names of columns and roles: only such as the rows are read by anyway."""
        self._only("field_messages", ("messages", "conversations"))
        self._only("field_chosen", ("chosen",))
        self._only("field_rejected", ("rejected",))
        self._only("field_tools", ("tools",))
        self._only("field", ("text",))
        self._only("text_column", ("text",))
        self._only("message_field_role", ("role", "from"))
        self._only("message_field_content", ("content", "value"))
        self._only("message_field_training", ("train", "training", "weight", "loss_weight"))
        for name, value in (self.entry.pop("message_property_mappings", None) or {}).items():
            allowed = {"role": ("role", "from"), "content": ("content", "value")}.get(name, (name,))
            if value not in allowed:
                self._say("refuse", "message_property_mappings", f"{name}: rename {value!r} to {' or '.join(allowed)}")
        for role, names in (self.entry.pop("roles", None) or {}).items():
            for name in set(names if isinstance(names, list) else [names]) - ROLES.get(role, set()):
                self._say("refuse", "roles", f"{name!r} is not read as {role}: rename it")

    def _only(self, name: str, allowed: tuple[str, ...]) -> None:
        value = self.entry.pop(name, None)
        if value is not None and value not in allowed:
            self._say("refuse", name, f"rename {value!r} to {' or '.join(allowed)}")
        elif value is not None:
            self._say("note", name, f"{value}, told from the keys")

    def _shares(self) -> None:
        """What takes only a part of the rows or of their words."""
        shards = self.entry.pop("shards", None)
        if isinstance(shards, int) and shards > 1:
            self._say("refuse", "shards", "the file is taken whole; make the smaller file first")
        train_on = _train_on(self.entry.pop("roles_to_train", None))
        if train_on == "":
            self._say("refuse", "roles_to_train", "either the assistant is trained or everything: train_on")
        elif train_on:
            self.reading.use(f"{self.where}.roles_to_train", "train_on", train_on)
        for name in ("train_on_eos", "train_on_eot"):
            stops = self.entry.pop(name, None)
            if stops in ("turn", "last", "none"):
                self.reading.use(f"{self.where}.{name}", "train_on_eos", stops)
            elif stops is not None:
                self._say("refuse", name, f"{stops}: turn, last or none (with train_on: all every one is trained)")


def _train_on(roles: Any) -> str | None:
    """Our `train_on` for the roles that are trained; empty for a choice that is not there, None if none is made."""
    if roles is None:
        return None
    trained = set(roles if isinstance(roles, list) else [roles])
    if trained and trained <= ROLES["assistant"]:
        return "assistant"
    return "all" if trained & ROLES["user"] and trained & ROLES["assistant"] and trained & ROLES["system"] else ""


def _kind(kind: Any) -> str:
    """A type without its variant: `sharegpt.load_role:chat` → sharegpt."""
    return kind.partition(".")[0].partition(":")[0] if isinstance(kind, str) else ""
