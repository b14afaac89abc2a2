"""`bottega hub list` and `bottega hub rm`: what of the hub lies in the cache, and freeing it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bottega.checkpoint.config import CONFIG_FILE, ModelConfig
from bottega.checkpoint.hub_cache import blobs_of, cache_root, is_complete, linked_blob, name_of, read_ref
from bottega.checkpoint.hub_config import ListModels, RemoveModel
from bottega.checkpoint.hub_licence import licence_of
from bottega.checkpoint.hub_repository import is_commit
from bottega.core.atomic import locked
from bottega.core.errors import UserError, did_you_mean
from bottega.core.plan import Plan, Specs
from bottega.core.verb import Context, Result
from bottega.core.view import Table, Text, human_bytes

SHORTEST_COMMIT = 4


@dataclass(frozen=True)
class Snapshot:
    """A commit of a model in the cache. `nbytes` counts files that other commits have too."""

    commit: str
    refs: tuple[str, ...]
    path: Path
    nbytes: int
    complete: bool


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache. `nbytes` is what it takes on the disk, unfinished files included."""

    name: str
    folder: Path
    snapshots: tuple[Snapshot, ...]
    nbytes: int
    unfinished: int
    """Bytes of files that an interrupted run left; the next pull goes on from them."""
    last_used: float | None
    """Seconds since 1970."""


def scan(root: Path) -> list[CachedModel]:
    """The models in a cache, by name. Other kinds of repository are not ours to list."""
    if not root.is_dir():
        return []
    folders = [(name, folder) for folder in root.iterdir() if (name := name_of(folder)) is not None]
    return [_model(name, folder) for name, folder in sorted(folders)]


def _model(name: str, folder: Path) -> CachedModel:
    refs: dict[str, list[str]] = {}
    for path, _ in _files(folder / "refs"):
        refs.setdefault(read_ref(path) or "", []).append(path.relative_to(folder / "refs").as_posix())
    snapshots = tuple(
        Snapshot(path.name, tuple(sorted(refs.get(path.name, ()))), path, _bytes_of(path), is_complete(path))
        for path in sorted((folder / "snapshots").glob("*"))
        if is_commit(path.name) and path.is_dir()
    )
    sizes = dict(_files(folder))
    unfinished = sum(size for path, size in sizes.items() if path.suffix == ".incomplete")
    used = [path.stat().st_atime for path in sizes if path.parent == blobs_of(folder)]
    return CachedModel(name, folder, snapshots, sum(sizes.values()), unfinished, max(used, default=None))


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every file below `folder` with its bytes; links are neither followed nor counted."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if path.is_file() and not path.is_symlink():
                yield path, path.stat().st_size


def _bytes_of(snapshot: Path) -> int:
    contents = {path.resolve() for path in snapshot.rglob("*") if path.is_file()}
    return sum(path.stat().st_size for path in contents)


def plan_list(config: ListModels, specs: Specs) -> Plan:  # noqa: ARG001 (a verb's plan has this form)
    """Where the cache is."""
    root = config.cache or cache_root()
    return Plan("hub list", config, work=[f"look into {root}"], details={"root": root})


def run_list(plan: Plan, context: Context) -> Result:  # noqa: ARG001 (a verb's run has this form)
    """The models in the cache, each commit with its size, licence, and whether bottega can run it."""
    root: Path = plan.details["root"]
    models = scan(root)
    data = [
        {
            "repository": model.name,
            "bytes": model.nbytes,
            "unfinished_bytes": model.unfinished,
            "last_used": None if model.last_used is None else _time(model.last_used),
            "revisions": [_described(snapshot) for snapshot in model.snapshots],
        }
        for model in models
    ]
    total = sum(model.nbytes for model in models)
    if not models:
        return Result({"cache": str(root), "bytes": 0, "models": []}, [Text(f"no models in {root}")])
    columns = ("model", "revision", "size", "last used", "licence", "state")
    note = f"{len(models)} models, {human_bytes(total)} in {root}"
    return Result({"cache": str(root), "bytes": total, "models": data}, [Table("", columns, _rows(data), note)])


def _described(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "commit": snapshot.commit,
        "refs": list(snapshot.refs),
        "bytes": snapshot.nbytes,
        "complete": snapshot.complete,
        "licence": licence_of(snapshot.path),
        "supported": _supported(snapshot.path),
    }


def _supported(snapshot: Path) -> bool | None:
    """Whether bottega knows models of this config; None where there is no config to tell."""
    if not (snapshot / CONFIG_FILE).is_file():
        return None
    try:
        ModelConfig.read(snapshot)
    except UserError:
        return False
    return True


