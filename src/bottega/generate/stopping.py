"""Stop strings: cut a text at the first of them, also when tokens split it.

While streaming, text that may still turn out to begin a stop string is held back.
"""

from __future__ import annotations


class StopStrings:
    """Feed it text as it comes; it returns what may be shown."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops = stops
        self.held = ""
        self.found = False

    def add(self, text: str) -> str:
        """The part of the text so far that is certain; sets `found` when a stop string is complete."""
        if not self.stops:
            return text
        self.held += text
        places = [place for stop in self.stops if (place := self.held.find(stop)) >= 0]
        if places:
            self.found = True
            shown, self.held = self.held[: min(places)], ""
            return shown
        keep = self._open_end()
        cut = len(self.held) - keep
        shown, self.held = self.held[:cut], self.held[cut:]
        return shown

    def flush(self) -> str:
        """What was held back, once nothing follows."""
        shown, self.held = self.held, ""
        return shown

    def _open_end(self) -> int:
        """Length of the longest end of `held` with which some stop string begins."""
        longest = max(len(stop) for stop in self.stops) - 1
        for size in range(min(longest, len(self.held)), 0, -1):
            end = self.held[-size:]
            if any(stop.startswith(end) for stop in self.stops):
                return size
        return 0
