"""Positions: what rotary ones and linear biases promise, every scaling against transformers, caches across lengths."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.switches import Rope
from bottega.model.alibi import alibi_slopes
from bottega.model.attention import Rule, attend, visible
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder
from bottega.model.rope import inverse_frequencies, ntk_theta, rotate, rotation_table, yarn_temperature

transformers = pytest.importorskip("transformers")

ROPE = Rope(theta=10000.0, dim=16, trained_length=64)
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "yarn": {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 64},
    "yarn, its betas": {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "beta_fast": 16, "beta_slow": 2,
        "truncate": False,
    },
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "longrope": {
        "rope_type": "longrope", "short_factor": [1.0 + i / 10 for i in range(8)],
        "long_factor": [2.0 + i for i in range(8)], "original_max_position_embeddings": 32,
    },
}  # fmt: skip


def rotated(x: torch.Tensor, position: int, rope: Rope = ROPE) -> torch.Tensor:
    cos, sin = rotation_table(rope, position + 1)
    return rotate(x.view(1, 1, -1), cos[-1:], sin[-1:]).flatten()


@settings(max_examples=60, deadline=None)
@given(first=st.integers(0, 900), second=st.integers(0, 900), shift=st.integers(0, 900), seed=st.integers(0, 99))
def test_a_score_depends_on_the_distance_alone(first: int, second: int, shift: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(16, generator=generator), torch.randn(16, generator=generator)
    here = rotated(q, first) @ rotated(k, second)
    there = rotated(q, first + shift) @ rotated(k, second + shift)
    assert torch.allclose(here, there, atol=2e-3)  # float32 angles up to 1800 radians


@given(position=st.integers(0, 5000), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_turning_keeps_lengths_and_leaves_the_rest(position: int, seed: int) -> None:
    x = torch.randn(24, generator=torch.Generator().manual_seed(seed))
    turned = rotated(x, position)
    assert torch.allclose(turned.norm(), x.norm(), rtol=1e-5)
    assert torch.equal(turned[16:], x[16:])  # of 24 channels 16 are turned
    assert torch.equal(rotated(x, 0), x)


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("length", [20, 64, 200])
def test_angles_equal_transformers(name: str, length: int) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = SCALINGS[name]
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=4, head_dim=16, max_position_embeddings=64,
        rope_parameters={**scaling, "rope_theta": 10000.0},
    )  # fmt: skip
    asked = torch.tensor(length) if name == "dynamic" else length
    theirs, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, torch.device("cpu"), seq_len=asked)
    ours, temperature = inverse_frequencies(Rope(theta=10000.0, dim=16, trained_length=64, scaling=scaling), length)
    assert torch.equal(ours, theirs) and temperature == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("name", ["linear", "yarn", "yarn, its betas", "longrope"])
def test_a_factor_of_one_changes_nothing(name: str) -> None:
    ones = {"factor": 1.0, "short_factor": [1.0] * 8, "long_factor": [1.0] * 8, "original_max_position_embeddings": 64}
    scaling = {key: ones.get(key, value) for key, value in SCALINGS[name].items()}
    ours, temperature = inverse_frequencies(Rope(theta=10000.0, dim=16, trained_length=64, scaling=scaling), 200)
    assert torch.allclose(ours, inverse_frequencies(ROPE)[0], rtol=1e-6) and temperature == 1.0


def test_ntk_slows_the_slowest_pair_by_the_factor_and_the_fastest_not_at_all() -> None:
    plain, _ = inverse_frequencies(ROPE)
    slowed, _ = inverse_frequencies(Rope(theta=ntk_theta(10000.0, 4.0, 16), dim=16, trained_length=64))
    assert slowed[0] == plain[0]
    assert slowed[-1] * 4 == pytest.approx(float(plain[-1]), rel=1e-5)


def test_yarns_temperature_is_the_papers() -> None:
    assert yarn_temperature({"factor": 16.0}) == pytest.approx(1.2772588722239782)  # 0.1 ln 16 + 1
    assert yarn_temperature({"factor": 0.5}) == 1.0
    assert yarn_temperature({"factor": 16.0, "attention_factor": 1.7}) == 1.7


@pytest.mark.parametrize("heads", [1, 2, 4, 6, 8, 12, 16])
def test_slopes_are_the_papers(heads: int) -> None:
    slopes = alibi_slopes(heads)
    assert len(slopes) == heads and (slopes > 0).all() and (slopes <= 1).all()
    if heads == 8:
        assert torch.allclose(slopes, torch.tensor([2.0**-i for i in range(1, 9)]))
    if heads == 16:
        assert torch.allclose(slopes, torch.tensor([2.0 ** (-i / 2) for i in range(1, 17)]))


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: Rule, padding: list[int]) -> torch.Tensor:
    """Attention by its definition, query by query."""
    batch, length, heads, _ = q.shape
    seen, group = k.shape[2], heads // k.shape[1]
    out = torch.zeros_like(q)
    for b in range(batch):
        for h in range(heads):
            for t in range(length):
                place = seen - length + t
                first = max(padding[b], 0 if rule.window is None else place - rule.window + 1)
                keys = range(min(first, place), place + 1) if first <= place else [place]
                scores = []
                for s in keys:
                    score = float(q[b, t, h] @ k[b, h // group, s]) * rule.scale
                    score = score if rule.cap is None else rule.cap * math.tanh(score / rule.cap)
                    scores.append(score - (0.0 if rule.slopes is None else float(rule.slopes[h]) * (place - s)))
                weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
                out[b, t, h] = sum(w * v[b, h // group, s] for w, s in zip(weights, keys, strict=True))
    return out


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 6), past=st.integers(0, 6), window=st.one_of(st.none(), st.integers(1, 8)),
    cap=st.sampled_from([None, 2.0]), biased=st.booleans(), padded=st.booleans(), seed=st.integers(0, 999),
)  # fmt: skip
def test_attention_is_what_its_rule_says(
    length: int, past: int, window: int | None, cap: float | None, biased: bool, padded: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    q, k, v = draw(2, length, 4, 8), draw(2, 2, past + length, 8), draw(2, 2, past + length, 8)
    rule = Rule(0.3, window, cap, alibi_slopes(4) if biased else None)
    padding = [min(2, past), 0] if padded else [0, 0]
    ours = attend(q, k, v, rule, torch.tensor(padding) if padded else None)
    real = torch.arange(past, past + length) >= torch.tensor(padding).unsqueeze(1)
    assert torch.allclose(ours[real], reference(q, k, v, rule, padding)[real], atol=1e-6 if biased else 1e-12)


def test_what_is_visible() -> None:
    window = visible(3, 5, 2, None, torch.device("cpu"))
    assert window.int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]


def config(**values: Any) -> ModelConfig:
    sizes = {
        "model_type": "llama", "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 32, "initializer_range": 0.2,
    }  # fmt: skip
    return ModelConfig.from_data({**sizes, **values})


LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [3.0] * 8}


@pytest.mark.parametrize(
    "values",
    [
        {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
        {"max_position_embeddings": 128, "rope_scaling": {**LONGROPE, "original_max_position_embeddings": 32}},
    ],
    ids=["dynamic", "longrope"],
)
def test_a_cache_keeps_one_set_of_angles_across_the_old_context(values: dict[str, Any]) -> None:
    """Angles that adapt to the length are those of the cache's capacity from the first token on."""
    decoder = Decoder(config(**values)).initialise(torch.Generator().manual_seed(0)).double()
    ids = torch.randint(61, (1, 60))
    cache = KVCache(decoder.config, 1, 60, torch.float64)
    with torch.no_grad():
        parts = [decoder(part, cache=cache) for part in ids.split([20, *[1] * 40], dim=1)]
        assert torch.allclose(torch.cat(parts, 1), decoder(ids), atol=1e-10)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 32),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, 128),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}, 128),
        ({"max_position_embeddings": 96, "rope_scaling": {"rope_type": "linear", "factor": 3.0}}, 96),
    ],
)
def test_the_context_is_what_positions_reach(values: dict[str, Any], expected: int) -> None:
    assert config(**values).context_length == expected


def test_angles_that_were_kept_in_inference_serve_training() -> None:
    decoder = Decoder(config()).initialise(torch.Generator().manual_seed(0))
    ids = torch.arange(3, 23).unsqueeze(0)
    with torch.inference_mode():
        decoder(ids)
    decoder.requires_grad_(True)
    decoder(ids).sum().backward()
    assert decoder.model.embed_tokens.weight.grad is not None
