"""A decoder's hidden states with one block's weights in memory at a time.

For models that are being written or compared and would not fit as a whole: each block's tensors are read when its
turn comes and let go after it. All tokens pass through a block before the next one is read.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bottega.checkpoint.config import ModelConfig, places
from bottega.checkpoint.layout import EMBEDDING, HEAD, Place
from bottega.checkpoint.tensors import LazyTensor
from bottega.model.decoder import Decoder

BLOCK = "model.layers."


@torch.no_grad()
def streamed_hidden(config: ModelConfig, tensors: Mapping[str, LazyTensor], ids: Tensor) -> Tensor:
    """Normalised hidden states behind the last layer, (B, T, H) float32, of tokens (B, T), computed in float32.

    `tensors` are a folder's, by the names of the family's checkpoints.
    """
    with torch.device("meta"):
        decoder = Decoder(config)
    by_block: dict[str, list[Place]] = {}
    for place in places(config):
        by_block.setdefault(_block_of(place.holds[0][0]), []).append(place)
    for path, inside in by_block.items():
        if path:
            _reads_itself(decoder.get_submodule(path), f"{path}.", inside, tensors)
    state = _read([place for place in by_block[""] if place.holds[0][0] != HEAD], "", tensors)
    decoder.load_state_dict(state, assign=True, strict=False)
    decoder.activations = torch.float32
    return decoder.eval().hidden(ids)


def head_weight(config: ModelConfig, tensors: Mapping[str, LazyTensor]) -> LazyTensor:
    """The output layer's matrix (V, H), which may be the embedding's."""
    wanted = EMBEDDING if config.tie_word_embeddings else HEAD
    return next(tensors[place.name] for place in places(config) if place.holds[0][0] == wanted)


def _block_of(parameter: str) -> str:
    """`model.layers.3` of a block's parameter, "" of others."""
    rest = parameter.removeprefix(BLOCK)
    return "" if rest == parameter else BLOCK + rest.partition(".")[0]


def _reads_itself(block: nn.Module, prefix: str, inside: list[Place], tensors: Mapping[str, LazyTensor]) -> None:
    """Let a block read its tensors before it computes, and forget them afterwards."""
    empty = {name: tensor.to("meta") for name, tensor in block.state_dict().items()}

    def read(*_: object) -> None:
        block.load_state_dict(_read(inside, prefix, tensors), assign=True)

    def forget(*_: object) -> None:
        block.load_state_dict(empty, assign=True)

    block.register_forward_pre_hook(read)
    block.register_forward_hook(forget)


def _read(wanted: list[Place], prefix: str, tensors: Mapping[str, LazyTensor]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for place in wanted:
        parts = place.unpack(tensors[place.name].load().float())
        state |= {name.removeprefix(prefix): part.contiguous() for name, part in parts.items()}
    return state
