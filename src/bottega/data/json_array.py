"""The items of a JSON array one at a time, so that a file larger than memory can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

_SPACE = re.compile(r"[ \t\n\r]*")
_REST_OF_NUMBER = re.compile(r"[.eE+\-0-9]*")


def array_items(file: IO[str], *, piece: int, longest: int) -> Iterator[tuple[Any, int]]:
    """Each item of the array in `file` (which stands behind its "["), and its characters.

    Reads `piece` characters at a time. Raises ValueError where the text is no JSON, where it ends before the array,
    and at an item of more than about `longest` characters.
    """
    decoder = json.JSONDecoder()
    buffer, at, first = "", 0, True
    while True:
        found = _next(decoder, buffer, at, first=first)
        if found is None:
            block = file.read(piece)
            if not block:
                raise ValueError("it ends inside the array")
            if len(buffer) - at > longest:
                raise ValueError("an item is too long")
            buffer, at = buffer[at:] + block, 0
            continue
        item, end, is_last = found
        if item is not _NOTHING:
            yield item, end - at
        if is_last:
            return
        at, first = end, False


_NOTHING = object()


def _next(decoder: json.JSONDecoder, text: str, at: int, *, first: bool) -> tuple[Any, int, bool] | None:
    """The item at `at`, where the next one begins, and whether it is the last; None if `text` ends too early.

    What stands behind an item has to be seen: a number at the end of the text may go on.
    """
    start = _after_space(text, at)
    if first and text[start : start + 1] == "]":
        return _NOTHING, start + 1, True
    try:
        item, end = decoder.raw_decode(text, start)
    except json.JSONDecodeError:
        return None
    end = _after_space(text, end)
    if _REST_OF_NUMBER.fullmatch(text, end):
        return None
    if text[end] not in ",]":
        raise ValueError("an item is not followed by a comma or the end of the array")
    return item, end + 1, text[end] == "]"


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
