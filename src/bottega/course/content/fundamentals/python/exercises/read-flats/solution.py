from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class FlatRecord:
    city: str
    size: float
    rent: float | None = None

    def __post_init__(self) -> None:
        if not self.city.strip():
            raise ValueError("a flat needs a city")
        for name, value in (("size", self.size), ("rent", self.rent)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}, not above 0")
        if self.size is None:
            raise ValueError("a flat needs a size")


def read_flats(lines: Iterable[str], bad: list[int]) -> Iterator[FlatRecord]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            city, size, rent = (part.strip() for part in line.split(","))
            flat = FlatRecord(city, float(size), float(rent) if rent else None)
        except ValueError:
            bad.append(number)
            continue
        yield flat
