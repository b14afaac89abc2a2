"""A file of Axolotl's while it is read: keys are taken out one by one, and each leaves a line."""

from __future__ import annotations

from typing import Any

from bottega.core.foreign import Fate, Line

UNSET: tuple[object, ...] = (None, "", [], {})  # Axolotl's examples list many keys without a value
MISSING = "without a value"


class Reading:
    """The keys not read yet (`rest`), the settings found so far, and a line for each key."""

    def __init__(self, data: dict[Any, Any]) -> None:
        self.rest: dict[str, Any] = {str(key): value for key, value in data.items() if value not in UNSET}
        self.settings: dict[str, Any] = {}
        self.lines: list[Line] = []

    def take(self, key: str, default: Any = None) -> Any:
        """The value of `key`, which is then read."""
        return self.rest.pop(key, default)

    def first(self, *keys: str) -> tuple[str, Any]:
        """The first of several names of one thing that the file has, and its value; the others are read too."""
        found = [(key, self.take(key)) for key in keys if key in self.rest]
        return found[0] if found else (keys[0], None)

    def number(self, key: str, default: float | None = None) -> float | None:
        """A number, also if it is written as text (2e-4 is text in YAML 1.1)."""
        value = self.take(key, default)
        try:
            return value if value is None or isinstance(value, (int, float)) else float(value)
        except (TypeError, ValueError):
            self.refuse(key, f"{value!r} is no number")
            return default

    def whole(self, key: str, default: int | None = None) -> int | None:
        """A whole number."""
        value = self.number(key, default)
        if value is None or float(value).is_integer():
            return None if value is None else int(value)
        self.refuse(key, f"{value!r} is no whole number")
        return default

    def use(self, key: str, setting: str, value: Any, *, silent: bool = False) -> None:
        """`key` is our `setting` (a dot leads into a section); a silent one is a default that the file leaves out."""
        place, names = self.settings, setting.split(".")
        for name in names[:-1]:
            place = place.setdefault(name, {})
        place[names[-1]] = value
        if not silent:
            self._line("understood", key, f"{setting}: {value}")

    def pass_number(self, key: str, setting: str) -> None:
        """A number that means the same here."""
        value = self.number(key)
        if value is not None:
            self.use(key, setting, value)

    def differs(self, key: str, text: str) -> None:
        """`key` is heeded, in another way than there."""
        self._line("differs", key, text)

    def note(self, key: str, text: str) -> None:
        """`key` has no counterpart, and cannot change what is learned."""
        self._line("noted", key, text)

    def refuse(self, key: str, text: str) -> None:
        """`key` has no counterpart, and would change what is learned."""
        self._line("not understood", key, text)

    def expect(self, key: str, allowed: tuple[object, ...], text: str) -> None:
        """`key` may only say what is so here anyway; any other value is refused with `text`."""
        if key not in self.rest:
            return
        value = self.take(key)
        if value in allowed:
            self._line("understood", key, f"{value}, as here")
        else:
            self.refuse(key, text)

    def _line(self, fate: Fate, key: str, text: str) -> None:
        self.lines.append(Line(fate, key, text))
