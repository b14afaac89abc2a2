"""The finished conversion: a whole `tokenizer.json`, and the config beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottega.core.atomic import write_bytes, write_json, write_text
from bottega.core.errors import UserError
from bottega.tokenizer.foreign.companions import AddedToken, Companions
from bottega.tokenizer.foreign.parts import Parts
from bottega.tokenizer.training import NO_LENGTH_LIMIT

ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Converted:
    """What a foreign vocabulary becomes. `source` says what it was, `notes` where its ids can differ."""

    source: str
    content: bytes
    """The tokenizer.json: the same source gives the same bytes."""
    config: dict[str, Any]
    """The tokenizer_config.json, with the chat template in it."""
    generation: dict[str, Any] = field(default_factory=dict)
    """What is known of a generation_config.json: the ids of BOS, padding and all tokens that end a generation."""
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write tokenizer.json, its configs and the chat template; every reader of such folders opens it."""
        write_bytes(folder / "tokenizer.json", self.content)
        write_json(folder / "tokenizer_config.json", self.config)
        names = (*ROLES, "additional_special_tokens")
        write_json(folder / "special_tokens_map.json", {n: self.config[n] for n in names if n in self.config})
        if "chat_template" in self.config:
            write_text(folder / "chat_template.jinja", self.config["chat_template"])
        if self.generation:
            write_json(folder / "generation_config.json", self.generation)


def assemble(source: str, parts: Parts, companions: Companions, path: Path | str) -> Converted:
    """Put the parts and what the files beside them say together.

    Raises UserError if the added tokens do not fit the vocabulary.
    """
    vocabulary = dict(parts.vocabulary())
    names = {**parts.names, **companions.names}
    added = _merge(parts.added, companions.added, names)
    model = _with_added(parts.model, added, vocabulary, path)
    ids = {**vocabulary, **{token.content: token.id for token in added}}
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [token.as_data() for token in added],
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": parts.post_processor or _post_processor(companions, names, ids),
        "decoder": parts.decoder,
        "model": model,
    }
    return Converted(
        source=source,
        content=json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n",
        config=_config(companions, names, added, ids),
        generation=companions.generation,
        notes=tuple(parts.notes),
    )


def _merge(own: Iterable[AddedToken], given: Iterable[AddedToken], names: dict[str, str]) -> list[AddedToken]:
    """The vocabulary's added tokens and those of the files beside it, which know better; what has a role is special."""
    merged = {token.content: token for token in own} | {token.content: token for token in given}
    roles = set(names.values())
    special = (AddedToken(**{**token.as_data(), "special": token.special or token.content in roles})
               for token in merged.values())  # fmt: skip
    return sorted(special, key=lambda token: token.id)


def _with_added(
    model: dict[str, Any], added: Sequence[AddedToken], vocabulary: dict[str, int], path: Path | str
) -> dict[str, Any]:
    """The model, with added tokens in its vocabulary where the library would else give them another id."""
    contents = {id_: token for token, id_ in vocabulary.items()}
    for token in added:
        there = contents.setdefault(token.id, token.content)
        if there != token.content:
            raise UserError(f"{path}: the added token {token.content!r} has the id {token.id} of the token {there!r}")
        if vocabulary.get(token.content, token.id) != token.id:
            raise UserError(
                f"{path}: the added token {token.content!r} has the id {token.id}, but in the vocabulary "
                f"{vocabulary[token.content]}"
            )
    new = [token for token in added if token.content not in vocabulary]
    if [token.id for token in new] == list(range(len(vocabulary), len(vocabulary) + len(new))):
        return model
    if not isinstance(model["vocab"], dict):
        raise UserError(f"{path}: the ids of the added tokens have gaps: {[token.id for token in new][:5]}")
    return {**model, "vocab": {**model["vocab"], **{token.content: token.id for token in new}}}


def _post_processor(companions: Companions, names: dict[str, str], ids: dict[str, int]) -> dict[str, Any] | None:
    """BOS before a text and EOS after it, as far as they are wanted."""

    def marks(role: str) -> list[str]:
        name = names.get(f"{role}_token")
        return [name] if companions.adds(role) and name in ids else []

    bos, eos = marks("bos"), marks("eos")
    if not bos and not eos:
        return None
    return template([*bos, "$A", *eos], [*bos, "$A", *eos, *bos, "$B", *eos], ids)


def template(single: Sequence[str], pair: Sequence[str], ids: dict[str, int]) -> dict[str, Any]:
    """A post-processor that puts special tokens around a text ($A), or around two ($A and $B)."""

    def parts(names: Sequence[str]) -> list[dict[str, Any]]:
        written, type_id = [], 0
        for name in names:
            if name in ("$A", "$B"):
                type_id = int(name == "$B")
                written.append({"Sequence": {"id": name[1], "type_id": type_id}})
            else:
                written.append({"SpecialToken": {"id": name, "type_id": type_id}})
        return written

    special = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in {*single, *pair} - {"$A", "$B"}}
    ordered = {name: special[name] for name in sorted(special)}
    return {"type": "TemplateProcessing", "single": parts(single), "pair": parts(pair), "special_tokens": ordered}


def _config(
    companions: Companions, names: dict[str, str], added: Sequence[AddedToken], ids: dict[str, int]
) -> dict[str, Any]:
    """The tokenizer_config.json: the plain fast tokenizer, as no class of its own is to change what is converted."""
    roles = {role: names[role] for role in ROLES if names.get(role) in ids}
    others = [token.content for token in added if token.special and token.content not in roles.values()]
    length = companions.config.get("model_max_length")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **roles,
        "add_bos_token": companions.adds("bos") and "bos_token" in roles,
        "add_eos_token": companions.adds("eos") and "eos_token" in roles,
        "clean_up_tokenization_spaces": False,
        "model_max_length": length if isinstance(length, int) and 0 < length <= NO_LENGTH_LIMIT else NO_LENGTH_LIMIT,
        "added_tokens_decoder": {
            str(token.id): {key: value for key, value in token.as_data().items() if key != "id"} for token in added
        },
    }
    if others:
        config["additional_special_tokens"] = others
    if companions.chat_template is not None:
        config["chat_template"] = companions.chat_template
    return config
