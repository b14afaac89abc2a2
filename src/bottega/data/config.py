"""Settings of the verbs `data collect`, `data prepare` and `data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bottega.core.schema import Config, Seed, Writes


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


class ExampleOptions(Config):
    """How examples become tokens and a mask."""

    sections = {"train_on": "Examples"}

    train_on: Literal["assistant", "all", "last"] = "assistant"
    """Of a conversation: every turn of the assistant, all that anybody says, or the assistant's last turn."""
    train_on_eos: Literal["turn", "last", "none"] = "turn"
    """Train the token that ends every trained turn, the last one only, or none (a model that never learns to stop)."""
    ranked: Literal["best-worst", "all"] = "best-worst"
    """Of several ranked answers make one pair, or every pair of different scores."""
    tools: Literal["template", "text"] = "template"
    """Write tools and their calls as the chat template has it, or as JSON into the messages."""
    reasoning: Literal["template", "text", "drop"] = "template"
    """Write an answer's reasoning as the chat template has it, as text between <think> and </think>, or not at all."""


class PrepareData(ExampleOptions, Writes):
    """Turn documents, conversations or preferences into memory-mapped shards of token ids."""

    sections = {"data": "Data"}

    data: Path
    """Corpus folder, or any file or folder of documents (kind text) or of rows (every other kind)."""
    tokenizer: Path
    """Tokenizer folder, or a model folder that has one."""
    kind: Literal["text", "chat", "pairs", "labelled", "prompts"] = "text"
    """text: all of it; chat: answers; pairs: chosen and rejected; labelled: good or bad answers; prompts: to answer."""
    split: Literal["train", "heldout"] = "train"
    """Which side of a corpus folder to take (kind text only)."""
    shard_tokens: int = Field(default=2**26, ge=1024)
    """Start a new shard once one holds this many tokens."""


class CheckData(ExampleOptions):
    """Look at data before it is prepared: its format, what will be rejected and why, lengths, an example's mask."""

    sections = {"data": "Data"}

    data: Path
    """Corpus folder, or any file or folder of documents or of rows."""
    kind: Literal["text", "chat", "pairs", "labelled", "prompts"] | None = None
    """What it is to be used as, as in `data prepare` (default: what its format is made for)."""
    tokenizer: Path | None = None
    """Tokenizer folder, to count tokens and show the mask (default: characters are counted)."""
    model: Path | None = None
    """Model folder whose tokenizer to take."""
    row_length: int | None = Field(default=None, ge=2)
    """Tokens of the rows to train with, to count what would be cut or dropped."""
    rows: int | None = Field(default=None, ge=1)
    """Look at this many rows only (default: at all)."""
