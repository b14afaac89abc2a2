"""What training a decoder needs in memory, from its config alone. Imports no torch.

Weights, gradients and optimiser states are float32. Activations are counted as what autograd keeps
for the backward pass of one micro-batch (a test compares the count with the bytes it really keeps).
"""

from __future__ import annotations

from dataclasses import dataclass

from bottega.checkpoint.config import ModelConfig
from bottega.core.plan import PROCESS_BYTES
from bottega.train.sizes import CHUNK_VALUES


@dataclass(frozen=True)
class TrainMemory:
    """Bytes by purpose."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int

    @property
    def total(self) -> int:
        """Peak of the process."""
        return PROCESS_BYTES + self.weights + self.gradients + self.optimizer + self.activations + self.head


def train_memory(config: ModelConfig, micro_batch_tokens: int, optimizer: str, dtype: str) -> TrainMemory:
    """Estimate for one process that trains all parameters."""
    parameters = config.parameter_count()
    parts = config.parameters_by_part()
    inside = parts["attention"] + parts["feed_forward"]
    states = 2 * parameters - (inside if optimizer == "muon" else 0)
    activations = saved_values_per_token(config) * micro_batch_tokens * (4 if dtype == "float32" else 3)
    head = 3 * 4 * CHUNK_VALUES + 4 * config.vocab_size * config.hidden_size
    return TrainMemory(4 * parameters, 4 * parameters, 4 * states, activations, head)


def saved_values_per_token(config: ModelConfig) -> int:
    """Values that autograd keeps per token, all layers together."""
    hidden = config.hidden_size
    query = config.num_attention_heads * config.head_dim
    key = config.num_key_value_heads * config.head_dim
    norm = 2 * hidden  # the input and the product that the weight multiplies
    attention = hidden + query + 2 * key + query  # input of the projections, rotated q and k, v, output
    feed_forward = hidden + 4 * config.intermediate_size  # input, gate, act(gate), up, product
    return config.num_hidden_layers * (2 * norm + attention + feed_forward) + norm
