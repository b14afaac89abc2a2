"""Where a model is: a folder on this machine, or, only when the user names one, a repository of the hub.

Nothing is fetched unless the name is not an existing path and has the form `org/name[@revision]`.
Needs huggingface_hub (the extra `hub`); its cache is used, so a second time works offline.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from bottega.checkpoint.hub_cache import (
    blobs_of,
    cache_root,
    cached_repository,
    folder_of,
    is_linked,
    link_snapshot,
    remember,
)
from bottega.checkpoint.hub_errors import NotAvailable
from bottega.checkpoint.hub_repository import RemoteFile, Repository, ask, parse_name, select
from bottega.checkpoint.hub_transfer import fetch_blobs
from bottega.core.atomic import locked
from bottega.core.errors import UserError
from bottega.core.model_files import model_folder
from bottega.core.plan import Specs, is_only_planning
from bottega.core.progress import Lines, Quiet, Reporter, Rich


def locate_planned(model: Path | str, specs: Specs) -> Path:
    """`locate`, but in a chain a model that an earlier step will make is where it will be."""
    return Path(model) if specs.is_predicted(Path(model)) else locate(model)


def locate(model: Path | str) -> Path:
    """The folder (or GGUF file) of `model`, fetched from the hub if that is what it names.

    Raises UserError that says what to do if there is none.
    """
    path = Path(model)
    if path.is_dir():
        return model_folder(path)
    if path.suffix == ".gguf" and path.is_file():
        return path
    if path.exists():
        hint = "Name the folder that holds config.json."
        raise UserError(f"{path} is a file; a model is a folder (or a .gguf file)", hint=hint)
    parsed = parse_name(str(model))
    if parsed is None or path.parent.is_dir():
        raise UserError(f"there is no model at {path}", hint="Name a model folder, or org/name of the hub.")
    reporter = _terminal()
    try:
        repository, note = find(*parsed)
        if note:
            reporter.say(note)
        if is_only_planning() and not _is_cached(repository):
            hint = f"Fetch it first (its own --plan says what that takes): bottega hub pull {model}"
            raise UserError("a plan fetches nothing", hint=hint)
        return fetch(repository, reporter)
    except UserError as error:
        raise UserError(f"there is no folder {model}; {error.message}", hint=error.hint) from None


def find(name: str, revision: str | None) -> tuple[Repository, str]:
    """What the hub says of a model; if it does not, what the cache knows, with a line that says so.

    Raises UserError if neither has it.
    """
    root = cache_root()
    try:
        return ask(name, revision), ""
    except NotAvailable as error:
        cached = cached_repository(name, revision, root)
        if cached is None:
            raise
        return cached, f"{error.message}; using what was fetched before (commit {cached.commit[:12]})"


def fetch(repository: Repository, reporter: Reporter) -> Path:
    """The folder of a repository in huggingface_hub's cache, with all that belongs to a model folder.

    Only what is missing is fetched, and it is checked; raises UserError.
    """
    root = cache_root()
    folder = folder_of(repository.name, root)
    snapshot = folder / "snapshots" / repository.commit
    if _is_whole(repository, snapshot, root):
        with contextlib.suppress(OSError):  # a cache that cannot be written to can still be read
            remember(repository, root)
        return snapshot
    blobs = blobs_of(folder)
    blobs.mkdir(parents=True, exist_ok=True)

    def get(file: RemoteFile) -> Path:
        fetch_blobs(repository, [file], blobs, Quiet())
        return blobs / file.digest

    with locked(folder, "the cache of this model,"):
        files = select(repository, get)
        fetch_blobs(repository, files, blobs, reporter)
        return link_snapshot(repository, files, root)


def _is_cached(repository: Repository) -> bool:
    root = cache_root()
    return _is_whole(repository, folder_of(repository.name, root) / "snapshots" / repository.commit, root)


def _is_whole(repository: Repository, snapshot: Path, root: Path) -> bool:
    try:
        return is_linked(repository, select(repository, lambda file: snapshot / file.name), root)
    except UserError:  # the index is not there
        return False


def _terminal() -> Reporter:
    """`locate` is called where no reporter is at hand, and a download must not look like a standstill."""
    if not sys.stderr.isatty():
        return Lines()
    from rich.console import Console

    return Rich(Console(stderr=True))
