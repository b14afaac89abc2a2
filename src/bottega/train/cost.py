"""What a training run takes in operations and time. Imports no torch.

A token costs 2 operations a weight to predict with, and 4 to learn from: 2 for the gradient of what goes into the
product, and 2 for that of the weight, which a frozen one has not. So, with N weights:

    6 N   everything is trained          + 2 N   activations are computed again (checkpointing)
    4 N   the base is frozen             + 2 N   a pass of the reference model, or of the weights that drew the answers
    2 N   a token of an answer

Attention's products, 2 · layers · width · context for the causal half, have no weights: three times that in any case.
The head works on the trained tokens alone.
"""

from __future__ import annotations

from typing import NamedTuple

from bottega.checkpoint.config import ModelConfig
from bottega.data.spec import TokensSpec
from bottega.train.config import POLICY_STAGES, REFERENCE_STAGES
from bottega.train.extent import Extent
from bottega.train.settings import Settings

# Share of the measured rate of matrix products that a training step reaches: EFFICIENCY for a wide
# model, half of it at HALF_WIDTH channels (docs/benchmarks.md). The rest goes to norms, softmax,
# rotation, and products too small to fill the machine.
EFFICIENCY, HALF_WIDTH = 0.75, 120
DRAWING = 0.25  # the same of a rollout, which reads all weights for a few answers at a time
STARTUP_SECONDS = 4.0


class Forward(NamedTuple):
    """Operations of a token on its way through the model: weights of the layers, attention, head."""

    body: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


def forward_flops(model: ModelConfig, extent: Extent) -> Forward:
    """Operations of a token of this run, on average."""
    parts = model.parameters_by_part()
    body = model.active_parameter_count() - parts["embedding"] - parts["head"]
    context = extent.document + (extent.cached and extent.cached - extent.document) / 2
    attention = 2.0 * model.num_hidden_layers * model.num_attention_heads * model.head_dim * context
    return Forward(2.0 * body, attention, 2.0 * model.vocab_size * model.hidden_size * extent.trained)


def run_flops(
    settings: Settings, model: ModelConfig, data: TokensSpec, extent: Extent, trainable: int, heldout: int = 0
) -> dict[str, float]:
    """Operations of a whole run by kind; `heldout` are the tokens of one measurement."""
    config, each = settings.config, forward_flops(model, extent)
    tokens = settings.steps * extent.step
    if config.adapter is None:
        training = 3 * each.total
    else:
        training = 2 * (each.body + each.head) + 3 * each.attention + 6 * trainable
    found = {"training": tokens * training}
    if config.checkpointing != "none":
        found["checkpointing"] = tokens * (each.body + each.attention)
    found["reference"] = each.total * _reference_tokens(settings, data, extent)
    if config.stage in POLICY_STAGES:
        found["rollouts"] = _rollout_flops(settings, model, extent)
    if config.heldout is not None and settings.steps:
        found["held-out"] = (settings.steps // config.evaluate_every + 1) * heldout * each.total
    return {name: value for name, value in found.items() if value}


def run_seconds(flops: dict[str, float], width: int, rate: float) -> float:
    """Seconds of a run at a measured rate of matrix products."""
    drawing = flops.get("rollouts", 0.0)
    return STARTUP_SECONDS + (sum(flops.values()) - drawing) / (efficiency(width) * rate) + drawing / (DRAWING * rate)


def efficiency(width: int) -> float:
    """Share of the machine's rate of matrix products that training a model of this width reaches."""
    return EFFICIENCY * width / (width + HALF_WIDTH)


def _reference_tokens(settings: Settings, data: TokensSpec, extent: Extent) -> float:
    """Tokens that pass without being trained, for what the loss holds them against."""
    config = settings.config
    if config.stage in POLICY_STAGES:
        passes = (config.kl_weight > 0) + (config.policy.updates > 1 or config.stage == "ppo")
        return passes * settings.steps / config.policy.updates * extent.step
    if config.stage not in REFERENCE_STAGES:
        return 0.0
    taken = settings.steps * settings.examples_per_step
    once = extent.step / settings.examples_per_step * min(taken, data.examples)
    if config.preference_loss != "kto":
        return once
    return 2 * once + settings.steps * extent.step  # its point of reference: other answers, in each step


def _rollout_flops(settings: Settings, model: ModelConfig, extent: Extent) -> float:
    config = settings.config
    prompts = settings.steps / config.policy.updates * settings.examples_per_step
    tokens = prompts * (extent.document + config.policy.group * config.policy.max_new_tokens)
    parts = model.parameters_by_part()
    weights = model.active_parameter_count() - (parts["embedding"] if parts["head"] else 0)
    return 2.0 * weights * tokens
