"""Settings that were written for another program, read as those of a verb, with what became of each of them.

Nothing is passed over in silence: what would change the result and has no counterpart is an error, what only concerns
speed, logging or hardware is a note, and what is done in another way than there is told each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bottega.core.errors import UserError
from bottega.core.view import Block, Table

Fate = Literal["understood", "differs", "noted", "not understood"]
FATES: tuple[Fate, ...] = ("not understood", "differs", "noted", "understood")


@dataclass(frozen=True)
class Line:
    """One setting of the other program: its name there, and what it became here, or why it became nothing."""

    fate: Fate
    key: str
    text: str


@dataclass(frozen=True)
class Foreign:
    """The file of another program: the verb's `settings`, and a line for each of its own."""

    program: str
    settings: dict[str, Any]
    lines: tuple[Line, ...]

    def of(self, fate: Fate) -> list[Line]:
        """The lines of one fate, in the order of the file."""
        return [line for line in self.lines if line.fate == fate]

    def view(self, *, everything: bool = True) -> list[Block]:
        """A table of what became of each setting; without `everything` only of what a reader must know."""
        fates = FATES if everything else FATES[:3]
        rows = [(line.fate, line.key, line.text) for fate in fates for line in self.of(fate)]
        taken = len(self.of("understood"))
        note = "" if everything else f"{taken} more are understood; --plan lists them too"
        return [Table(f"Settings of {self.program}", ("", "there", "here"), rows, note)]

    def require(self, where: str) -> None:
        """Raise UserError naming everything in `where` that would be lost."""
        lost = self.of("not understood")
        if lost:
            raise UserError(
                f"{where} has settings of {self.program} without a counterpart: "
                + "; ".join(f"{line.key}: {line.text}" for line in lost),
                hint="What would change the result is not left out in silence. Change these lines, or delete them to "
                "do without.",
            )
