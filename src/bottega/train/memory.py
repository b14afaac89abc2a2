"""What training a decoder needs in memory, from its config alone. Imports no torch.

Weights, gradients and optimiser states are float32. Activations are counted as what autograd keeps
for the backward pass of one micro-batch (a test compares the count with the bytes it really keeps). When
the optimiser steps they are gone, and its workspace stands in their place: the peak is at the larger one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from bottega.checkpoint.config import ModelConfig, places
from bottega.core.plan import PROCESS_BYTES
from bottega.train.sizes import CHUNK_VALUES, STACKED_VALUES


@dataclass(frozen=True)
class TrainMemory:
    """Bytes by purpose."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    step: int
    """Workspace of the optimiser's step."""

    @property
    def total(self) -> int:
        """Peak of the process."""
        held = self.weights + self.gradients + self.optimizer
        return PROCESS_BYTES + held + max(self.activations + self.head, self.step)


def train_memory(config: ModelConfig, micro_batch_tokens: int, optimizer: str, dtype: str) -> TrainMemory:
    """Estimate for one process that trains all parameters."""
    parameters = config.parameter_count()
    parts = config.parameters_by_part()
    inside = parts["attention"] + parts["feed_forward"]
    states = 2 * parameters - (inside if optimizer == "muon" else 0)
    activations = saved_values_per_token(config) * micro_batch_tokens * (4 if dtype == "float32" else 3)
    head = 3 * 4 * CHUNK_VALUES + 4 * config.vocab_size * config.hidden_size
    step = muon_workspace(config, 4 if dtype == "float32" else 2) if optimizer == "muon" else 0
    return TrainMemory(4 * parameters, 4 * parameters, 4 * states, activations, head, step)


def muon_workspace(config: ModelConfig, item: int) -> int:
    """Bytes that Muon needs beside its states, at `item` bytes a value: its largest batch of matrices of one shape.

    The batch is there three times (directions, iterate, next iterate), and its products x·xᵀ twice.
    """
    # The decoder's matrices: what is stored transposed or as one tensor is trained as it computes.
    counts = Counter(
        shape
        for place in places(config)
        for name, shape in place.held_shapes().items()
        if ".layers." in name and len(shape) == 2
    )
    most = 0
    for (rows, columns), count in counts.items():
        at_once = min(count, max(1, STACKED_VALUES // (rows * columns)))
        most = max(most, at_once * (3 * rows * columns + 2 * min(rows, columns) ** 2))
    return item * most


def saved_values_per_token(config: ModelConfig) -> int:
    """Values that autograd keeps per token, all layers together."""
    hidden = config.hidden_size
    query = config.num_attention_heads * config.head_dim
    key = config.num_key_value_heads * config.head_dim
    norm = 2 * hidden  # the input and the product that the weight multiplies
    attention = hidden + query + 2 * key + query  # input of the projections, rotated q and k, v, output
    feed_forward = hidden + 4 * config.intermediate_size  # input, gate, act(gate), up, product
    return config.num_hidden_layers * (2 * norm + attention + feed_forward) + norm
