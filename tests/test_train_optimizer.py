"""Muon against torch's own and against a singular value decomposition; the schedules; the guard."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import BottegaError
from bottega.model.decoder import Decoder
from bottega.train.guard import WARM, Guard
from bottega.train.optimizer import Muon, build_optimizers, orthogonalise
from bottega.train.optimizers.lion import Lion
from bottega.train.schedule import learning_rate_factor


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 48), (2, 48, 16)])
def test_orthogonalise_keeps_directions_and_evens_singular_values(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    result = orthogonalise(matrices)
    for before, after in zip(matrices, result, strict=True):
        left, _, right = torch.linalg.svd(before, full_matrices=False)
        values = torch.diagonal(left.T @ after @ right.T)
        rest = left.T @ after @ right.T - torch.diag(values)
        assert rest.abs().max() < 1e-4
        assert values.min() > 0.2 and values.max() < 1.3


def test_muon_equals_torchs_muon() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(20, 12), [torch.randn(20, 12) for _ in range(4)]
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.02, weight_decay=0.1)
    oracle = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        oracle.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved  # torch iterates in bfloat16, ours in float32


@pytest.mark.parametrize("at_once", [1, 2 * 8 * 6, 10**6])
def test_matrices_of_one_shape_do_not_mix(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.train.optimizer.STACKED_VALUES", at_once)
    torch.manual_seed(0)
    together = [torch.nn.Parameter(torch.randn(8, 6)) for _ in range(3)]
    apart = [torch.nn.Parameter(parameter.detach().clone()) for parameter in together]
    gradients = [torch.randn(8, 6) for _ in together]
    for group in (together, apart):
        for parameter, gradient in zip(group, gradients, strict=True):
            parameter.grad = gradient.clone()
    Muon(together, lr=0.1).step()
    for parameter in apart:
        Muon([parameter], lr=0.1).step()
    for one, other in zip(together, apart, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_has_one_optimizer_and_only_block_matrices_decay(name: str) -> None:
    config = ModelConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=32,
    )  # fmt: skip
    model = Decoder(config)
    optimizers = build_optimizers(model, name, learning_rate=1e-3, weight_decay=0.1, work_dtype=torch.float32)  # type: ignore[arg-type]
    held = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    decayed = {
        id(p) for optimizer in optimizers for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]
    }
    names = {key for key, parameter in model.named_parameters() if id(parameter) in decayed}
    assert names == {key for key, p in model.named_parameters() if p.ndim == 2 and ".layers." in key}


def test_schedules() -> None:
    def factors(kind: str) -> list[float]:
        return [
            learning_rate_factor(step, 100, kind, warmup=0.1, decay=0.2, floor=0.1)  # type: ignore[arg-type]
            for step in range(100)
        ]

    wsd, cosine, linear, constant = (factors(kind) for kind in ("wsd", "cosine", "linear", "constant"))
    assert wsd[0] == pytest.approx(0.1) and wsd[9] == wsd[80] == 1.0
    assert wsd[90] == pytest.approx(0.55) and wsd[99] == pytest.approx(0.1 + 0.9 / 20)
    assert cosine[55] == pytest.approx(0.55, abs=1e-9) and cosine[10] == 1.0
    assert linear[55] == pytest.approx(0.55)
    assert constant[10:] == [1.0] * 90
    for values in (wsd, cosine, linear):
        assert all(later <= earlier for earlier, later in itertools.pairwise(values[10:]))


def test_guard_skips_what_is_not_finite_and_spikes() -> None:
    guard = Guard(sigma=6.0, stop=False)
    for step in range(WARM):
        assert guard.accepts(step, 3.0 + 0.01 * (step % 3), 1.0)
    assert not guard.accepts(40, math.nan, 1.0)
    assert not guard.accepts(41, 3.0, math.inf)
    assert not guard.accepts(42, 9.0, 1.0)
    assert guard.accepts(43, 3.1, 1.0)
    assert guard.skipped == 3 and guard.in_a_row == 0 and math.nan not in guard.recent


def test_guard_stops_when_told_or_after_too_many() -> None:
    with pytest.raises(BottegaError, match="step 1: the loss is nan"):
        Guard(sigma=6.0, stop=True).accepts(1, math.nan, 1.0)
    guard = Guard(sigma=6.0, stop=False)
    with pytest.raises(BottegaError):
        for step in range(20):
            guard.accepts(step, math.nan, 1.0)
    assert guard.skipped == 10


def test_lion_is_the_paper_s_second_algorithm() -> None:
    draw = torch.Generator().manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(5, 3, generator=draw, dtype=torch.float64))
    optimizer, mine, momentum = Lion([weight], lr=0.01, weight_decay=0.1), weight.detach().clone(), torch.zeros(5, 3)
    for _ in range(4):
        gradient = torch.randn(5, 3, generator=draw, dtype=torch.float64)
        weight.grad = gradient.clone()
        optimizer.step()
        mine = mine - 0.01 * ((0.9 * momentum + 0.1 * gradient).sign() + 0.1 * mine)
        momentum = 0.99 * momentum + 0.01 * gradient
        torch.testing.assert_close(weight.detach(), mine, rtol=0, atol=1e-14)


def test_betas_reach_every_optimiser_that_has_them() -> None:
    for name in ("adamw", "adamw8bit", "lion"):
        model = torch.nn.Linear(4, 4)
        (found,) = build_optimizers(
            model, name, learning_rate=1e-3, weight_decay=0.0, work_dtype=torch.float32, betas=(0.8, 0.9)
        )
        assert all(group["betas"] == (0.8, 0.9) for group in found.param_groups)
