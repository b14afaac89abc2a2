"""`nn.Linear` and `nn.Embedding` that do not draw their weights: `Decoder.initialise` does, or they are loaded.

Drawing them twice would take longer than loading them, and on the device "meta" it would import torch's compiler.
"""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """A linear layer whose weights are whatever the memory held."""

    def reset_parameters(self) -> None:
        """Leave them so."""


class Embedding(nn.Embedding):
    """An embedding whose weights are whatever the memory held."""

    def reset_parameters(self) -> None:
        """Leave them so."""
