"""Gradient checkpointing: of every block only the input is kept, the rest is computed again in the backward pass.

Chen et al. 2016, "Training deep nets with sublinear memory cost" (arXiv:1604.06174): memory for a third more time.
The decoder itself knows nothing of it: the blocks' `forward` is wrapped from outside.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from bottega.core.errors import UserError
from bottega.model.attention import Sequences
from bottega.model.decoder import Block, Decoder

Checkpointing = Literal["none", "full", "offload"]


def checkpoint_blocks(decoder: Decoder, how: Checkpointing) -> None:
    """Set what the decoder's blocks keep for the backward pass; with "none" everything, as without a call.

        full      each block keeps its input, (B, T, H)
        offload   the inputs wait in the CPU's memory, pinned; for decoders on a GPU

    Passes without gradients, and those with a cache, are as before. Gradients are those of "none", to the bit where
    the arithmetic is the same each time; dropout draws the same numbers twice. Nothing has to require a gradient in
    front of the blocks (an adapter over frozen embeddings trains). Raises UserError for "offload" on a CPU.
    """
    if how == "offload" and decoder.device.type == "cpu":
        raise UserError(
            "checkpointing: offload moves activations from a GPU into the CPU's memory, and this model is on the CPU",
            hint="Use checkpointing: full.",
        )
    wrap_blocks(decoder, how)


def wrap_blocks(decoder: Decoder, how: Checkpointing) -> None:
    """`checkpoint_blocks` for any device."""
    for block in decoder.model.layers:
        assert isinstance(block, Block)
        vars(block).pop("forward", None)
        if how != "none":
            block.forward = partial(_recomputed, block.forward, how == "offload")


def _recomputed(forward: Any, offload: bool, x: Tensor, sequences: Sequences) -> Tensor:
    """A block's pass (B, T, H) → (B, T, H) that keeps `x` alone."""
    if not torch.is_grad_enabled() or sequences.cache is not None or sequences.step is not None:
        return forward(x, sequences)
    with _kept_on_cpu(x.device) if offload else nullcontext():
        return checkpoint(forward, x, sequences, use_reentrant=False)


def _kept_on_cpu(device: torch.device) -> AbstractContextManager[Any]:
    return save_on_cpu(pin_memory=device.type == "cuda", device_type=device.type)
