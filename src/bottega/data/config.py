"""Settings of the verbs `data collect` and `data prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bottega.core.schema import Seed, Writes


class CollectData(Writes):
    """Read documents and make a corpus folder: training text, held-out text, conversations, questions."""

    source: str = "python"
    """'python' (the documentation and sources of this Python's standard library), or a file or folder of documents."""
    held_out: float = Field(default=0.08, gt=0.0, lt=0.5)
    """Share of the bytes kept apart to measure with; never more than 16 MiB."""
    seed: Seed = 0
    """Decides what is held out, how questions are phrased and which wrong answers they offer."""
    questions: int = Field(default=300, ge=0)
    """At most this many multiple-choice questions about seen things, and as many about unseen ones."""


class PrepareData(Writes):
    """Turn documents or conversations into memory-mapped shards of token ids."""

    data: Path
    """Corpus folder, or any file or folder of documents (kind text) or of conversations (kind chat)."""
    tokenizer: Path
    """Tokenizer folder, or a model folder that has one."""
    kind: Literal["text", "chat"] = "text"
    """'text' trains on every token, 'chat' only on what the assistant says."""
    split: Literal["train", "heldout"] = "train"
    """Which side of a corpus folder to take (kind text only)."""
    shard_tokens: int = Field(default=2**26, ge=1024)
    """Start a new shard once one holds this many tokens."""
