"""Models of a few tokens for tests of searches: by transformers, and the same by us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bottega.checkpoint.folder import ModelFolder
from bottega.model.decoder import Decoder
from bottega.model.load import load_decoder

PROMPT = [3, 1, 4, 1]


def oracle_model(vocabulary: int, spread: float, seed: int = 0) -> Any:
    """Four random layers of Llama's architecture."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=spread, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def ours(oracle: Any, folder: Path) -> Decoder:
    """The same model, read from what transformers wrote."""
    oracle.save_pretrained(folder)
    return load_decoder(ModelFolder.open(folder)).eval()
