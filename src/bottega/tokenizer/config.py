"""Settings of the `tokenizer` verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bottega.core.schema import Config, Writes


class TrainTokenizer(Writes):
    """Train a byte-level BPE tokenizer on text."""

    data: Path
    """Text to learn from: a corpus folder, a folder of .txt, .md and .jsonl files, or one such file."""
    vocab_size: int | None = Field(default=None, ge=264, le=1_000_000)
    """Number of tokens, special ones and the 256 bytes included (default: what SIZE says)."""
    size: Literal["tiny", "small", "base"] | None = None
    """Take the vocabulary that fits a model of this size."""
    min_frequency: int = Field(default=2, ge=1)
    """Make no token of a pair that occurs more rarely than this."""
    max_bytes: int = Field(default=2**30, ge=1)
    """Learn from at most this much text; of more, an even sample is taken."""


class InspectTokenizer(Config):
    """Show how a tokenizer cuts a text, or what of a conversation is trained."""

    tokenizer: Path
    """Folder of a tokenizer or a model."""
    text: str | None = None
    """Text to cut into tokens."""
    file: Path | None = None
    """File with the text to cut into tokens."""
    messages: Path | None = None
    """JSON or JSONL file of conversations: shows the rendered prompt and which tokens are trained."""


class ConvertTokenizer(Writes):
    """Make a tokenizer folder of a vocabulary in another format."""

    source: Path
    """Vocabulary (SentencePiece, tiktoken, vocab.json with merges.txt, vocab.txt, llama2.c), or the folder it is in."""
    pattern: str | None = None
    """How a text is cut before merging, where the files do not tell: gpt2, cl100k, …, or a regular expression."""


class TokenizerStats(Config):
    """Statistics of a vocabulary, and how many tokens it needs for texts."""

    tokenizer: Path
    """Folder of a tokenizer or a model."""
    text: list[str] = []
    """Texts to measure on: FILE, FOLDER or NAME=FILE (default: a few sentences in several languages)."""
