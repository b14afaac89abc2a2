"""Gradient checkpointing: the same gradients to the bit, and less kept."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.model.cache import KVCache
from bottega.model.checkpointing import Checkpointing, checkpoint_blocks, wrap_blocks
from bottega.model.decoder import Decoder
from bottega.model.linear import Linear
from bottega.model.quantised import quantise_base

SIZES: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
IDS = torch.randint(0, 61, (1, 40), generator=torch.Generator().manual_seed(0))


def small(model_type: str = "llama", **changes: Any) -> Decoder:
    config = ModelConfig.from_data({"model_type": model_type, **SIZES, **changes}, where="here")
    return Decoder(config).initialise(torch.Generator().manual_seed(0))


class Changed(nn.Module):
    """A layer and a trained change of low rank on its output, with dropout: what an adapter is."""

    def __init__(self, base: nn.Module, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base, self.down, self.up = base, Linear(inputs, 4, bias=False), Linear(4, outputs, bias=False)
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=0.3, generator=torch.Generator().manual_seed(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(nn.functional.dropout(x, 0.3)))


def with_changes(decoder: Decoder) -> Decoder:
    decoder.requires_grad_(False)
    for number in range(4):
        name = f"model.layers.{number}.mlp.down_proj"
        decoder.set_submodule(name, Changed(decoder.get_submodule(name), 96, 32))
    return decoder


def gradients(decoder: Decoder) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients by name, and the bytes that autograd kept between the passes."""
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(7)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = decoder.hidden(IDS, segments=[25, 15])
    hidden.square().sum().backward()
    found = {name: part.grad for name, part in decoder.named_parameters() if part.grad is not None}
    return found, sum(kept.values())


@pytest.mark.parametrize("how", ["full", "offload"])
@pytest.mark.parametrize("model", ["whole", "experts", "change", "quantised"])
def test_gradients_are_the_same(how: Checkpointing, model: str):
    decoder = small("mixtral", **EXPERTS) if model == "experts" else small()
    if model == "quantised":
        quantise_base(decoder, "nf4")
    if model in ("change", "quantised"):
        with_changes(decoder)
    other = copy.deepcopy(decoder)
    wrap_blocks(other, how)
    plain, kept = gradients(decoder)
    found, kept_less = gradients(other)
    assert len(found) >= 8 and found.keys() == plain.keys()
    assert all(torch.equal(found[name], gradient) for name, gradient in plain.items())
    inputs = 4 * 40 * 32 * 4  # of the blocks
    assert kept_less < inputs + 40 * 32 * 4 * 6  # and what the last norm keeps
    assert kept > 2 * kept_less


def test_none_takes_it_off():
    decoder = small()
    _, kept = gradients(decoder)
    checkpoint_blocks(decoder, "full")
    checkpoint_blocks(decoder, "full")
    assert gradients(decoder)[1] < kept
    twin = copy.deepcopy(decoder)
    twin.zero_grad()
    assert twin.state_dict().keys() == small().state_dict().keys() and len(gradients(twin)[0]) == 38
    checkpoint_blocks(decoder, "none")
    assert gradients(decoder)[1] == kept


def test_generating_is_as_before():
    decoder = small()
    expected = decoder(IDS)
    checkpoint_blocks(decoder, "full")
    cache = KVCache(decoder.config, 1, 40)
    parts = [decoder(IDS[:, :30], cache), decoder(IDS[:, 30:], cache)]  # gradients are on
    assert torch.allclose(torch.cat(parts, dim=1), expected, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(decoder(IDS), expected)


def test_offload_needs_a_gpu():
    with pytest.raises(UserError, match="this model is on the CPU"):
        checkpoint_blocks(small(), "offload")
