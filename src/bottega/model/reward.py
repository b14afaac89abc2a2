"""Reward models: a decoder with a linear head on the last token's hidden state, which gives a text one number.

On disk it is what transformers calls LlamaForSequenceClassification (and so for other families) with `num_labels` 1:
the decoder's tensors without an output layer, and `score.weight`, (1, H).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bottega.checkpoint.config import ModelConfig, places
from bottega.checkpoint.folder import place_tensors, read_model
from bottega.checkpoint.hub import locate
from bottega.checkpoint.layout import EMBEDDING
from bottega.core.errors import UserError
from bottega.model.decoder import Decoder
from bottega.model.linear import Linear
from bottega.model.load import stored_tensors, with_weights

SCORE = "score.weight"
PACK_TOKENS = 4096


def add_head(decoder: Decoder, name: str, generator: torch.Generator) -> None:
    """Give the decoder a head from hidden states to one number, as its part `name`, drawn from N(0, 1 / (H + 1))."""
    size = decoder.config.hidden_size
    head = Linear(size, 1, bias=False, device=decoder.device)
    with torch.no_grad():
        head.weight.copy_(torch.randn(1, size, generator=generator) / (size + 1) ** 0.5)
    decoder.add_module(name, head)


def reward_config(config: ModelConfig) -> ModelConfig:
    """The config with which the decoder of a reward model is read: it has no output layer of its own."""
    return replace(config, tie_word_embeddings=True)


def reward_tensors(config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a reward model's folder, from the decoder's parameters and `score.weight`."""
    return {**stored_tensors(reward_config(config), weights), SCORE: weights[SCORE]}


def reward_settings(architecture: str, pad_token_id: int | None) -> dict[str, Any]:
    """What `config.json` says beside the decoder's own; batches need a padding token in transformers."""
    name = architecture.replace("ForCausalLM", "").replace("LMHeadModel", "") + "ForSequenceClassification"
    return {
        "architectures": [name],
        "num_labels": 1,
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
        "tie_word_embeddings": True,
        **({"pad_token_id": pad_token_id} if pad_token_id is not None else {}),
    }


class RewardModel:
    """A reward model, ready to score texts."""

    def __init__(self, decoder: Decoder, score: Tensor) -> None:
        """`score`: (1, H)."""
        self.decoder, self.score = decoder, score

    @classmethod
    def load(cls, model: Path | str, *, device: str | torch.device = "cpu") -> RewardModel:
        """Read a folder, or `org/name` of the hub; raises UserError if it is no reward model."""
        path = locate(model)
        stored = read_model(path)
        config, tensors = reward_config(stored.config), dict(stored.tensors)
        score = tensors.pop(SCORE, None)
        if score is None or score.shape != (1, config.hidden_size):
            shape = "has none" if score is None else f"has one of shape {list(score.shape)}"
            raise UserError(
                f"{path} is no reward model: it needs {SCORE} of shape [1, {config.hidden_size}] and {shape}",
                hint="Train one: bottega train --stage reward.",
            )
        placed = place_tensors({name: tensor.info for name, tensor in tensors.items()}, config, path)
        with torch.device("meta"):
            decoder = Decoder(config)
        weights: dict[str, Tensor] = {}
        for place in places(config):
            parts = place.unpack(tensors[placed[place.name]].load())
            weights |= {name: part.to(device, torch.float32, copy=True).contiguous() for name, part in parts.items()}
        assert EMBEDDING in weights
        return cls(with_weights(decoder, weights), score.load().to(device, torch.float32))

    @property
    def context_length(self) -> int:
        """Most tokens of a text."""
        return self.decoder.config.context_length

    @torch.inference_mode()
    def scores(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """One number a text, from its last token, (B,) float32. Raises UserError if a text is empty or too long."""
        for ids in texts:
            if not 0 < len(ids) <= self.context_length:
                raise UserError(f"a text of {len(ids)} tokens cannot be scored: 1 to {self.context_length} can")
        found: list[Tensor] = []
        pack: list[Sequence[int]] = []
        for ids in texts:
            if pack and sum(map(len, pack)) + len(ids) > PACK_TOKENS:
                found.append(self._score(pack))
                pack = []
            pack.append(ids)
        return torch.cat([*found, self._score(pack)]) if pack else torch.empty(0)

    def _score(self, pack: Sequence[Sequence[int]]) -> Tensor:
        lengths = [len(ids) for ids in pack]
        row = torch.tensor([[id_ for ids in pack for id_ in ids]], device=self.decoder.device)
        hidden = self.decoder.hidden(row, segments=lengths)[0]
        ends = torch.tensor(lengths, device=hidden.device).cumsum(0) - 1
        return (hidden[ends] @ self.score.T)[:, 0].float().cpu()
