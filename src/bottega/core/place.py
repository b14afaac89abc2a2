"""Where a verb writes: its place is free, and apart from what the verb reads. One rule for every verb."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bottega.core.atomic import partial_path
from bottega.core.errors import UserError
from bottega.core.hashing import RECORD_FILE
from bottega.core.plan import Check, Plan
from bottega.core.record import has_record


def place_checks(plan: Plan, may_replace: bool) -> list[Check]:
    """Whether what the plan writes has its place: none for a plan that writes nothing."""
    if plan.out is None:
        return []
    try:
        require_apart(plan.out, plan.inputs)
        require_free(plan.out, may_replace)
    except UserError as error:
        return [Check("out", False, f"{error.message}. {error.hint}")]
    return [Check("out", True, f"{plan.out} is " + ("replaced" if plan.out.exists() else "free"))]


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


def require_apart(out: Path, inputs: Mapping[str, Path]) -> None:
    """Raise UserError if `out`, or the folder in which it is built, is, holds or lies in one of the inputs.

    Replacing it would destroy what it is made from; writing into an input would change the input's content.
    """
    for place in (out, partial_path(out)):
        for name, path in inputs.items():
            how = _relation(place.resolve(), path.resolve())
            if how:
                message = f"{place} {how} the {name} {path}, which is read for it"
                raise UserError(message, hint="Choose another --out, apart from it.")


def _relation(place: Path, path: Path) -> str:
    if place == path:
        return "is"
    if place in path.parents:
        return "holds"
    return "lies in" if path in place.parents else ""
