"""Where a verb writes: its place is free, and apart from what the verb reads. One rule for every verb."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bottega.core.atomic import partial_path
from bottega.core.errors import UserError
from bottega.core.hashing import RECORD_FILE
from bottega.core.record import has_record


def require_free(out: Path, overwrite: bool) -> None:
    """Raise UserError if `out` exists and may not be replaced; only an artefact (it has a record) ever may."""
    if not out.exists():
        return
    if not overwrite:
        raise UserError(f"{out} exists already", hint="Choose another --out, or pass --overwrite to replace it.")
    if not has_record(out):
        raise UserError(
            f"{out} exists and has no {RECORD_FILE} of bottega's, so it is not replaced",
            hint="Choose another --out, or remove it yourself.",
        )
