"""huggingface_hub's cache on this machine: where a repository lies in it, and which of its snapshots are whole.

The layout is that package's own, so that transformers and others find what was fetched here, and
the other way round:

    models--ORG--NAME/blobs/HASH                 contents, once each
    models--ORG--NAME/refs/REVISION              the commit that a branch or a tag had
    models--ORG--NAME/snapshots/COMMIT/FILE      links to the blobs
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from bottega.checkpoint.config import CONFIG_FILE
from bottega.checkpoint.header import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LEGACY_ADAPTER_WEIGHTS
from bottega.checkpoint.hub_errors import hub_package
from bottega.checkpoint.hub_licence import licence_of
from bottega.checkpoint.hub_repository import (
    RemoteFile,
    Repository,
    belongs,
    is_commit,
)
from bottega.core.atomic import write_text
from bottega.core.errors import UserError

DEFAULT_REVISION = "main"
_PREFIX = "models--"


def cache_root() -> Path:
    """The cache of this machine: HF_HUB_CACHE, HF_HOME/hub, or ~/.cache/huggingface/hub."""
    hub_package()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def folder_of(name: str, root: Path) -> Path:
    """Where the cache keeps the repository `org/name`."""
    return root / (_PREFIX + name.replace("/", "--"))


def name_of(folder: Path) -> str | None:
    """`org/name` of a folder of the cache; None if it is no model's."""
    if not folder.name.startswith(_PREFIX) or not folder.is_dir():
        return None
    return folder.name.removeprefix(_PREFIX).replace("--", "/")


def blobs_of(folder: Path) -> Path:
    """Where the contents lie."""
    return folder / "blobs"


def cached_commit(folder: Path, revision: str | None) -> str | None:
    """The commit that a revision had when it was last fetched; None if it was not."""
    if revision is not None and is_commit(revision):
        return revision
    return read_ref(folder / "refs" / (revision or DEFAULT_REVISION))


def read_ref(path: Path) -> str | None:
    """The commit that a file below `refs` holds; None if it is not there or holds something else."""
    try:
        with path.open(encoding="ascii") as file:
            commit = file.read(64).strip()
    except (OSError, ValueError):
        return None
    return commit if is_commit(commit) else None


def is_complete(snapshot: Path) -> bool:
    """Whether a snapshot has all that it takes to open it: config and weights, an adapter, or a tokenizer."""
    from bottega.checkpoint.folder import weight_files  # (it imports `hub`)

    if (snapshot / CONFIG_FILE).is_file():
        try:
            return all(path.is_file() for path in weight_files(snapshot))
        except UserError:
            return False
    if (snapshot / ADAPTER_CONFIG).is_file():
        return any((snapshot / name).is_file() for name in (ADAPTER_WEIGHTS, LEGACY_ADAPTER_WEIGHTS))
    return (snapshot / "tokenizer.json").is_file()


def cached_repository(name: str, revision: str | None, root: Path) -> Repository | None:
    """What the cache knows of a repository, as `ask` would say it; None if it holds no whole snapshot of it."""
    folder = folder_of(name, root)
    commit = cached_commit(folder, revision)
    if commit is None or not is_complete(folder / "snapshots" / commit):
        return None
    snapshot = folder / "snapshots" / commit
    files = {}
    for path in sorted(snapshot.rglob("*")):
        file = path.relative_to(snapshot).as_posix()
        blob = linked_blob(path, folder)
        if path.is_file() and belongs(file) and blob is not None:
            files[file] = RemoteFile(file, path.stat().st_size, blob.name)
    return Repository(name, revision, commit, files, licence_of(snapshot))


def linked_blob(path: Path, folder: Path) -> Path | None:
    """The blob of its own repository that a snapshot's entry links to; None if it is no such link."""
    if not path.is_symlink():
        return None
    blob = Path(os.path.normpath(path.parent / path.readlink()))
    return blob if blob.parent == blobs_of(folder) else None


def is_linked(repository: Repository, files: Iterable[RemoteFile], root: Path) -> bool:
    """Whether the cache has all of `files` in their places."""
    folder = folder_of(repository.name, root)
    snapshot = folder / "snapshots" / repository.commit
    return all(_has(snapshot / file.name, file.size) for file in files)


def link_snapshot(repository: Repository, files: Iterable[RemoteFile], root: Path) -> Path:
    """Make the snapshot's links to its blobs, config.json last, and remember the revision's commit."""
    folder = folder_of(repository.name, root)
    snapshot = folder / "snapshots" / repository.commit
    for file in sorted(files, key=lambda file: (file.name == CONFIG_FILE, file.name)):
        if not _has(snapshot / file.name, file.size):
            _link(blobs_of(folder) / file.digest, snapshot / file.name)
    remember(repository, root)
    return snapshot


def remember(repository: Repository, root: Path) -> None:
    """Write down which commit the revision has now."""
    folder, revision = folder_of(repository.name, root), repository.revision or DEFAULT_REVISION
    if revision == repository.commit or cached_commit(folder, revision) == repository.commit:
        return
    path = folder / "refs" / revision
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, repository.commit)


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _link(blob: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:  # a disk without links
        shutil.copyfile(blob, temporary)
    os.replace(temporary, path)
