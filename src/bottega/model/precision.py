"""What a narrow precision costs: the KL divergence of a decoder's predictions from those it makes in float32.

bfloat16 keeps 8 bits of a number. Where `auto` chose it because the machine computes in it, the cost is measured on
a few hundred tokens and said once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bottega.model.decoder import Decoder

SAMPLE = """The kitchen was warm, and the bread had just come out of the oven. "Wait," said the baker, "it must rest for
ten minutes." Water boils at 100 degrees; 7 times 8 is 56. In 1905 a clerk in Bern wrote four papers.
def mean(values):
    return sum(values) / len(values)
"""


@torch.inference_mode()
def log_probabilities(decoder: Decoder, ids: Sequence[int], autocast: torch.dtype | None = None) -> Tensor:
    """ln p of the next token at every place, (T, V) float32; with `autocast`, products in that precision."""
    device = decoder.device
    with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
        logits = decoder(torch.tensor([list(ids)], device=device))
    return logits[0].float().log_softmax(-1)


def divergence(reference: Tensor, other: Tensor) -> float:
    """Mean over the places of KL(reference ‖ other), in nats; both (T, V) log-probabilities."""
    return float((reference.exp() * (reference - other)).sum(-1).clamp_min(0).mean())


def cost_line(nats: float) -> str:
    """For people."""
    return f"computing in bfloat16, which costs {nats:.2g} nats of KL against float32 (--dtype float32 avoids it)"
