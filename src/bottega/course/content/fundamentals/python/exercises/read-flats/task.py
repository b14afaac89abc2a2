"""Read lines that may be wrong.

`FlatRecord` is a frozen dataclass that cannot be made with wrong values. `read_flats` is a generator that makes flats of lines
`city,size,rent`, one at a time, and notes the numbers of the lines that give none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class FlatRecord:
    """A flat. Making one raises ValueError if the city is empty or only spaces, or if the size or the rent is not a
    number above 0: nan is none. A rent of None is allowed; it means that the rent is not known."""

    city: str
    size: float
    rent: float | None = None


def read_flats(lines: Iterable[str], bad: list[int]) -> Iterator[FlatRecord]:
    """Yield a FlatRecord for each line, in order, as soon as the line is read.

    Spaces around each of the three parts do not count, and an empty rent is None. Lines that are empty or only spaces
    are skipped. The number of a line that cannot be made a FlatRecord (ValueError) is appended to `bad`; the first line is 1,
    and every line counts. Any other exception is a bug of somebody and must reach the caller.
    """
    raise NotImplementedError
