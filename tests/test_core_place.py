"""Where a verb may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottega.core.errors import UserError
from bottega.core.place import require_apart, require_free
from bottega.core.record import Record


@pytest.mark.parametrize("content", [None, "{}", "[]", '{"artist": "Nico", "year": 1967}', "[" * 100_000])
def test_only_an_artefact_is_ever_replaced(tmp_path: Path, content: str | None) -> None:
    """A file called record.json does not make one: a collection of music may have it too."""
    folder = tmp_path / "documents"
    require_free(folder, False)
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    if content is not None:
        (folder / "record.json").write_text(content)
    with pytest.raises(UserError, match="exists already"):
        require_free(folder, False)
    with pytest.raises(UserError, match=r"has no record\.json of bottega's, so it is not replaced"):
        require_free(folder, True)
    Record("train", 1, "s" * 64, {}, {}).write(folder)
    require_free(folder, True)


@pytest.mark.parametrize(
    ("out", "how"),
    [
        ("model", "is"),
        ("model/eval", "lies in"),
        (".", "holds"),
        ("link/eval", "lies in"),
        ("other/../model", "is"),
        ("texts/a", "is"),  # built as texts/a.partial
    ],
)
def test_nothing_is_written_over_in_or_around_what_it_is_made_from(tmp_path: Path, out: str, how: str) -> None:
    for name in ("model", "texts/a.partial"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("model")
    inputs = {"data": tmp_path / "texts" / "a.partial", "model": tmp_path / "model"}
    with pytest.raises(UserError, match=f" {how} the (model|data) .*, which is read for it"):
        require_apart(tmp_path / out, inputs)
    for free in ("model2", "model.eval", "texts/b"):
        require_apart(tmp_path / free, inputs)
