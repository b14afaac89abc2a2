"""What stands between the decoder's layers in a pass: for methods that compare early layers with the last one.

Hooks stand on the blocks only while such a pass runs; the normal path knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from bottega.model.decoder import Decoder


@contextmanager
def watched(decoder: Decoder, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """While open, each pass puts the hidden states in front of `layers` into the dictionary, (B, T, H) each.

    Layer 0 is the embedding, layer n what the first n blocks made of it; the last norm has not seen them.
    """
    found: dict[int, Tensor] = {}

    def keep(layer: int, inputs: tuple[Tensor, ...]) -> None:
        found[layer] = inputs[0]

    def hook(layer: int) -> None:
        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            keep(layer, inputs)

        stack.callback(decoder.model.layers[layer].register_forward_pre_hook(before).remove)

    with ExitStack() as stack:
        for layer in layers:
            hook(layer)
        yield found
