"""What `prepare_for_inference` replaces computes the same, one token at a time and for any number of sequences."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from bottega.checkpoint.config import ModelConfig
from bottega.generate.sampling import greedy
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder
from bottega.model.inference import PackedLinear, prepare_for_inference
from bottega.model.kernels.packing import pack, unpack


def random_decoder(*, bias: bool) -> Decoder:
    config = ModelConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=True, attention_bias=bias, mlp_bias=bias, initializer_range=0.2, dtype="float32",
    )  # fmt: skip
    torch.manual_seed(0)
    decoder = Decoder(config).initialise(torch.Generator().manual_seed(0)).eval()
    for parameter in decoder.parameters():
        if parameter.ndim == 1:  # norms and biases must differ from their neutral values
            parameter.data += 0.1 * torch.randn_like(parameter)
    return decoder


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 4, 5, 8, 9])
def test_prepared_decoding_equals_plain(batch: int, bias: bool) -> None:
    plain = random_decoder(bias=bias)
    prepared = prepare_for_inference(copy.deepcopy(plain))
    ids = torch.randint(97, (batch, 20))
    cache = KVCache(plain.config, batch, 20)
    with torch.no_grad():
        parts = [prepared(part, cache=cache) for part in ids.split([6, *[1] * 14], dim=1)]
        expected = plain(ids)
    assert (torch.cat(parts, 1) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_narrow_weights_are_the_only_thing_that_is_narrow(weights: Any) -> None:
    plain = random_decoder(bias=True)
    prepared = prepare_for_inference(copy.deepcopy(plain), weights)
    rounded = copy.deepcopy(plain)
    for module in rounded.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight = torch.nn.Parameter(unpack(pack(module.weight.detach(), weights)))
    ids = torch.randint(97, (2, 20))
    with torch.no_grad():
        expected, ours = rounded(ids), prepared(ids)
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_lone_row_is_multiplied_as_one_of_many(rows: int) -> None:
    layer = PackedLinear(torch.randn(80, 48).bfloat16(), torch.randn(80).bfloat16())
    x = torch.randn(1, 9, 48).bfloat16()
    assert torch.equal(layer(x[:, :rows]), layer(x)[:, :rows])


def test_greedy_takes_the_first_of_equals() -> None:
    scores = torch.tensor([[0.0, 3.0, 3.0, 1.0], [2.0, 2.0, 2.0, 2.0], [-1.0, -3.0, -2.0, -1.0]])
    assert greedy(scores).tolist() == [1, 0, 0]
