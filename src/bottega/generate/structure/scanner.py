"""Where the values of a JSON object stand, while it is being written."""

from __future__ import annotations

import json


class ObjectScanner:
    """Reads one JSON object from its `{` to its `}`, as text comes; notes where its own values begin and end.

    It finds its way by quotes and brackets alone, so that an object with mistakes in it ends somewhere too.
    """

    def __init__(self) -> None:
        self.text = ""
        self.done = False
        self._spans: dict[str, tuple[int, int | None]] = {}
        self._depth = 0
        self._in_string = self._escaped = False
        self._string_start = 0
        self._key: str | None = None  # of the value that comes or is being read
        self._value_start: int | None = None

    def add(self, text: str) -> int:
        """Read on; how many characters belong to the object."""
        base = len(self.text)
        self.text += text
        for place in range(base, len(self.text)):
            self._read(self.text[place], place)
            if self.done:
                self.text = self.text[: place + 1]
                return place + 1 - base
        return len(text)

    def value(self, key: str) -> tuple[str, bool] | None:
        """What has come of the value under a key, and whether that is all; None before it begins."""
        span = self._spans.get(key)
        if span is None:
            return None
        return self.text[span[0] : span[1]].rstrip(), span[1] is not None

    def string(self, key: str) -> str | None:
        """The string under a key, once it is complete."""
        found = self.value(key)
        if found is None or not found[1]:
            return None
        try:
            value = json.loads(found[0])
        except ValueError:
            return None
        return value if isinstance(value, str) else None

    def _read(self, char: str, place: int) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == '"':
                self._in_string = False
                if self._depth == 1 and self._key is None:
                    self._key = self.text[self._string_start + 1 : place]
            return
        if self._depth == 1 and self._key is not None and self._value_start is None and char not in " \t\r\n:":
            self._value_start = place
            self._spans.setdefault(self._key, (place, None))
        if char == '"':
            self._in_string, self._string_start = True, place
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            if self._depth == 0:
                self._end_value(place)
                self.done = True
        elif char == "," and self._depth == 1:
            self._end_value(place)

    def _end_value(self, place: int) -> None:
        if self._key is not None and self._value_start is not None and self._spans[self._key][1] is None:
            self._spans[self._key] = (self._value_start, place)
        self._key = self._value_start = None
