"""A problem of the content: where it stands, which rule it breaks, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One finding. `line` is 0 where it is about a whole file."""

    path: Path
    line: int
    rule: str
    message: str
    fix: str = ""

    def place(self, root: Path) -> str:
        """FILE:LINE, the file relative to the content's folder."""
        path = self.path.relative_to(root) if self.path.is_relative_to(root) else self.path
        return f"{path}:{self.line}" if self.line else str(path)


def line_of(path: Path, *texts: str) -> int:
    """The line on which the last of `texts` stands, each looked for from where the one before it was found.

    0 if one is not there.
    """
    try:
        content = path.read_text("utf-8")
    except OSError:
        return 0
    at = 0
    for text in texts:
        at = content.find(text, at)
        if at < 0:
            return 0
    return content.count("\n", 0, at) + 1
