"""`bottega hub pull ORG/NAME[@REVISION]`: a model of the hub into the cache, or as a plain folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bottega.checkpoint.config import CONFIG_FILE, ModelConfig, read_json
from bottega.checkpoint.hub import fetch, find
from bottega.checkpoint.hub_cache import blobs_of, cache_root, folder_of
from bottega.checkpoint.hub_config import PullModel
from bottega.checkpoint.hub_errors import HUB
from bottega.checkpoint.hub_repository import RemoteFile, Repository, require_name, select
from bottega.checkpoint.hub_transfer import drop_damaged, fetch_blobs, missing_bytes
from bottega.checkpoint.spec import ModelSpec
from bottega.core.atomic import STEP_FILE, WORK_FOLDER, partial_path
from bottega.core.errors import UserError
from bottega.core.hashing import RECORD_FILE, digest_file
from bottega.core.machine import facts
from bottega.core.model_files import chat_template, optional_object
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.progress import Quiet
from bottega.core.record import current_hash, read_record
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Table, human_bytes

Get = Callable[[RemoteFile], Path]
# Files of these names are ours in every folder that a verb writes.
_OURS = (RECORD_FILE, STEP_FILE)


class PullPlan(Plan):
    """A plan that also lists the files."""

    def as_data(self) -> dict[str, Any]:
        """The plan as JSON-able data, with what the hub says of the repository."""
        repository, files = self.details["repository"], self.details["files"]
        return {
            **super().as_data(),
            **_facts(repository),
            "files": {file.name: file.size for file in files},
            "bytes": sum(file.size for file in files),
            "bytes_to_fetch": self.details["bytes_to_fetch"],
        }

    def view(self) -> list[Block]:
        """The plan for people, and the files."""
        rows = [(file.name, human_bytes(file.size)) for file in self.details["files"]]
        return [*super().view(), Table("Files", ("name", "size"), rows)]


def plan_pull(config: PullModel, specs: Specs) -> Plan:  # noqa: ARG001 (a verb's plan has this form)
    """Ask the hub what there is, and read its config (not its weights); check the disk."""
    name, revision = require_name(config.model)
    plan = PullPlan("hub pull", config, out=config.out)
    finished = _finished(config)
    if finished is not None:
        plan.details = {"repository": finished, "files": list(finished.files.values()), "bytes_to_fetch": 0, "note": ""}
        plan.work = [f"{finished.label} is there as it was fetched (commit {finished.commit})"]
        return plan
    root = cache_root()
    repository, note = find(name, revision)
    cached = blobs_of(folder_of(name, root))
    with tempfile.TemporaryDirectory() as folder:

        def get(file: RemoteFile) -> Path:
            fetch_blobs(repository, [file], Path(folder), Quiet(), cached)
            return Path(folder) / file.digest

        files = select(repository, get)
        plan.produces, family = _foresee(repository, get)
    stores = [partial_path(config.out) / WORK_FOLDER, cached] if config.out else [cached]
    to_fetch = missing_bytes(files, *stores)
    plan.details = {"repository": repository, "files": files, "bytes_to_fetch": to_fetch, "note": note}
    plan.work = [note] if note else []
    plan.work += _work(repository, files, to_fetch)
    needed = missing_bytes(files, stores[0])
    plan.checks = [
        _disk(needed, config.out or root),
        Check("licence", True, repository.licence or "not stated"),  # these two are remarks: no reason not to fetch
        Check("family", True, family),
    ]
    plan.cost = Cost(bytes_written=needed)
    return plan


def _finished(config: PullModel) -> Repository | None:
    """What `out` holds, if it is what this very pull wrote: then there is nothing to ask the hub."""
    if config.out is None or config.overwrite:
        return None
    try:
        record = read_record(config.out)
        if record is None or record.verb != "hub pull" or record.config["model"] != config.model:
            return None
        if current_hash(config.out, record) != record.content_hash:
            return None
        known = record.metrics
        files = {name: RemoteFile(name, entry["bytes"], entry["sha256"]) for name, entry in known["files"].items()}
        return Repository(*require_name(config.model), known["commit"], files, known["licence"], known["gated"])
    except (UserError, KeyError, TypeError, AttributeError):
        return None


def _foresee(repository: Repository, get: Get) -> tuple[ModelSpec | None, str]:
    """The model's spec as its config foretells it, and whether bottega can run it, in words."""
    files = repository.files
    if CONFIG_FILE not in files:
        return None, f"no {CONFIG_FILE}: an adapter or a tokenizer, not a whole model"
    wanted = (CONFIG_FILE, "tokenizer_config.json", "chat_template.jinja")
    contents = {name: get(files[name]) for name in wanted if name in files}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in contents.items():
            shutil.copyfile(path, Path(folder) / name)
        try:
            where = f"{repository.label}: {CONFIG_FILE}"
            config = ModelConfig.from_data(read_json(Path(folder) / CONFIG_FILE), where=where)
            template = chat_template(Path(folder), optional_object(Path(folder) / "tokenizer_config.json"))
        except UserError as error:
            return None, f"can be fetched, but not run here: {error.message}"
    tokenizer = files.get("tokenizer.json")
    # Git's hash of a small file is not ours: then it is not known before the run.
    digest = tokenizer.digest if tokenizer and len(tokenizer.digest) == 64 else ""
    spec = ModelSpec.predict(config, tokenizer_hash=digest, template=template)
    spec = replace(spec, has_tokenizer=tokenizer is not None, licence=repository.licence)
    return spec, f"{config.family.architecture}, supported"


