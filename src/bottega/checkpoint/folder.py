"""A model folder: config, weights (lazy), generation settings.

Folders whose weights others have quantised, and GGUF files, are read as plain ones: each weight is
dequantised when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from bottega.checkpoint.adapter import open_adapters
from bottega.checkpoint.config import CONFIG_FILE, ModelConfig, places, read_json, tensor_shapes
from bottega.checkpoint.families import Family
from bottega.checkpoint.gguf import GGUF_SUFFIX, gguf_description, gguf_files, open_gguf
from bottega.checkpoint.header import (
    LEGACY_INDEX,
    LEGACY_WEIGHTS,
    WEIGHTS,
    WEIGHTS_INDEX,
    TensorInfo,
    check_tensors,
    read_headers,
    shard_files,
)
from bottega.checkpoint.hub import locate
from bottega.checkpoint.quantised import dequantised, describe
from bottega.checkpoint.tensors import LazyTensor, load_legacy, map_tensors
from bottega.checkpoint.writer import GENERATION_FILE
from bottega.codec.gguf import read_gguf
from bottega.core.errors import UserError


@dataclass(frozen=True)
class ModelFolder:
    """An opened model folder. `tensors` has exactly the names and shapes of `tensor_shapes(config)`."""

    path: Path
    config: ModelConfig
    tensors: Mapping[str, LazyTensor]
    generation_config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, model: Path | str, adapters: Sequence[Path | str] = ()) -> Self:
        """Open a folder, or `org/name[@revision]` of the hub, with PEFT adapters on it; raises UserError.

        Reads headers only (and, where a tied output layer is stored as well, compares it).
        """
        path = locate(model)
        config, tensors = read_model(path)[:2]
        stored = place_tensors({name: tensor.info for name, tensor in tensors.items()}, config, path)
        if config.tie_word_embeddings:
            _require_equal_head(tensors, config.family, path)
        found = {name: tensors[place] for name, place in stored.items()}
        for adapter in open_adapters(adapters):
            found = adapter.applied(found, config)
        return cls(path, config, found, read_generation(path))


class StoredModel(NamedTuple):
    """What a folder or a GGUF file holds; `quantised` says how in a few words, "" if the weights are not.

    `metadata` are those of a GGUF file, which a folder has in files of their own.
    """

    config: ModelConfig
    tensors: dict[str, LazyTensor]
    quantised: str = ""
    metadata: Mapping[str, Any] = MappingProxyType({})


def read_model(path: Path) -> StoredModel:
    """Config and stored tensors, from headers; raises UserError."""
    if path.suffix == GGUF_SUFFIX:
        file = read_gguf(path)
        data, tensors = open_gguf(file)
        config = ModelConfig.from_data(data, where=str(path))
        return StoredModel(config, tensors, gguf_description(file), file.metadata)
    data = read_json(path / CONFIG_FILE)
    config, tensors = ModelConfig.from_data(data, where=str(path / CONFIG_FILE)), _open_tensors(path)
    quantization = data.get("quantization_config")
    if not quantization:
        return StoredModel(config, tensors)
    if any(place.form == "transposed" for place in places(config)):
        raise UserError(f"{path}: quantised {config.model_type} models are not supported", hint="Use the original one.")
    return StoredModel(config, dequantised(tensors, quantization, config.dtype), describe(quantization))


def place_tensors(infos: Mapping[str, TensorInfo], config: ModelConfig, path: Path) -> dict[str, str]:
    """Name of each tensor of the model → its name in the file; raises UserError if they do not fit `config`.

    Tied embeddings may be stored under the embedding's name, the output layer's, or both. Some
    writers put another prefix before the names, and old files hold a few tensors that nobody needs.
    """
    shapes, family = tensor_shapes(config), config.family
    stored = {family.proper_name(name): name for name in infos if not family.ignores(name)}
    if config.tie_word_embeddings and family.head in stored:
        if family.embedding in stored:
            del stored[family.head]
        else:
            stored[family.embedding] = stored.pop(family.head)
    hint = ""
    if family.head in shapes and family.head not in stored:
        hint = 'If the output layer is the embedding, "tie_word_embeddings" in config.json must be true.'
    check_tensors({name: infos[place] for name, place in stored.items()}, shapes, path, hint)
    return {name: stored[name] for name in shapes}


def read_generation(path: Path) -> dict[str, Any]:
    """`generation_config.json`, {} where there is none."""
    if not (path / GENERATION_FILE).is_file():
        return {}
    data = read_json(path / GENERATION_FILE)
    if not isinstance(data, dict):
        raise UserError(f"{path / GENERATION_FILE} is not a JSON object")
    return data


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights; raises UserError if there are none, or one is missing."""
    if path.suffix == GGUF_SUFFIX:
        return gguf_files(read_gguf(path))
    for single, index in ((WEIGHTS, WEIGHTS_INDEX), (LEGACY_WEIGHTS, LEGACY_INDEX)):
        if (path / single).exists():
            return [path / single]
        if (path / index).exists():
            return shard_files(path, path / index)
    raise UserError(f"{path} has no weights ({WEIGHTS}, {WEIGHTS_INDEX} or {LEGACY_WEIGHTS})")


def _open_tensors(path: Path) -> dict[str, LazyTensor]:
    files = weight_files(path)
    if files[0].suffix == ".bin":
        return load_legacy(files)
    return map_tensors(read_headers(path))


def _require_equal_head(tensors: Mapping[str, LazyTensor], family: Family, path: Path) -> None:
    """A tied output layer may be stored twice; two different ones would make the model ambiguous."""
    found = {family.proper_name(name): tensor for name, tensor in tensors.items()}
    if family.head not in found or family.embedding not in found:
        return
    import torch

    head, embedding = found[family.head], found[family.embedding]
    if head.dtype != embedding.dtype or not torch.equal(head.load(), embedding.load()):
        raise UserError(
            f"{path}: the config ties the output layer to the embedding, but a different {family.head} is stored",
            hint='Set "tie_word_embeddings" to false in config.json to use it, or take the tensor out.',
        )
