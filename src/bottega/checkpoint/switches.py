"""What tells one family of decoders from another: switches, with Llama's values as defaults.

A family (`families.py`) sets them from its `config.json`; the decoder (`bottega.model`) reads them and
nothing else, so that another family is other values, not other code. Sources stand beside each switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Norm = Literal["rms", "rms_wide", "rms_offset", "layer"]
Placement = Literal["before", "after", "both"]
Positions = Literal["rotary", "learned", "alibi"]


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions (Su et al. 2021, arXiv:2104.09864) of some of the layers.

    The first `dim` channels of a head are turned, by angles that `theta` and `scaling` (a mapping with
    `rope_type`, None for the plain ones) decide; `trained_length` is the config's max_position_embeddings.
    """

    theta: float
    dim: int
    trained_length: int
    scaling: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Experts:
    """A mixture of experts (Shazeer et al. 2017, arXiv:1701.06538) in place of the feed-forward layer."""

    count: int
    per_token: int
    intermediate_size: int
    normalised: bool
    """Whether the weights of the chosen experts are made to sum to one."""
    shared_intermediate_size: int = 0
    """Width of an expert that every token passes, behind a gate of its own; 0 for none."""
    sparse: tuple[bool, ...] = ()
    """Which layers have experts; the others have a plain feed-forward layer."""


@dataclass(frozen=True, kw_only=True)
class Switches:
    """One family's choices. Tuples have an entry per layer."""

    norm: Norm = "rms"
    """rms (Zhang & Sennrich 2019); rms_wide multiplies by the weight before it narrows to the model's precision
    (OLMo 2); rms_offset so too, by 1 + weight (Gemma); layer is LayerNorm (Ba et al. 2016)."""
    placement: Placement = "before"
    """Norms before attention and feed-forward, after them (OLMo 2), or both (Gemma 2)."""
    parallel: bool = False
    """Attention and feed-forward read the same input and are added together (GPT-J, GPT-NeoX)."""

    positions: Positions = "rotary"
    """Rotary, a learned table (GPT-2), or linear biases on the scores (ALiBi: Press et al. 2021, arXiv:2108.12409)."""
    ropes: Mapping[str, Rope] = field(default_factory=dict)
    """Kinds of rotary positions by name: "global", and "local" where layers with a window have their own."""
    layer_ropes: tuple[str | None, ...] = ()
    """The kind of each layer; None for a layer without positions (NoPE: Kazemnejad et al. 2023, arXiv:2305.19466)."""
    windows: tuple[int | None, ...] = ()
    """How many tokens, itself included, a layer's token sees (Beltagy et al. 2020, arXiv:2004.05150); None: all."""

    query_key_norm: Literal["none", "head", "whole"] = "none"
    """A norm on queries and keys (Dehghani et al. 2023, arXiv:2302.05442): over each head, or over all at once."""
    score_scale: float | None = None
    """Factor on the scores (None: head_dim^-½)."""
    score_cap: float | None = None
    """Scores s become c·tanh(s / c) (Gemma 2)."""
    logit_cap: float | None = None
    """So do the logits."""
    query_bias: bool = False
    """Biases on the projections to queries, keys and values …"""
    output_bias: bool = False
    """… on the projection back …"""
    mlp_bias: bool = False
    """… and in the feed-forward layer."""

    gated: bool = True
    """Gated feed-forward (Shazeer 2020), or two plain layers (GPT-2)."""
    experts: Experts | None = None

    embedding_scale: float | None = None
    """Factor on the embedding (Gemma: √hidden_size)."""
    embedding_norm: bool = False
    """A norm behind the embedding (BLOOM)."""

    def flags(self, layer: int | None = None) -> frozenset[str]:
        """What `TensorRow.when` may ask for: of the model, or of one layer."""
        sparse = layer is not None and self.experts is not None and self.experts.sparse[layer]
        present = {
            "query_bias": self.query_bias,
            "output_bias": self.output_bias,
            "mlp_bias": self.mlp_bias,
            "norm_before": self.placement != "after",
            "norm_after": self.placement != "before",
            "norm_both": self.placement == "both",
            "head_norm": self.query_key_norm == "head",
            "whole_norm": self.query_key_norm == "whole",
            "sparse": sparse,
            "dense": not sparse,
            "shared": sparse and self.experts is not None and self.experts.shared_intermediate_size > 0,
        }
        return frozenset(name for name, value in present.items() if value)
