"""What the tests of damaged vocabularies share: a small valid model, ways to damage it, and how it is opened."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.tokenizer.files import files_of
from bottega.tokenizer.foreign.assemble import Converted
from bottega.tokenizer.foreign.source import convert
from bottega.tokenizer.tokenizer import Tokenizer
from tokenizer_texts import sentencepiece_bytes

BYTES = [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
PIECES: list[tuple[str, float, int]] = [
    ("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *BYTES, ("\u2581", -1.0, 1), ("a", -2.0, 1), ("b", -3.0, 1),
    ("ab", -0.5, 1), ("<x>", 0.0, 4),
]  # fmt: skip
MODEL = sentencepiece_bytes(PIECES)
SECONDS = 10.0
MODES = [
    pytest.param(100, id="100"),
    pytest.param(2000, id="2000", marks=pytest.mark.slow),
]


def open_file(folder: Path, name: str, content: bytes, **beside: str) -> None:
    """Convert, load and use; anything but a UserError is a failure of ours."""
    for path in folder.iterdir():
        path.unlink()
    (folder / name).write_bytes(content)
    for other, text in beside.items():
        (folder / other.replace("__", ".")).write_text(text, "utf-8", "surrogatepass")
    use(folder, lambda: convert(folder / name, pattern="gpt2"))


def use(folder: Path, make: Callable[[], Converted]) -> None:
    started = time.monotonic()
    try:
        converted = make()
        tokenizer = Tokenizer(folder, files_of(folder, converted.content, converted.config))
        converted.write(folder)
        for text in ("ab <s> é\n", ""):
            tokenizer.decode(tokenizer.encode(text))
    except UserError as error:
        assert len(error.message) < 2000 and "\ud800" not in error.message
    assert time.monotonic() - started < SECONDS


def refused(folder: Path, name: str, content: bytes, said: str, **beside: str) -> None:
    with pytest.raises(UserError, match=said):
        for path in folder.iterdir():
            path.unlink()
        (folder / name).write_bytes(content)
        for other, text in beside.items():
            (folder / other.replace("__", ".")).write_text(text)
        Tokenizer.load(folder)


def damaged(valid: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of the files with a part cut out, replaced or put in."""

    def change(file: bytes, at: float, length: int, new: bytes) -> bytes:
        # The last kilobyte has the pieces that are no bytes, and the settings.
        place = len(file) - int(at * min(len(file), 1000))
        return file[:place] + new + file[place + length :]

    return st.builds(change, st.sampled_from(valid), st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12))


def edited(*more: tuple[str, float, int], **settings: Any) -> bytes:
    """The small model with more pieces, or other settings."""
    return sentencepiece_bytes([*PIECES, *more], **settings)
