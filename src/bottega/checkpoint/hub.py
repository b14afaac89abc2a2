"""Where a model is: a folder on this machine, or, only when the user names one, a repository of the hub.

Nothing is fetched unless the name is not an existing path and has the form `org/name[@revision]`.
Needs huggingface_hub (the extra `hub`); its cache is used, so a second time works offline.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bottega.checkpoint.header import LEGACY_INDEX, LEGACY_WEIGHTS, WEIGHTS, WEIGHTS_INDEX
from bottega.core.errors import UserError

_REPOSITORY = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?")
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "README.md", "merges.txt")


def locate(model: Path | str) -> Path:
    """The folder (or GGUF file) of `model`, fetched from the hub if that is what it names.

    Raises UserError that says what to do if there is none.
    """
    path = Path(model)
    if path.is_dir():
        return path
    if path.suffix == ".gguf" and path.is_file():
        return path
    if path.exists():
        raise UserError(
            f"{path} is a file; a model is a folder (or a .gguf file)", hint="Name the folder that holds config.json."
        )
    match = _REPOSITORY.fullmatch(str(model))
    if match is None or path.parent.is_dir():
        raise UserError(f"there is no model at {path}", hint="Name a model folder, or org/name of the hub.")
    return fetch(match["name"], match["revision"])


def fetch(name: str, revision: str | None = None) -> Path:
    """The folder of a repository of the hub in huggingface_hub's cache; raises UserError.

    Only what a model folder has is fetched: of the weights safetensors, `.bin` where there are none.
    """
    label = f"{name}@{revision}" if revision else name
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            f"there is no folder {label}, and fetching a model from the hub needs huggingface_hub",
            hint="Install it with: pip install 'bottega[hub]'. Or name the folder of a model on this machine.",
        ) from None
    try:
        folder = Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(_SMALL_FILES)))
        weights = _weights(folder, huggingface_hub, name, folder.name)
        huggingface_hub.snapshot_download(name, revision=folder.name, allow_patterns=[*_SMALL_FILES, *weights])
    except Exception as error:
        raise _explained(error, label) from None
    return folder


def _weights(folder: Path, hub: Any, name: str, commit: str) -> list[str]:
    """Names of the files of weights: from an index, or the single file that the repository has."""
    for index, shards in ((WEIGHTS_INDEX, "model-*.safetensors"), (LEGACY_INDEX, "pytorch_model-*.bin")):
        if (folder / index).is_file():
            return [shards]
    if (folder / WEIGHTS).exists() or (folder / LEGACY_WEIGHTS).exists():
        return []
    return [WEIGHTS] if hub.file_exists(name, WEIGHTS, revision=commit) else [LEGACY_WEIGHTS]


def _explained(error: Exception, label: str) -> Exception:
    """The hub's error in words that say what to do; another error stays itself."""
    import httpx
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"{label} is gated: its owner wants you to agree to terms first",
            hint=f"Accept them at https://huggingface.co/{label.partition('@')[0]}, then run: hf auth login",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{label}: the repository has no such revision", hint="Name a branch, a tag or a commit.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(
            f"there is no folder {label}, and the hub has no such model that you may see",
            hint="Check the name. For a private one run: hf auth login",
        )
    # The hub's package takes any failure for a missing connection; the cause tells them apart.
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    if isinstance(cause, errors.HfHubHTTPError) and cause.response is not None:
        return UserError(f"the hub refused {label} (HTTP status {cause.response.status_code})", hint="Try again later.")
    offline = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx.TransportError, ConnectionError)
    if isinstance(error, offline):
        return UserError(
            f"there is no folder {label}, and the hub cannot be reached",
            hint="Without a connection, name the folder of a model on this machine (or one fetched before).",
        )
    if isinstance(error, errors.HFValidationError):
        return UserError(f"{label} is neither a folder nor a name the hub can have")
    return error
