"""Logits equal transformers', from random weights; cached and packed passes equal whole ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bottega.checkpoint.config import ModelConfig
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder
from bottega.model.inference import PackedLinear, prepare_for_inference

transformers = pytest.importorskip("transformers")

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "grouped": {"num_key_value_heads": 2},
    "multi-head, untied": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "multi-query, biases": {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True},
    "wide heads, gelu": {"head_dim": 24, "hidden_act": "gelu", "num_key_value_heads": 2},
    "linear scaling": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    "llama 3 scaling": {"rope_parameters": {**LLAMA3, "rope_theta": 500000.0}},
}


def pair(variant: dict[str, Any], dtype: torch.dtype) -> tuple[Any, Decoder]:
    """transformers' model with random weights, and ours with the same."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
        **variant,
    }
    config = transformers.LlamaConfig(**settings)
    oracle = transformers.LlamaForCausalLM(config).to(dtype).eval()
    for parameter in oracle.parameters():
        if parameter.ndim == 1:  # norms and biases too must differ from their neutral values
            parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
    decoder = Decoder(ModelConfig.from_data(config.to_dict())).to(dtype).eval()
    decoder.load_state_dict(oracle.state_dict())
    return oracle, decoder


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_logits_equal_transformers(variant: str, dtype: torch.dtype, tolerance: float) -> None:
    oracle, decoder = pair(VARIANTS[variant], dtype)
    ids = torch.randint(97, (3, 60))
    with torch.no_grad():
        expected, ours = oracle(ids).logits, decoder(ids)
    assert (ours - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("steps", [[60], [1] * 60, [20, 1, 1, 30, 8]])
@pytest.mark.parametrize("variant", ["grouped", "multi-query, biases"])
def test_cached_decoding_equals_full_recomputation(variant: str, steps: list[int]) -> None:
    _, decoder = pair(VARIANTS[variant], torch.float64)
    ids = torch.randint(97, (2, 60))
    cache = KVCache(decoder.config, 2, 60, torch.float64)
    with torch.no_grad():
        parts = [decoder(part, cache=cache) for part in ids.split(steps, dim=1)]
        expected = decoder(ids)
    assert (torch.cat(parts, 1) - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("segments", [[9, 9, 9, 1, 4], [1, 30, 1], [32]])
def test_packed_documents_equal_documents_apart(segments: list[int]) -> None:
    _, decoder = pair(VARIANTS["grouped"], torch.float64)
    ids = torch.randint(97, (1, sum(segments)))
    packed = decoder(ids, segments=segments)
    apart = torch.cat([decoder(part) for part in ids.split(segments, dim=1)], dim=1)
    assert (packed - apart).abs().max() <= 1e-10 * apart.abs().max()


@pytest.mark.parametrize("variant", ["multi-head, untied", "multi-query, biases"])
def test_prepared_for_inference_computes_the_same(variant: str) -> None:
    _, decoder = pair(VARIANTS[variant], torch.float32)
    ids = torch.randint(97, (2, 40))
    with torch.no_grad():
        expected = decoder(ids)
        ours = prepare_for_inference(decoder)(ids)
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_packed_linear_equals_linear() -> None:
    layer = torch.nn.Linear(64, 48).to(torch.bfloat16)
    packed = PackedLinear(layer.weight.detach(), layer.bias.detach())
    for rows in (1, 2, 7, 64):
        x = torch.randn(rows, 64, dtype=torch.bfloat16)
        with torch.no_grad():
            expected = layer(x)
            assert (packed(x) - expected).abs().max() <= 2**-7 * expected.abs().max()


def test_cache_forks_and_rewinds() -> None:
    _, decoder = pair(VARIANTS["grouped"], torch.float64)
    context, choices = torch.randint(97, (1, 12)), torch.randint(97, (3, 5))
    cache = KVCache(decoder.config, 1, 20, torch.float64)
    with torch.no_grad():
        decoder(context, cache=cache)
        forked = decoder(choices, cache=cache.expand(3, capacity=17))
        expected = decoder(torch.cat((context.expand(3, -1), choices), dim=1))[:, 12:]
        assert torch.allclose(forked, expected, atol=1e-12)
        decoder(choices[:1], cache=cache)
        cache.rewind(12)
        again = decoder(choices[1:2], cache=cache)
    assert torch.allclose(again, expected[1:2], atol=1e-12)
