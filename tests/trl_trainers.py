"""TRL's trainers without their setup, and answers whose log-probabilities both sides are given."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bottega.train.log_probs import sum_by_document

LENGTH = 9  # the longest answer
Figures = dict[str, Tensor]


class Arguments(SimpleNamespace):
    """A trainer's arguments: what is not given is None."""

    def __getattr__(self, name: str) -> None:
        return None


def bare(trainer: type, **attributes: Any) -> Any:
    """A trainer of TRL that was not set up: what is not given is None."""
    accelerator = Arguments(
        device=torch.device("cpu"),
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
        num_processes=1,
        process_index=0,
    )
    found = object.__new__(type("Bare", (trainer,), {"__getattr__": lambda self, name: None}))
    vars(found).update(
        accelerator=accelerator,
        model=Arguments(training=True),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        **attributes,
    )
    return found


class Answers:
    """Log-probabilities of completion tokens, padded as TRL has them and flat as ours are."""

    def __init__(self, lengths: list[int], seed: int = 0, scale: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.count, self.lengths = len(lengths), torch.tensor(lengths)
        self.mask = (torch.arange(LENGTH) < self.lengths.unsqueeze(1)).long()
        values = -scale * torch.rand(self.count, LENGTH, generator=generator, dtype=torch.float64) * self.mask
        self.padded = values.requires_grad_()
        self.owners = torch.arange(self.count).repeat_interleave(self.lengths)

    def flat(self, padded: Tensor | None = None) -> Tensor:
        return (self.padded if padded is None else padded)[self.mask.bool()]

    def sums(self) -> Tensor:
        return sum_by_document(self.flat(), self.owners, self.count)

    def near(self, seed: int, width: float) -> Tensor:
        """Other log-probabilities of the same tokens, without gradient."""
        noise = torch.randn(self.padded.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (self.padded.detach() + width * noise) * self.mask

    def gradient(self, loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, self.padded)[0]


def assert_same(answers: Answers, ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    expected = answers.gradient(theirs)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(answers.gradient(ours), expected, rtol=1e-7, atol=1e-9)


def assert_figures(ours: Figures, metrics: dict[str, list[float]], names: dict[str, str]) -> None:
    for mine, theirs in names.items():
        assert metrics[theirs], theirs
        assert ours[mine].ndim == 1 and not ours[mine].requires_grad
        assert ours[mine].mean().item() == pytest.approx(metrics[theirs][-1], rel=1e-6, abs=1e-9), mine