def _rows(data: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows = []
    for model in data:
        used = (model["last_used"] or "")[:10]
        for revision in model["revisions"]:
            name = ", ".join([*revision["refs"], revision["commit"][:12]])
            size, licence = human_bytes(revision["bytes"]), revision["licence"] or "not stated"
            state = "complete" if revision["complete"] else "incomplete"
            if revision["supported"] is False:
                state += ", not supported"
            rows.append((model["repository"], name, size, used, licence, state))
        if model["unfinished_bytes"] or not model["revisions"]:
            size = human_bytes(model["unfinished_bytes"])
            rows.append((model["repository"], "–", size, used, "", "unfinished: pull it again to go on"))
    return rows


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def plan_remove(config: RemoveModel, specs: Specs) -> Plan:  # noqa: ARG001 (a verb's plan has this form)
    """Find what is meant; raises UserError with the nearest name."""
    root = config.cache or cache_root()
    name, _, revision = config.model.partition("@")
    models = {model.name: model for model in scan(root)}
    if name not in models:
        raise UserError(f"there is no model {name!r} in {root}", hint=did_you_mean(name, models))
    model = models[name]
    snapshot = _snapshot(model, revision) if revision else None
    if snapshot is not None and len(model.snapshots) == 1 and not model.unfinished:
        snapshot = None  # nothing would be left of the model
    freed = _freed(model, snapshot)
    what = f"{name}@{snapshot.commit[:12]}" if snapshot else f"{name} and all its revisions"
    plan = Plan("hub rm", config, work=[f"remove {what} from {root}: {human_bytes(freed)}"])
    plan.details = {"model": model, "snapshot": snapshot, "bytes": freed}
    return plan


def _snapshot(model: CachedModel, revision: str) -> Snapshot:
    found = [
        snapshot
        for snapshot in model.snapshots
        if revision in snapshot.refs or (len(revision) >= SHORTEST_COMMIT and snapshot.commit.startswith(revision))
    ]
    if len(found) != 1:
        known = [name for snapshot in model.snapshots for name in (*snapshot.refs, snapshot.commit)]
        problem = "no such revision" if not found else "more than one such revision"
        raise UserError(f"{model.name}: {problem} as {revision!r} in the cache", hint=did_you_mean(revision, known))
    return found[0]


def _own_blobs(model: CachedModel, snapshot: Snapshot) -> set[Path]:
    """The blobs that no other snapshot of the model has."""

    def blobs(of: Snapshot) -> set[Path]:
        return {blob for path in of.path.rglob("*") if (blob := linked_blob(path, model.folder)) is not None}

    others = [blobs(other) for other in model.snapshots if other.commit != snapshot.commit]
    return blobs(snapshot).difference(*others)


def _freed(model: CachedModel, snapshot: Snapshot | None) -> int:
    if snapshot is None:
        return model.nbytes
    own = _own_blobs(model, snapshot)
    blobs = sum(size for path, size in _files(blobs_of(model.folder)) if path in own)
    return blobs + sum(size for _, size in _files(snapshot.path))


def run_remove(plan: Plan, context: Context) -> Result:  # noqa: ARG001 (a verb's run has this form)
    """Ask, then remove; `data` has repository, revision, removed, bytes."""
    config = plan.config
    assert isinstance(config, RemoveModel)
    model: CachedModel = plan.details["model"]
    snapshot: Snapshot | None = plan.details["snapshot"]
    data = {"repository": model.name, "revision": snapshot.commit if snapshot else None, "removed": False, "bytes": 0}
    if not config.yes and not _agreed(plan.work[0]):
        return Result(data, [Text("nothing was removed")])
    with locked(model.folder, "the cache of this model,"):
        if snapshot is None:
            shutil.rmtree(model.folder)
        else:
            _remove_snapshot(model, snapshot)
    data |= {"removed": True, "bytes": plan.details["bytes"]}
    return Result(data, [Text(f"freed: {human_bytes(data['bytes'])}")])


def _remove_snapshot(model: CachedModel, snapshot: Snapshot) -> None:
    """Refs before links before blobs: what is left when this is interrupted is never taken for whole."""
    own = _own_blobs(model, snapshot)
    for ref in snapshot.refs:
        (model.folder / "refs" / ref).unlink(missing_ok=True)
    shutil.rmtree(snapshot.path)
    for blob in own:
        blob.unlink(missing_ok=True)
    (model.folder / "trees" / f"{snapshot.commit}.json").unlink(missing_ok=True)  # huggingface_hub's list of its files


def _agreed(what: str) -> bool:
    """Ask on the terminal; raises UserError where there is nobody to ask."""
    if not sys.stdin.isatty():
        raise UserError(f"to {what} needs a yes, and there is no terminal to ask on", hint="Pass --yes.")
    print(f"{what}. Remove it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
