"""The chunked loss equals the plain one, in value and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bottega.train import loss as loss_module
from bottega.train.loss import linear_cross_entropy


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_VALUES", 16 * 50)


def inputs(rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    hidden = torch.randn(rows, 12, dtype=dtype, requires_grad=True)
    weight = torch.randn(50, 12, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(50, (rows,))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 100])
def test_value_and_gradients_equal_the_plain_loss(rows: int) -> None:
    hidden, weight, targets = inputs(rows, torch.float64)
    ours = linear_cross_entropy(hidden, weight, targets)
    (ours * 0.37).backward()
    got = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    (expected * 0.37).backward()
    assert torch.allclose(ours, expected, rtol=1e-12)
    for mine, theirs in zip(got, (hidden.grad, weight.grad), strict=True):
        assert mine is not None and theirs is not None
        assert (mine - theirs).abs().max() <= 1e-12 * theirs.abs().max()


@pytest.mark.usefixtures("small_chunks")
def test_without_gradients_the_value_is_the_same() -> None:
    hidden, weight, targets = inputs(40, torch.float64)
    with torch.no_grad():
        assert torch.equal(linear_cross_entropy(hidden, weight, targets), linear_cross_entropy(hidden, weight, targets))
        plain = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
        assert torch.allclose(linear_cross_entropy(hidden, weight, targets), plain, rtol=1e-12)


@pytest.mark.usefixtures("small_chunks")
def test_bfloat16_products_accumulate_in_the_master_weights_precision() -> None:
    hidden, weight, targets = inputs(64, torch.float32)
    linear_cross_entropy(hidden.bfloat16(), weight, targets).backward()
    got = weight.grad
    weight.grad = None
    F.cross_entropy(hidden @ weight.T, targets, reduction="sum").backward()
    assert got is not None and weight.grad is not None
    assert got.dtype == torch.float32
    assert (got - weight.grad).norm() < 0.02 * weight.grad.norm()


def test_large_logits_do_not_overflow() -> None:
    hidden = torch.full((2, 4), 300.0, requires_grad=True)
    weight = torch.ones(8, 4) * torch.arange(8).unsqueeze(1)
    value = linear_cross_entropy(hidden, weight, torch.tensor([7, 7]))
    value.backward()
    assert value.item() == 0.0 and torch.isfinite(hidden.grad).all()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_is_frozen_gets_no_gradient_and_costs_no_memory(frozen: str) -> None:
    hidden, weight, targets = inputs(40, torch.float64)
    both = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), (hidden, weight))
    (hidden if frozen == "hidden" else weight).requires_grad_(False)
    trained = weight if frozen == "hidden" else hidden
    saved: list[tuple[int, ...]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = linear_cross_entropy(hidden, weight, targets)
    (gradient,) = torch.autograd.grad(loss, (trained,))
    assert torch.equal(gradient, both[frozen == "hidden"])
    assert saved == [tuple(trained.shape)]
