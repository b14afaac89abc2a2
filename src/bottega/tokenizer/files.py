"""What a tokenizer's folder holds, read and bounded, before anything is built from it.

`tokenizer.json` is the tokenizer; where it is missing, it is made from an older format
(`foreign/`). Beside it may stand `tokenizer_config.json` and
`special_tokens_map.json` (names of special tokens), `chat_template.jinja` (or the template
inside the config, as older writers do), `generation_config.json` and `config.json` (ids at
which generation stops).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.hashing import digest_tokenizer
from bottega.core.model_files import (
    MAX_TOKENIZER_BYTES,
    chat_template,
    model_folder,
    optional_object,
    parse_object,
    read_bounded,
)

# What a tokenizer's folder may hold.
FILES = (
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "vocab.json", "merges.txt",
)  # fmt: skip
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class TokenizerFiles:
    """The contents of the folder. `special_tokens` maps `bos_token` and the like to their text."""

    tokenizer_bytes: bytes
    data: dict[str, Any]
    special_tokens: dict[str, str]
    stop_ids: frozenset[int]
    fallback_ids: dict[str, int]
    """`bos`, `eos`, `pad` ids from the model's configs, where the tokenizer's name none."""
    adds_bos: bool | None
    """What tokenizer_config.json says; None if it does not say."""
    chat_template: str | None
    marked_special: bool
    """Whether `data` differs from the file: tokens that the configs use as special were not marked so."""
    hash: str
    """`core.hashing.digest_tokenizer` of the file."""

    @property
    def unknown_tokens(self) -> frozenset[str]:
        """The tokens that stand for what the vocabulary cannot write."""
        candidates = (self.special_tokens.get("unk_token"), self.data["model"].get("unk_token"))
        return frozenset(token for token in candidates if isinstance(token, str))

    def backend_json(self) -> str:
        """What the `tokenizers` library is given."""
        return json.dumps(self.data) if self.marked_special else self.tokenizer_bytes.decode("utf-8")


def read_files(folder: Path) -> TokenizerFiles:
    """Read a tokenizer's or a model's folder, or a GGUF file; raises UserError if it has no tokenizer.

    Without a tokenizer.json, the vocabulary that stands there in another format is converted.
    """
    if folder.suffix == ".gguf" and folder.is_file():
        from bottega.tokenizer.foreign.source import convert

        converted = convert(folder)
        return files_of(folder, converted.content, converted.config)
    folder = model_folder(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", hint="A tokenizer is a folder with tokenizer.json.")
    path = folder / "tokenizer.json"
    if path.is_file():
        content = read_bounded(path, MAX_TOKENIZER_BYTES)
        return files_of(folder, content, optional_object(folder / "tokenizer_config.json"))
    from bottega.tokenizer.foreign.source import READ, convert, find  # which reads files by this module

    if find(folder) is None:
        raise UserError(f"{folder} has no tokenizer.json", hint=f"A tokenizer is a folder that has one. Also {READ}")
    converted = convert(folder)
    return files_of(folder, converted.content, converted.config)


def write_tokenizer(source: Path, folder: Path) -> None:
    """Write the tokenizer of `source`, a folder or a GGUF file, into `folder`.

    It is copied, or, where there is no tokenizer.json, converted. Raises UserError if there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = model_folder(source)
    if (source / FILES[0]).is_file():
        for name in FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        return
    from bottega.tokenizer.foreign.source import convert

    convert(source).write(folder)


def files_of(folder: Path, content: bytes, config: dict[str, Any]) -> TokenizerFiles:
    """The contents of `folder`, whose tokenizer.json and tokenizer_config.json are given.

    Raises UserError if `content` is no tokenizer.json, or one of the other files cannot be read.
    """
    path = folder / "tokenizer.json"
    data = parse_object(content, path)
    if not isinstance(data.get("model"), dict):
        raise UserError(f"{path} has no 'model': it is not a tokenizer.json")
    hash_ = digest_tokenizer(data)  # before anything in it is changed
    names = {**named_tokens(optional_object(folder / "special_tokens_map.json")), **named_tokens(config)}
    generation, model = optional_object(folder / "generation_config.json"), optional_object(folder / "config.json")
    stop_ids = frozenset(token_ids(generation.get("eos_token_id")) or token_ids(model.get("eos_token_id")))
    fallback: dict[str, int] = {}
    for name in ("bos", "eos", "pad"):
        found = token_ids(generation.get(f"{name}_token_id")) or token_ids(model.get(f"{name}_token_id"))
        if found:
            fallback[name] = found[0]
    adds_bos = config.get("add_bos_token")
    return TokenizerFiles(
        tokenizer_bytes=content,
        data=data,
        special_tokens=names,
        stop_ids=stop_ids,
        fallback_ids=fallback,
        adds_bos=adds_bos if isinstance(adds_bos, bool) else None,
        chat_template=chat_template(folder, config),
        marked_special=_mark_special(data, config, set(names.values()), stop_ids, path),
        hash=hash_,
    )


def named_tokens(config: dict[str, Any]) -> dict[str, str]:
    """`bos_token` and the like → text, of a config that has them as texts or as objects with a `content`."""
    found: dict[str, str] = {}
    for name in NAMED_TOKENS:
        value = config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str) and value:
            found[name] = value
    return found


def token_ids(value: Any) -> list[int]:
    """`2`, `[2, 7]` or nothing, as configs name tokens, as a list; -1 is an old way to say none."""
    values = value if isinstance(value, list) else [value]
    return [id_ for id_ in values if isinstance(id_, int) and not isinstance(id_, bool) and id_ >= 0]


def _mark_special(
    data: dict[str, Any], config: dict[str, Any], names: set[str], stop_ids: frozenset[int], path: Path
) -> bool:
    """Mark as special, in `data`, the added tokens that the configs use so; whether any was not marked."""
    decoder = config.get("added_tokens_decoder")
    declared = {
        id_ for id_, entry in (decoder.items() if isinstance(decoder, dict) else ())
        if isinstance(entry, dict) and entry.get("special") is True
    }  # fmt: skip
    changed = False
    added = data.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise UserError(f"{path}: 'added_tokens' must be a list of objects")
    for token in added:
        used = token.get("content") in names or token.get("id") in stop_ids or str(token.get("id")) in declared
        if used and token.get("special") is not True:
            token["special"] = changed = True
    if data["model"].get("dropout") is not None:
        # Merges dropped at random are for training only: the same text must give the same ids.
        data["model"]["dropout"], changed = None, True
    return changed
