"""What a stage is to the loop: the parts of each step, and the loss of a part.

The loop knows nothing else of pre-training, preferences or rewards: it sums the losses of a step's parts, divides
by the sum of their weights (trained tokens, pairs, answers: each stage says what its mean is over), and steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from bottega.model.decoder import Decoder
from bottega.train.batch import MicroBatch
from bottega.train.log_probs import linear_log_probs, sum_by_document
from bottega.train.parallel.ranks import Ranks

Figures = dict[str, tuple[float, float]]
"""What is told of a part: name → (sum, count), so that the figures of a step's parts add up to means."""


@dataclass(frozen=True)
class Machine:
    """Where the loop computes, and with which other processes.

    `peak_flops` is the measured rate of matrix products, for MFU; None if unknown.
    """

    device: torch.device
    dtype: torch.dtype
    peak_flops: float | None
    ranks: Ranks = field(default_factory=Ranks)


@dataclass(frozen=True)
class Part:
    """What passes through the model at once: a piece of one step.

    Attributes:
        batch: the documents, packed.
        weight: its share of what the step's loss is a mean over.
        extra: what the stage's loss needs beside the model's output: reference log-probabilities, advantages, …
    """

    batch: MicroBatch
    weight: float
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> Part:
        """The same on another device."""
        extra = {name: tensor.to(device, non_blocking=True) for name, tensor in self.extra.items()}
        return replace(self, batch=self.batch.to(device), extra=extra)


class Stage(Protocol):
    """A way of learning."""

    def parts(self, step: int) -> Sequence[Part]:
        """This process's parts of step `step` (from 0): a function of seed and step, and for answers of the weights."""
        ...

    def loss(self, part: Part) -> tuple[Tensor, Figures]:
        """The part's loss, summed over what `weight` counts, and its figures."""
        ...

    def about(self) -> Figures:
        """Figures of the step as a whole, behind `parts`."""
        ...

    def settled(self, step: int) -> bool:
        """Whether a run that goes on behind `step` steps needs nothing but weights and optimisers."""
        ...


class FixedData:
    """What is common to stages whose data are there before: their order follows from the step."""

    def about(self) -> Figures:
        """Nothing beside the figures of the parts."""
        return {}

    def settled(self, step: int) -> bool:  # noqa: ARG002
        """Always."""
        return True


class Forward:
    """Passes of the model that is trained, in the precision of the run."""

    def __init__(self, model: Decoder, machine: Machine) -> None:
        self.model, self.machine = model, machine

    def states(self, batch: MicroBatch) -> Tensor:
        """Hidden states from which `batch.targets` are predicted, (N, H)."""
        return self.hidden(batch)[batch.positions]

    def hidden(self, batch: MicroBatch) -> Tensor:
        """Hidden states of every token, (T, H), in the type that products are taken in."""
        dtype = self.machine.dtype
        with torch.autocast(self.machine.device.type, dtype, enabled=dtype != torch.float32):
            states = self.model.hidden(batch.input_ids, segments=batch.segments)[0]
        return states if dtype == torch.float32 else states.to(dtype)

    def log_probs(self, batch: MicroBatch, temperature: float = 1.0) -> Tensor:
        """Log-probability of each trained token, (N,) in at least float32."""
        states, cap = self.states(batch), self.model.config.switches.logit_cap
        head = self.model.lm_head.weight  # behind the pass: where weights are split it has gathered them
        return linear_log_probs(states, head, batch.targets, cap, temperature=temperature)

    def answer_log_probs(self, batch: MicroBatch) -> Tensor:
        """Log-probability of each document's trained tokens together, (D,)."""
        return sum_by_document(self.log_probs(batch), batch.owners, batch.documents)


def told(tensors: Mapping[str, Tensor]) -> Figures:
    """Figures of a loss, one a pair or answer each, as what the loop adds up; of what is not there (bad answers in a
    step of good ones) none, as its mean would not be 0."""
    return {name: (float(values.sum()), float(values.numel())) for name, values in tensors.items() if values.numel()}
