"""Blocks in a terminal of 80 columns: what does not fit is shown otherwise, and nothing is lost."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from bottega.cli.render import show
from bottega.core.view import Table


def shown(table: Table, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    show([table], console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_columns_that_do_not_fit_become_rows(rows: int) -> None:
    columns = ["model", *(f"a task with a long name {number}" for number in range(30))]
    cells = [[f"model-{row}", *(f"{row}.{number} ± 3.1" for number in range(30))] for row in range(rows)]
    out = shown(Table("Models", columns, cells, "A note."))
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) < 40 * rows
    assert out.count("A note.") == 1
    for cell in [cell for row in cells for cell in row]:
        assert re.search(rf"(?<![\d.]){re.escape(cell)}", out), cell
    assert all(name in out for name in columns)


def test_columns_that_fit_stay_columns() -> None:
    out = shown(Table("Models", ["model", "score", "items"], [["a", "46.2 %", 100], ["b", "3.1 %", 100]]))
    assert re.search(r"model +score +items *\na +46.2 % +100 *\nb", out)
