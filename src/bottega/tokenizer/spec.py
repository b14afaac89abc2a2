"""What a tokenizer is, for plans: read from its folder, or predicted before it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bottega.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenizerSpec:
    """Sizes and ids of a tokenizer; `hash` and `template_hash` are empty in a prediction.

    A predicted `vocab_size` is what was asked for: a small corpus can yield fewer tokens.
    """

    kind: ClassVar[str] = "tokenizer"
    vocab_size: int
    has_template: bool
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    stop_ids: frozenset[int]
    adds_bos: bool = False
    hash: str = ""
    template_hash: str = ""

    @classmethod
    def read(cls, path: Path) -> TokenizerSpec:
        """Read a tokenizer's or a model's folder; raises UserError if it has no usable tokenizer."""
        return cls.of(Tokenizer.load(path))

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenizerSpec:
        """The spec of a loaded tokenizer."""
        return cls(
            vocab_size=tokenizer.vocab_size,
            has_template=tokenizer.chat_template is not None,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            stop_ids=tokenizer.stop_ids,
            adds_bos=tokenizer.adds_bos,
            hash=tokenizer.hash,
            template_hash=tokenizer.template_hash,
        )
