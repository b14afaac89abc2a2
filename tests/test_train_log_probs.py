"""Chunked log-probabilities and entropies equal those of the full logits, in value and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bottega.train import loss as loss_module
from bottega.train.log_probs import linear_log_probs, linear_log_probs_and_entropy, sum_by_document

VOCAB = 50
HEADS = [(None, 1.0), (None, 0.7), (3.0, 1.0), (2.0, 1.7)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_VALUES", 16 * VOCAB)


def inputs(rows: int, *, trained_head: bool, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(rows, 12, dtype=dtype, generator=generator).requires_grad_()
    weight = torch.randn(VOCAB, 12, dtype=dtype, generator=generator).requires_grad_(trained_head)
    return hidden, weight, torch.randint(VOCAB, (rows,), generator=generator)


def plain(
    hidden: Tensor, weight: Tensor, targets: Tensor, cap: float | None, temperature: float
) -> tuple[Tensor, Tensor]:
    logits = hidden @ weight.T
    logits = (logits if cap is None else cap * torch.tanh(logits / cap)) / temperature
    log_p = logits.log_softmax(-1)
    return log_p.gather(1, targets.unsqueeze(1)).squeeze(1), -(log_p.exp() * log_p).sum(-1)


def gradients(value: Tensor, *tensors: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, [tensor for tensor in tensors if tensor.requires_grad]))


def assert_near(mine: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-12) -> None:
    assert len(mine) == len(theirs)
    for ours, expected in zip(mine, theirs, strict=True):
        assert (ours - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize(("cap", "temperature"), HEADS)
@pytest.mark.parametrize("rows", [1, 16, 17, 100])
def test_value_and_gradients_equal_those_of_the_full_logits(
    rows: int, cap: float | None, temperature: float, trained_head: bool
) -> None:
    hidden, weight, targets = inputs(rows, trained_head=trained_head)
    scale = torch.randn(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours = linear_log_probs(hidden, weight, targets, cap, temperature=temperature)
    expected, _ = plain(hidden, weight, targets, cap, temperature)
    assert_near([ours], [expected])
    assert_near(gradients((ours * scale).sum(), hidden, weight), gradients((expected * scale).sum(), hidden, weight))


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize(("cap", "temperature"), HEADS)
def test_the_entropy_can_be_trained_too(cap: float | None, temperature: float, trained_head: bool) -> None:
    hidden, weight, targets = inputs(37, trained_head=trained_head)
    scales = torch.randn(2, 37, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ours = linear_log_probs_and_entropy(hidden, weight, targets, cap, temperature=temperature, trains_entropy=True)
    expected = plain(hidden, weight, targets, cap, temperature)
    assert_near(list(ours), list(expected))
    mine, theirs = ((pair[0] * scales[0] + pair[1] * scales[1]).sum() for pair in (ours, expected))
    assert_near(gradients(mine, hidden, weight), gradients(theirs, hidden, weight))


@pytest.mark.parametrize("trained_head", [False, True])
def test_an_entropy_that_is_only_a_figure_has_no_gradient(trained_head: bool) -> None:
    hidden, weight, targets = inputs(20, trained_head=trained_head)
    log_probs, entropy = linear_log_probs_and_entropy(hidden, weight, targets)
    assert not entropy.requires_grad
    assert_near([entropy], [plain(hidden, weight, targets, None, 1.0)[1]])
    expected = linear_log_probs(hidden, weight, targets)
    assert torch.equal(log_probs, expected)
    assert_near(gradients(log_probs.sum(), hidden, weight), gradients(expected.sum(), hidden, weight))


@pytest.mark.parametrize("trained_head", [False, True])
def test_gradients_are_those_of_finite_differences(trained_head: bool) -> None:
    hidden, weight, targets = inputs(18, trained_head=trained_head)
    both = lambda h, w: linear_log_probs_and_entropy(h, w, targets, 4.0, temperature=0.8, trains_entropy=True)  # noqa: E731
    assert torch.autograd.gradcheck(both, (hidden, weight))
    assert torch.autograd.gradcheck(lambda h, w: linear_log_probs(h, w, targets, 4.0), (hidden, weight))


def test_bfloat16_states_give_float32_log_probabilities() -> None:
    hidden, weight, targets = inputs(64, trained_head=True, dtype=torch.float32)
    half = hidden.detach().bfloat16().requires_grad_()
    ours = linear_log_probs(half, weight, targets)
    assert ours.dtype == torch.float32
    # The products of bfloat16 are as they are; the softmax over them loses nothing more.
    logits = (half @ weight.bfloat16().T).float()
    assert torch.allclose(ours, logits.log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1), atol=1e-6)
    mine = gradients(ours.sum(), half, weight)
    theirs = gradients(plain(hidden, weight, targets, None, 1.0)[0].sum(), hidden, weight)
    assert mine[0].dtype == torch.bfloat16 and mine[1].dtype == torch.float32
    for got, expected in zip(mine, theirs, strict=True):
        assert (got - expected).norm() < 0.02 * expected.norm()
    frozen = linear_log_probs(half, weight.detach(), targets)
    assert (gradients(frozen.sum(), half)[0] - theirs[0]).norm() < 0.02 * theirs[0].norm()


def test_large_logits_do_not_overflow() -> None:
    hidden = torch.full((2, 4), 300.0, requires_grad=True)
    weight = torch.ones(8, 4) * torch.arange(8).unsqueeze(1)
    log_probs, entropy = linear_log_probs_and_entropy(hidden, weight, torch.tensor([7, 0]))
    log_probs.sum().backward()
    assert log_probs.tolist() == [0.0, -8400.0] and entropy.tolist() == [0.0, 0.0]
    assert hidden.grad is not None and torch.isfinite(hidden.grad).all()


@pytest.mark.parametrize("trained_head", [False, True])
def test_the_logits_of_all_rows_are_never_held(trained_head: bool) -> None:
    rows, chunk = 400, 16  # autograd's saved tensors and every intermediate of forward and backward
    hidden, weight, targets = inputs(rows, trained_head=trained_head)
    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            largest = max([largest, *(x.numel() for x in tree_leaves(result) if torch.is_tensor(x))])
            return result

    with Sizes():
        log_probs, _ = linear_log_probs_and_entropy(hidden, weight, targets)
        log_probs.sum().backward()
    assert largest == rows * hidden.shape[1] and chunk * VOCAB < largest < rows * VOCAB


def test_sums_by_document_skip_documents_that_own_nothing() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    sums = sum_by_document(values, torch.tensor([2, 0, 2, 3]), 5)
    assert sums.tolist() == [2.0, 0.0, 5.0, 8.0, 0.0]
    (sums * torch.arange(5)).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [2.0, 0.0, 2.0, 3.0]
