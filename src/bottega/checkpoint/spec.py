"""`ModelSpec`: what a model is, from its headers; for plans. Imports torch only for legacy `.bin` files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.folder import place_tensors, read_generation, read_model
from bottega.checkpoint.gguf import GGUF_SUFFIX
from bottega.checkpoint.header import TensorInfo
from bottega.checkpoint.hub import locate
from bottega.checkpoint.hub_licence import licence_of
from bottega.checkpoint.writer import expected_tensors
from bottega.core.hashing import digest_tokenizer
from bottega.core.model_files import (
    MAX_TOKENIZER_BYTES,
    chat_template,
    has_tokenizer,
    optional_object,
    parse_object,
    read_bounded,
)
from bottega.core.plan import Spec
from bottega.core.record import read_record


@dataclass(frozen=True)
class ModelSpec:
    """A model folder without its weights: read from headers, or predicted by a plan."""

    kind: ClassVar[str] = "model"

    config: ModelConfig
    tensors: dict[str, TensorInfo]
    has_tokenizer: bool = False
    template: str | None = None
    licence: str | None = None
    parents: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    """Every token that ends a generation: of config.json and generation_config.json."""
    tokens: dict[str, str] = field(default_factory=dict)
    """Special tokens by role, such as "eos_token"."""
    tokenizer_hash: str = ""
    """Hash of tokenizer.json (`core.hashing.digest_tokenizer`); empty if there is none."""
    quantised: str = ""
    """How the stored weights are quantised, in a few words; `tensors` are what they come to."""
    tokenizer: Spec | None = None
    """Of a model that a plan is going to make: what its tokenizer will be."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.config.vocab_size

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as stored."""
        return sum(info.nbytes for info in self.tensors.values())

    @classmethod
    def predict(cls, config: ModelConfig, *, tokenizer_hash: str, template: str | None = None) -> Self:
        """The spec of a model that a plan is going to make."""
        tensors = expected_tensors(config)
        return cls(config, tensors, True, template, stop_ids=config.eos_token_id, tokenizer_hash=tokenizer_hash)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a model folder, or `org/name` of the hub; raises UserError if its headers do not fit its config."""
        folder = locate(path)
        config, stored, quantised, metadata = read_model(folder)
        infos = {name: tensor.info for name, tensor in stored.items()}
        tensors = {name: infos[place] for name, place in place_tensors(infos, config, folder).items()}
        if folder.suffix == GGUF_SUFFIX:
            return cls._of_gguf(metadata, config, tensors, quantised)
        tokenizer = optional_object(folder / "tokenizer_config.json")
        return cls(
            config=config,
            tensors=tensors,
            has_tokenizer=has_tokenizer(folder),
            template=chat_template(folder, tokenizer),
            licence=licence_of(folder),
            parents=_parents(folder),
            stop_ids=_stop_ids(config, read_generation(folder)),
            tokens=_special_tokens(tokenizer),
            tokenizer_hash=_hash(folder / "tokenizer.json"),
            quantised=quantised,
        )

    @classmethod
    def _of_gguf(
        cls, metadata: Mapping[str, Any], config: ModelConfig, tensors: dict[str, TensorInfo], quantised: str
    ) -> Self:
        """The same of a GGUF file, whose metadata hold what a folder has in files of its own."""
        template, licence = metadata.get("tokenizer.chat_template"), metadata.get("general.license")
        return cls(
            config=config,
            tensors=tensors,
            has_tokenizer="tokenizer.ggml.tokens" in metadata,
            template=template if isinstance(template, str) else None,
            licence=licence if isinstance(licence, str) else None,
            stop_ids=config.eos_token_id,
            quantised=quantised,
        )


def _hash(path: Path) -> str:
    return digest_tokenizer(parse_object(read_bounded(path, MAX_TOKENIZER_BYTES), path)) if path.is_file() else ""


def _stop_ids(config: ModelConfig, generation: dict[str, Any]) -> tuple[int, ...]:
    given = generation.get("eos_token_id")
    more = given if isinstance(given, list) else [given]
    return tuple(dict.fromkeys([*config.eos_token_id, *(token for token in more if type(token) is int)]))


def _special_tokens(tokenizer: dict[str, Any]) -> dict[str, str]:
    tokens = {}
    for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = tokenizer.get(role)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            tokens[role] = text
    return tokens


def _parents(folder: Path) -> tuple[str, ...]:
    record = read_record(folder)
    return tuple(entry["path"] for entry in record.inputs.values()) if record else ()
