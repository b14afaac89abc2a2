"""From a model folder to a decoder with its weights, and from a decoder to the tensors of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bottega.checkpoint.config import ModelConfig, places
from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.layout import EMBEDDING, HEAD
from bottega.model.decoder import Decoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def load_decoder(
    source: ModelFolder | Path | str, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Decoder:
    """Read the weights, one tensor at a time, converted to `dtype` on `device`.

    Raises UserError if the folder is no model, or its tensors are not those its config asks for.
    """
    folder = source if isinstance(source, ModelFolder) else ModelFolder.open(source)
    with torch.device("meta"):
        decoder = Decoder(folder.config)
    state: dict[str, Tensor] = {}
    for place in places(folder.config):
        parts = place.unpack(folder.tensors[place.name].load())
        # A copy: the weights must not change when the file does, nor the file when they do.
        state |= {
            name: part.to(device=device, dtype=dtype, copy=True, memory_format=torch.contiguous_format)
            for name, part in parts.items()
        }
    return with_weights(decoder, state)


def with_weights(decoder: Decoder, state: Mapping[str, Tensor]) -> Decoder:
    """The decoder (made on the device "meta") with these parameters as its own; returns itself, in eval mode."""
    tied = {HEAD: state[EMBEDDING]} if decoder.config.tie_word_embeddings else {}
    decoder.load_state_dict({**state, **tied}, assign=True)
    if tied:
        decoder.lm_head.weight = decoder.model.embed_tokens.weight
    return decoder.eval()


def stored_tensors(config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A folder's tensors, by the names of the family's checkpoints, from the decoder's parameters."""
    return {place.name: place.pack(weights) for place in places(config)}