def _work(repository: Repository, files: Sequence[RemoteFile], to_fetch: int) -> list[str]:
    total = sum(file.size for file in files)
    there = f" ({human_bytes(total - to_fetch)} are there already)" if to_fetch < total else ""
    lines = [
        f"fetch {human_bytes(to_fetch)} of the {human_bytes(total)} in {len(files)} files of {repository.label}{there}",
        f"commit {repository.commit}",
    ]
    if repository.gated:
        lines.append(f"gated: for those who accepted the owner's terms at {HUB}/{repository.name}")
    return lines


def _disk(needed: int, place: Path) -> Check:
    free = facts(place).disk_free
    said = f"{human_bytes(needed)} needed at {place}, {human_bytes(free)} free" if free is not None else "not known"
    return Check("disk", free is None or needed <= free, said)


def run_pull(plan: Plan, context: Context) -> Result:
    """Fetch what is missing and check all of it; `data` names repository, commit, licence, files and folder."""
    repository: Repository = plan.details["repository"]
    files: list[RemoteFile] = plan.details["files"]
    cached = blobs_of(folder_of(repository.name, cache_root()))
    if plan.details["note"]:
        context.reporter.say(plan.details["note"])
    if plan.out is None:
        for name in drop_damaged(files, cached, context.reporter):
            context.reporter.say(f"{name} is damaged in the cache: it is fetched anew")
        folder = fetch(repository, context.reporter)
        names = {file.name: file for file in files}
    else:
        fetch_blobs(repository, files, context.work, context.reporter, cached)
        folder, names = context.out, _names(files)
        for name, file in names.items():
            _place(context.work / file.digest, folder / name)
    data = {
        **_facts(repository),
        "bytes": sum(file.size for file in files),
        "files": {name: _entry(folder / name, file) for name, file in names.items()},
    }
    if plan.out is None:
        data["path"] = str(folder)
    return Result(data, _view(repository, files, plan.out or folder))


def _names(files: Sequence[RemoteFile]) -> dict[str, RemoteFile]:
    """By what name each file stands in a plain folder: its own, but the repository's record beside ours."""
    names = {file.name: file for file in files if file.name not in _OURS}
    return names | {f"origin-{file.name}": file for file in files if file.name in _OURS}


def _place(blob: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        os.link(blob, path)  # the blob itself goes with the folder of unfinished work
    except OSError:
        shutil.copyfile(blob, path)


def _facts(repository: Repository) -> dict[str, Any]:
    return {
        "repository": repository.name,
        "revision": repository.revision,
        "commit": repository.commit,
        "licence": repository.licence,
        "gated": repository.gated,
    }


def _entry(path: Path, file: RemoteFile) -> dict[str, Any]:
    sha256 = file.digest if len(file.digest) == 64 else digest_file(path)
    return {"bytes": file.size, "sha256": sha256}


def _view(repository: Repository, files: Sequence[RemoteFile], folder: Path) -> list[Block]:
    rows = [
        ("commit", repository.commit),
        ("licence", repository.licence or "not stated"),
        ("gated", repository.gated),
        ("files", f"{len(files)}, {human_bytes(sum(file.size for file in files))}, all checked"),
        ("folder", str(folder)),
    ]
    return [Table(repository.label, ("", ""), rows)]
