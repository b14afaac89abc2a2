"""The store of answers: what is damaged in it is computed again, what cannot be one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottega.core.errors import UserError
from bottega.evaluate.harness.store import Store

MODEL = "0" * 32
DAMAGED = b"""\x00\xff\xfe
null
["a", [null, true]]
[["a"], "x"]
["a", "x", "y"]
["a", ["x", true]]
["a", [1.5]]
{"a": 1}
["torn", "x"""


def test_damaged_lines_count_as_not_written_and_the_others_stay(tmp_path: Path) -> None:
    store = Store(tmp_path, MODEL)
    store.put("score", (-1.5, True))
    store.put("text", "caffè\n\u2028")
    store.close()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + DAMAGED)
    store = Store(tmp_path, MODEL)
    store.put("late", "x")
    store.close()
    again = Store(tmp_path, MODEL)
    assert again.get("score") == (-1.5, True) and again.get("text") == "caffè\n\u2028" and again.get("late") == "x"
    assert again.get("a") is None and again.get("torn") is None
    again.close()


def test_a_folder_that_cannot_be_one_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot be kept in .*file: File exists") as refused:
        Store(tmp_path / "file", MODEL)
    assert refused.value.hint and "--store" in refused.value.hint
