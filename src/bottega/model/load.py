"""From a model folder to a decoder with its weights."""

from __future__ import annotations

from pathlib import Path

import torch

from bottega.checkpoint.folder import ModelFolder
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
    state = {}
    for name in decoder.state_dict():
        if name == "lm_head.weight" and folder.config.tie_word_embeddings:
            continue
        # A copy: the weights must not change when the file does, nor the file when they do.
        state[name] = folder.tensors[name].load().to(device=device, dtype=dtype, copy=True)
    if folder.config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    decoder.load_state_dict(state, assign=True)
    if folder.config.tie_word_embeddings:
        decoder.lm_head.weight = decoder.model.embed_tokens.weight
    return decoder.eval()
