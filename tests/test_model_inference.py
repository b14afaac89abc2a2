"""What `prepare_for_inference` replaces computes the same, one token at a time and for any number of sequences."""

from __future__ import annotations

import copy

import pytest
import torch

from bottega.checkpoint.config import ModelConfig
from bottega.generate.sampling import greedy
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder
from bottega.model.inference import BatchLinear, StepNorm, prepare_for_inference
from bottega.model.norm import RMSNorm

needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL")


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


@needs_mkl
@pytest.mark.parametrize("rows", range(1, 11))
def test_batch_linear_equals_linear(rows: int) -> None:
    layer = torch.nn.Linear(48, 80)
    fast = BatchLinear(layer.weight.detach(), layer.bias.detach())
    for x in (torch.randn(rows, 48), torch.randn(rows, 1, 48), torch.randn(rows, 3, 48)):
        with torch.no_grad():
            expected = layer(x)
            ours = fast(x)
        assert ours.shape == expected.shape
        assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (fast.packed is not None) == (4 <= rows <= 8)  # the second copy is made only where it serves


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 4])
def test_step_norm_equals_norm(dtype: torch.dtype, length: int) -> None:
    norm = RMSNorm(64, 1e-3).to(dtype)
    norm.weight.data = torch.randn(64).to(dtype)
    x = (0.1 * torch.randn(3, length, 64)).to(dtype)
    with torch.no_grad():
        expected, ours = norm(x).float(), StepNorm(norm)(x).float()
    assert (ours - expected).abs().max() <= (1e-6 if dtype == torch.float32 else 2**-7) * expected.abs().max()


def test_greedy_takes_the_first_of_equals() -> None:
    scores = torch.tensor([[0.0, 3.0, 3.0, 1.0], [2.0, 2.0, 2.0, 2.0], [-1.0, -3.0, -2.0, -1.0]])
    assert greedy(scores).tolist() == [1, 0, 0]
