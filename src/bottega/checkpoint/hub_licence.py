"""The licence of a model folder: what its card states (`license`, `license_name`), and the licence files beside it."""

from __future__ import annotations

from pathlib import Path

from bottega.checkpoint.card import CARD_FILE, front_matter
from bottega.checkpoint.hub_repository import is_licence, licence_text

MAX_CARD_CHARACTERS = 4 * 2**20


def card_data(folder: Path) -> dict[str, object]:
    """The front matter of the folder's card; {} if there is none."""
    card = folder / CARD_FILE
    if not card.is_file():  # opening a pipe would wait for ever
        return {}
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            return front_matter(file.read(MAX_CARD_CHARACTERS))
    except OSError:
        return {}


def licence_of(folder: Path) -> str | None:
    """The licence that the card states; of "other" with its own name."""
    data = card_data(folder)
    return licence_text(data.get("license"), data.get("license_name"))


def licence_files(folder: Path) -> list[str]:
    """Names of the licences and notices in the folder."""
    return sorted(path.name for path in folder.iterdir() if is_licence(path.name) and path.is_file())
