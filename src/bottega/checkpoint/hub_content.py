"""What of a folder goes to the hub, and what to know before it does.

A folder is checked as it would be for opening it. Files stay here unless a model folder has such a
file; links that lead out of the folder are refused, for they would publish what they lead to.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from bottega.checkpoint.adapter import Adapter, base_of_adapter
from bottega.checkpoint.config import CONFIG_FILE, read_json
from bottega.checkpoint.folder import weight_files
from bottega.checkpoint.header import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from bottega.checkpoint.hub_cache import cache_root, cached_repository, folder_of, linked_blob
from bottega.checkpoint.hub_licence import card_data, licence_files, licence_of
from bottega.checkpoint.hub_repository import belongs, is_weights, parse_name
from bottega.checkpoint.spec import ModelSpec
from bottega.core.atomic import STEP_FILE, json_text, partial_path
from bottega.core.errors import UserError
from bottega.core.hashing import RECORD_FILE, content_files
from bottega.core.model_files import MAX_JSON_BYTES, parse_json, read_bounded
from bottega.core.record import Record, read_record

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Sent:
    """A file that goes up: its name there, and a path or its content."""

    name: str
    content: Path | bytes
    size: int
    note: str = ""


def checked_kind(folder: Path) -> str:
    """ "model", "adapter" or "tokenizer", from headers; raises UserError if the folder is none, or not whole."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    if folder.name.endswith(partial_path(Path("x")).suffix) or (folder / STEP_FILE).exists():
        raise UserError(f"{folder} is unfinished", hint="Run the command that makes it once more.")
    if (folder / ADAPTER_CONFIG).is_file():
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise UserError(f"{folder} has no {ADAPTER_WEIGHTS}", hint="Only safetensors are pushed.")
        Adapter.open(folder)
        return "adapter"
    if (folder / CONFIG_FILE).is_file():
        if weight_files(folder)[0].suffix == ".bin":
            raise UserError(f"{folder} has its weights in pickles (.bin)", hint="Only safetensors are pushed.")
        ModelSpec.read(folder)
        return "model"
    if (folder / TOKENIZER).is_file():
        data = read_json(folder / TOKENIZER)
        if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
            raise UserError(f"{folder / TOKENIZER} has no 'model': it is not a tokenizer.json")
        return "tokenizer"
    raise UserError(
        f"{folder} is no model, adapter or tokenizer",
        hint=f"It would have {CONFIG_FILE}, {ADAPTER_CONFIG} or {TOKENIZER}.",
    )


def contents(folder: Path) -> tuple[list[Sent], dict[str, str]]:
    """What goes up, and by name why the rest stays; raises UserError for a link that leads out of the folder."""
    weights = {path.name for path in weight_files(folder)} if (folder / CONFIG_FILE).is_file() else set()
    sent, left_out = [], {path.name: "hidden" for path in folder.iterdir() if path.name.startswith(".")}
    for name, path in content_files(folder).items():
        if not belongs(name):
            left_out[name] = "no part of a model folder"
        elif is_weights(name) and name not in weights | {ADAPTER_WEIGHTS}:
            left_out[name] = "weights that are not the model's" if name.endswith(".safetensors") else "a pickle"
        elif _leads_out(path, folder):
            raise UserError(f"{path} is a link that leads out of the folder", hint="Put the file itself there.")
        elif name == RECORD_FILE:
            record = read_record(folder)
            assert record is not None
            content = json_text(without_paths(record)).encode("utf-8")
            sent.append(Sent(name, content, len(content), "without paths of this machine"))
        else:
            sent.append(Sent(name, path, path.stat().st_size))
    return sent, dict(sorted(left_out.items()))


def _leads_out(path: Path, folder: Path) -> bool:
    inside = folder.resolve() in path.resolve().parents
    # A snapshot of the hub's cache is made of links to the blobs beside it.
    return not inside and linked_blob(path, folder.parent.parent) is None


def without_paths(record: Record) -> dict[str, Any]:
    """The record's data; of each path only the last part, for the rest says something about the machine only."""
    data = asdict(record)
    for entry in data["inputs"].values():
        entry["path"] = PurePosixPath(entry["path"]).name
    for name in ("out", *data["inputs"]):
        if isinstance(data["config"].get(name), str):
            data["config"][name] = PurePosixPath(data["config"][name]).name
    return _shortened(data)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, str):
        if _is_path(value):
            return PureWindowsPath(value).name
        home = os.path.expanduser("~")  # noqa: PTH111 (where there is no home, it stays "~")
        return value.replace(home, "~") if len(home) > 1 else value
    return value


def _is_path(text: str) -> bool:
    """Whether the text is an absolute path, or one from somebody's home."""
    if "\n" in text or len(text) < 2:
        return False
    return text.startswith(("/", "~/")) or PureWindowsPath(text).is_absolute()


def remarks(folder: Path) -> list[str]:
    """What speaks against publishing the folder as it is: licences that are missing, paths that others do not have."""
    licence = licence_of(folder)
    lines = [] if licence else ["the licence is not stated: put `license: …` at the head of README.md"]
    kept = set(licence_files(folder))
    for name, parent in _parents(folder).items():
        parents_licence = licence_of(parent)
        if parents_licence and parents_licence != licence:
            lines.append(f"its parent {name} is under {parents_licence}, this says {licence or 'nothing'}")
        lost = [file for file in licence_files(parent) if file not in kept]
        if lost:
            lines.append(f"{', '.join(lost)} of its parent {name} is not kept")
    for path in sorted(folder.glob("*.json")):
        if path.name != RECORD_FILE and path.stat().st_size < 1 << 20:
            lines += [f"{path.name} names a path of this machine ({key}: {text})" for key, text in _paths_in(path)]
    return lines


def _parents(folder: Path) -> dict[str, Path]:
    """The folders that a model was made from, as far as they are on this machine."""
    record = read_record(folder)
    inputs = [Path(entry["path"]) for entry in record.inputs.values()] if record else []
    parents = {path.name: path for path in inputs if path.is_dir() and path.resolve() != folder.resolve()}
    named = card_data(folder).get("base_model")
    bases = [*named] if isinstance(named, list) else [named]
    if (folder / ADAPTER_CONFIG).is_file():
        bases.append(base_of_adapter(read_json(folder / ADAPTER_CONFIG)))
    for name in bases:
        parsed = parse_name(name) if isinstance(name, str) else None
        cached = cached_repository(*parsed, cache_root()) if parsed else None
        if cached is not None:
            parents[cached.name] = folder_of(cached.name, cache_root()) / "snapshots" / cached.commit
    return parents


def _paths_in(path: Path) -> list[tuple[str, str]]:
    try:
        data = parse_json(read_bounded(path, MAX_JSON_BYTES), path)
    except UserError:
        return []
    if not isinstance(data, dict):
        return []
    return [(key, value) for key, value in data.items() if isinstance(value, str) and _is_path(value)]
