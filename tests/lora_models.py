"""Random bases of many families, and adapters on them that have moved away from where they began."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bottega.model.adapter_config import AdapterSettings
from bottega.model.decoder import Decoder
from bottega.model.load import load_decoder
from bottega.model.lora import adapter_parameters, add_adapter

transformers = pytest.importorskip("transformers")

LLAMA = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 4, "num_local_experts": 4,
    "num_experts_per_tok": 2,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2},
    "bloom": {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gemma2": {**LLAMA, "head_dim": 8},
    "gemma3_text": {**LLAMA, "head_dim": 8},
    **{family: {**LLAMA, **EXPERTS} for family in ("mixtral", "qwen2_moe", "qwen3_moe")},
}
TIED: dict[str, Any] = {"tie_word_embeddings": True}
IDS = torch.randint(97, (2, 20), generator=torch.Generator().manual_seed(3))


class Bases:
    """Random bases by family, each made once."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self.folders = folders
        self.made: dict[str, Path] = {}

    def __call__(self, family: str = "llama", **values: Any) -> Path:
        key = f"{family} {sorted(values.items())}"
        if key not in self.made:
            self.made[key] = self.folders.mktemp("base") / family
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(family, **{**SIZES.get(family, LLAMA), **values})
            model = transformers.AutoModelForCausalLM.from_config(config)
            for parameter in model.parameters():  # biases and norms too, and large enough to matter
                parameter.data += 0.05 * torch.randn_like(parameter)
            model.save_pretrained(self.made[key])
        return self.made[key]


def adapted(base: Path, seed: int = 1, **values: Any) -> Decoder:
    decoder = load_decoder(base)
    add_adapter(decoder, AdapterSettings.parse({"r": 4, **values}), torch.Generator().manual_seed(seed))
    return decoder


def shake(decoder: Decoder, name: str | None = None, seed: int = 2) -> None:
    """Move the adapter away from where it began."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(decoder, name).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def close(ours: Tensor, wanted: Tensor, limit: float = 1e-5) -> bool:
    return bool((ours - wanted).abs().max() <= limit * wanted.abs().max())
