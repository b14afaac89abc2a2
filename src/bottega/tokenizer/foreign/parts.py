"""The parts of a `tokenizer.json` that a vocabulary decides; `assemble` adds what the files beside it say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bottega.tokenizer.foreign.companions import AddedToken


@dataclass
class Parts:
    """Model, steps before and after it, tokens found first; `notes` say where the ids can differ from the source's.

    `names` maps `bos_token` and the like to their text, as far as the vocabulary itself says.
    """

    model: dict[str, Any]
    normalizer: dict[str, Any] | None
    pre_tokenizer: dict[str, Any] | None
    decoder: dict[str, Any]
    added: list[AddedToken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    post_processor: dict[str, Any] | None = None
    """Of a kind of tokenizer that has its own; else BOS and EOS, as the files beside it say."""

    def vocabulary(self) -> Mapping[str, int]:
        """Token → id of the model."""
        vocab = self.model["vocab"]
        return vocab if isinstance(vocab, dict) else {piece: index for index, (piece, _) in enumerate(vocab)}
