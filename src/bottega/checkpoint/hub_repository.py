"""What a repository of the hub holds, and which of its files make a model folder.

Names and sizes come from whoever runs the hub or made the repository. A name that could reach
outside a folder makes the whole repository suspect, and it is refused before anything is written.
Each file has a hash: SHA-256 where it is kept in LFS, else git's (SHA-1 of "blob SIZE\\0" and content).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bottega.checkpoint.header import (
    ADAPTER_WEIGHTS,
    LEGACY_ADAPTER_WEIGHTS,
    LEGACY_INDEX,
    LEGACY_WEIGHTS,
    WEIGHTS,
    WEIGHTS_INDEX,
    read_index,
)
from bottega.checkpoint.hub_errors import explained, hub_package, plain_text
from bottega.core.errors import UserError
from bottega.core.view import human_bytes

LICENCE_FILES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*")
SMALL_FILES = (
    "*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt", "README.md",
    "additional_chat_templates/*.jinja", "[0-9]_*/config.json",
)  # fmt: skip
OTHER_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ot", ".tflite")
MAX_SMALL_BYTES = 256 * 2**20  # the largest tokenizer.json there is has 35 MB
MAX_FILES = 50_000
MAX_FILE_BYTES = 50 * 10**9  # above that the hub serves no plain HTTP
SECONDS = 30.0  # for the hub to answer a question about a repository

_REPOSITORY = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w.-]*(?:/\w[\w.-]*)*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PLAIN_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its name, bytes, and hash (64 digits: SHA-256; 40: git's)."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Repository:
    """A model of the hub at one commit. `files` are those that a model folder may have, by name."""

    name: str
    revision: str | None
    commit: str
    files: Mapping[str, RemoteFile]
    licence: str | None = None
    gated: bool = False
    private: bool = False
    others: tuple[str, ...] = ()
    """Names of the files that are left where they are."""

    @property
    def label(self) -> str:
        """`org/name`, with `@revision` if one was named."""
        return label_of(self.name, self.revision)


def label_of(name: str, revision: str | None) -> str:
    """`org/name[@revision]`."""
    return f"{name}@{revision}" if revision else name


def parse_name(text: str) -> tuple[str, str | None] | None:
    """`org/name[@revision]` as its two parts; None if it is no such name."""
    match = _REPOSITORY.fullmatch(text)
    return (match["name"], match["revision"]) if match else None


def require_name(text: str) -> tuple[str, str | None]:
    """`parse_name`; raises UserError."""
    parsed = parse_name(text)
    if parsed is None:
        raise UserError(f"{text!r} is not the name of a model of the hub", hint="Write it as ORG/NAME[@REVISION].")
    return parsed


def is_commit(text: str) -> bool:
    """Whether it is a full commit (40 hexadecimal digits)."""
    return _COMMIT.fullmatch(text) is not None


def ask(name: str, revision: str | None = None) -> Repository:
    """What the hub says about a model: one request, nothing is written; raises UserError."""
    label = label_of(name, revision)
    api = hub_package().HfApi(library_name="bottega")
    try:
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=SECONDS)
        siblings = [(entry.rfilename, *_announced(entry)) for entry in info.siblings or ()]
    except Exception as error:
        raise explained(error, label) from None
    if not isinstance(info.sha, str) or not is_commit(info.sha):
        raise UserError(f"{label}: the hub names no commit but {info.sha!r}")
    files, others = _sorted_out(siblings, label)
    return Repository(name, revision, info.sha, files, _licence(info), bool(info.gated), bool(info.private), others)


def _announced(entry: Any) -> tuple[Any, Any]:
    """Size and hash as the hub tells them."""
    return (entry.lfs.size, entry.lfs.sha256) if entry.lfs else (entry.size, entry.blob_id)


def _sorted_out(siblings: Iterable[tuple[Any, Any, Any]], label: str) -> tuple[dict[str, RemoteFile], tuple[str, ...]]:
    """Files that a model folder may have, and the names of the rest; raises UserError for what cannot be trusted."""
    files: dict[str, RemoteFile] = {}
    others: list[str] = []
    for number, (name, size, digest) in enumerate(siblings):
        if number == MAX_FILES:
            raise UserError(f"{label} has more than {MAX_FILES} files, which no model has")
        if not isinstance(name, str) or _is_unsafe(name):
            raise UserError(
                f"{label}: the hub names a file {name!r}, which could reach outside its folder",
                hint="Nothing was written. Do not use this repository.",
            )
        if not belongs(name):
            others.append(name)
            continue
        if _DEVICES.fullmatch(name.rpartition("/")[2]) or name in files:
            what = "which names a device on some systems" if name not in files else "twice"
            raise UserError(f"{label}: the hub names a file {name!r}, {what}")
        if type(size) is not int or size < 0 or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise UserError(f"{label}: the hub does not tell the size and the hash of {name}")
        if size > (MAX_FILE_BYTES if is_weights(name) else MAX_SMALL_BYTES):
            raise UserError(f"{label}: {name} has {human_bytes(size)}, which is more than can be fetched")
        files[name] = RemoteFile(name, size, digest)
    return files, tuple(others)


def _is_unsafe(name: str) -> bool:
    """Whether a path could reach outside the folder that it is meant for, on any system."""
    parts = name.split("/")
    return (
        any(part in ("", ".", "..") for part in parts)
        or any(character == "\\" or not character.isprintable() for character in name)
        or re.match(r"[A-Za-z]:", name) is not None
    )


def belongs(name: str) -> bool:
    """Whether a file of this name may be part of a model folder: weights, settings, tokenizer, card, licence."""
    if not all(_PLAIN_PART.fullmatch(part) for part in name.split("/")):
        return False
    return is_weights(name) or is_licence(name) or any(_matches(name, pattern) for pattern in SMALL_FILES)


def is_weights(name: str) -> bool:
    """Whether the name is that of weights in a format that we read."""
    return "/" not in name and name.endswith((".safetensors", ".bin"))


def is_licence(name: str) -> bool:
    """Whether the name is that of a licence or a notice."""
    return any(_matches(name.upper(), pattern) for pattern in LICENCE_FILES)


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def _licence(info: Any) -> str | None:
    """The licence as the hub knows it: the tag `license:…`; of "other" its own name from the card."""
    tags = [tag for tag in info.tags or () if isinstance(tag, str)]
    licence = next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), None)
    return licence_text(licence, getattr(info.card_data, "license_name", None))


def licence_text(licence: object, own: object) -> str | None:
    """A licence for people: its identifier, and where that is "other", its own name."""
    if not licence:
        return None
    return plain_text(f"{licence} ({own})" if licence == "other" and own else licence)


def select(repository: Repository, get: Callable[[RemoteFile], Path]) -> list[RemoteFile]:
    """The files that make the model folder: of the weights safetensors, `.bin` only where there are none.

    Args:
        repository: what the hub has.
        get: gives the content of a file; an index is read to know the shards.

    Raises UserError if the weights are there only in formats that we do not read, or not all there.
    """
    files = repository.files
    small = [file for name, file in files.items() if not is_weights(name)]
    weights = _weights(repository, get)
    adapter = next((files[name] for name in (ADAPTER_WEIGHTS, LEGACY_ADAPTER_WEIGHTS) if name in files), None)
    if adapter:
        weights.append(adapter)
    if not weights:
        names = [*files, *repository.others]
        found = [suffix for suffix in OTHER_WEIGHTS if any(name.endswith(suffix) for name in names)]
        if found:
            raise UserError(
                f"{repository.label} has its weights only in files that are not read here ({', '.join(found)})",
                hint=f"A model folder has {WEIGHTS}, or {WEIGHTS_INDEX} and its shards.",
            )
    if any(file.name.endswith(".safetensors") for file in weights):
        small = [file for file in small if file.name != LEGACY_INDEX]
    return [*small, *weights]


def _weights(repository: Repository, get: Callable[[RemoteFile], Path]) -> list[RemoteFile]:
    files = repository.files
    for single, index in ((WEIGHTS, WEIGHTS_INDEX), (LEGACY_WEIGHTS, LEGACY_INDEX)):
        if single in files:
            return [files[single]]
        if index in files:
            shards = list(read_index(get(files[index])))
            absent = [name for name in shards if name not in files]
            if absent:
                raise UserError(f"{repository.label}: {index} names {absent[0]!r}, which the repository does not have")
            return [files[name] for name in shards]
    return []
