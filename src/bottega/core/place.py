"""Where a verb writes: its place is free, apart from what the verb reads, and has room. One rule for every verb."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from bottega.core.atomic import partial_path
from bottega.core.errors import UserError
from bottega.core.hashing import RECORD_FILE
from bottega.core.plan import Check, Plan
from bottega.core.record import has_record
from bottega.core.view import human_bytes


def place_checks(plan: Plan, may_replace: bool, reserved: int = 0) -> list[Check]:
    """Whether what the plan writes has its place: none for a plan that writes nothing.

    `reserved` are the bytes that earlier steps of a chain will have written by then.
    """
    return (
        [] if plan.out is None else [_out_check(plan, plan.out, may_replace), *_disk_checks(plan, plan.out, reserved)]
    )


def _out_check(plan: Plan, out: Path, may_replace: bool) -> Check:
    try:
        require_apart(out, plan.inputs)
        require_free(out, may_replace)
    except UserError as error:
        return Check("out", False, f"{error.message}. {error.hint}")
    return Check("out", True, f"{out} is " + ("replaced" if out.exists() else "free"))


def _disk_checks(plan: Plan, out: Path, reserved: int) -> list[Check]:
    from bottega.core.machine import disk_free  # `bottega --help` needs nothing of it

    free = disk_free(out)
    if not plan.cost.bytes_written or free is None:
        return []
    with contextlib.suppress(OSError):  # another process may be at work there
        # What an interrupted run left is gone on from, or removed first.
        free += sum(path.lstat().st_size for path in partial_path(out).rglob("*"))
    needed = f"writes {human_bytes(plan.cost.bytes_written)}"
    needed += f" after {human_bytes(reserved)} of earlier steps" if reserved else ""
    fits = plan.cost.bytes_written + reserved <= free
    remedy = "" if fits else ". Make room, or choose an --out on another disk."
    return [Check("disk", fits, f"{needed}, {human_bytes(free)} free{remedy}")]


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
