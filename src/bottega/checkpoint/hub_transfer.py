"""Bytes from the hub into files named by their hash ("blobs"), resumable and checked.

A file grows as `HASH.incomplete` and is renamed to `HASH` once its size and hash are right, so a
blob that has its name is whole. huggingface_hub does the HTTP: tokens, redirects, waiting when the
hub is busy, going on after a broken connection. (Its own downloads start a file anew after Ctrl-C,
and take the names of files in its cache from the server's headers; hence this module.)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Self

from bottega.checkpoint.hub_errors import explained, hub_package, without_its_bars
from bottega.checkpoint.hub_repository import RemoteFile, Repository
from bottega.core.errors import UserError
from bottega.core.progress import Bar, Reporter
from bottega.core.view import human_bytes

CHUNK = 2**20
AGAIN = "What came is kept: the same command goes on from there."


def has_blob(store: Path, file: RemoteFile) -> bool:
    """Whether `store` holds the file, whole."""
    path = store / file.digest
    return path.is_file() and path.stat().st_size == file.size


def missing_bytes(files: Iterable[RemoteFile], *stores: Path) -> int:
    """How many bytes of `files` are in none of the stores; what an interrupted run left counts as there."""
    missing = 0
    for file in _distinct(files):
        if not any(has_blob(store, file) for store in stores):
            missing += file.size - _begun(stores[0], file)
    return missing


def fetch_blobs(
    repository: Repository, files: Iterable[RemoteFile], store: Path, reporter: Reporter, cached: Path | None = None
) -> None:
    """Bring each of `files` into `store`, from the blobs in `cached` where they are, else from the hub.

    Raises UserError if a file does not come, or is not what the hub announced.
    """
    wanted = [file for file in _distinct(files) if not has_blob(store, file)]
    if not wanted:
        return
    store.mkdir(parents=True, exist_ok=True)
    total, begun = sum(file.size for file in wanted), sum(_begun(store, file) for file in wanted)
    with reporter.bar(f"fetch {repository.label}", total, "B", done=begun) as bar, without_its_bars():
        for file in wanted:
            _fetch(repository, file, store, bar, cached)


def drop_damaged(files: Iterable[RemoteFile], store: Path, reporter: Reporter) -> list[str]:
    """Remove the blobs in `store` whose content is not what their hash says; the names of those files."""
    there = [file for file in _distinct(files) if has_blob(store, file)]
    damaged: list[str] = []
    if not there:
        return damaged
    with reporter.bar("check", sum(file.size for file in there), "B") as bar:
        for file in there:
            hasher = _hasher(file)
            with (store / file.digest).open("rb") as content:
                while chunk := content.read(CHUNK):
                    hasher.update(chunk)
                    bar.advance(len(chunk))
            if hasher.hexdigest() != file.digest:
                (store / file.digest).unlink()
                damaged.append(file.name)
    return damaged


def _hasher(file: RemoteFile) -> hashlib._Hash:
    """Of the kind that the file's digest is of."""
    if len(file.digest) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


def _distinct(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    return list({file.digest: file for file in files}.values())


def _unfinished(store: Path, file: RemoteFile) -> Path:
    return store / f"{file.digest}.incomplete"


def _begun(store: Path, file: RemoteFile) -> int:
    path = _unfinished(store, file)
    size = path.stat().st_size if path.is_file() else 0
    return size if size <= file.size else 0


def _fetch(repository: Repository, file: RemoteFile, store: Path, bar: Bar, cached: Path | None) -> None:
    """One file. If what an interrupted run left, or the cache, turns out to be wrong, it is fetched anew, once."""
    path = _unfinished(store, file)
    sources = [cached, None] if cached and has_blob(cached, file) else [None]
    if _begun(store, file):
        sources.append(None)
    for source in sources:
        with _Sink(path, file, bar) as sink:
            if source is None:
                _receive(repository, file, sink)
            else:
                _copy(source / file.digest, sink)
            if sink.is_right():
                os.fsync(sink.file)
                os.replace(path, store / file.digest)
                return
            bar.advance(-sink.received)
        path.unlink()
    raise UserError(
        f"{repository.label}: {file.name} is not what the hub announced (its hash differs)",
        hint="Nothing of the file is kept. If it happens again, do not use this repository or this connection.",
    )


def _receive(repository: Repository, file: RemoteFile, sink: _Sink) -> None:
    hub = hub_package()
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    where = f"{repository.label}: {file.name}"
    try:
        http_get(
            hub.hf_hub_url(repository.name, file.name, revision=repository.commit),
            sink,  # type: ignore[arg-type]
            resume_size=sink.received,
            headers=build_hf_headers(library_name="bottega"),
            expected_size=file.size,
            displayed_filename=file.name,
        )
    except UserError:
        raise
    except Exception as error:
        if sink.received < file.size and type(error) is OSError and error.errno is None:
            raise UserError(
                f"{where}: {sink.received} of {file.size} bytes came, then the hub said that it was all", hint=AGAIN
            ) from None
        found = explained(error, repository.label)
        if isinstance(found, UserError) and sink.received:
            raise UserError(f"{found.message} (at {human_bytes(sink.received)} of {file.name})", hint=AGAIN) from None
        raise found from None


def _copy(path: Path, sink: _Sink) -> None:
    with path.open("rb") as file:
        file.seek(sink.received)
        while chunk := file.read(CHUNK):
            sink.write(chunk)


class _Sink:
    """The file that http_get writes to: it counts, hashes, and takes no byte more than was announced."""

    def __init__(self, path: Path, announced: RemoteFile, bar: Bar) -> None:
        self.path, self.announced, self.bar = path, announced, bar
        self.file: IO[bytes] = path.open("r+b" if path.exists() else "w+b")
        self._begin()
        if _begun(path.parent, announced):
            while chunk := self.file.read(CHUNK):
                self.hash.update(chunk)
                self.received += len(chunk)
        else:
            self.file.truncate(0)

    def _begin(self) -> None:
        self.received = 0
        self.hash = _hasher(self.announced)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, chunk: bytes) -> int:
        """Append; raises UserError when more comes than was announced."""
        if self.received + len(chunk) > self.announced.size:
            self.path.unlink(missing_ok=True)
            raise UserError(
                f"{self.announced.name} is larger than the {self.announced.size} bytes that the hub announced",
                hint="Nothing of the file is kept. Do not use this repository or this connection.",
            )
        self.file.write(chunk)
        self.hash.update(chunk)
        self.received += len(chunk)
        self.bar.advance(len(chunk))
        return len(chunk)

    def tell(self) -> int:
        """Bytes received."""
        return self.received

    def seek(self, position: int) -> int:
        """Back to the beginning: the server did not go on where it was asked to, and sends all again."""
        if position:
            raise ValueError("only the beginning can be sought")
        self.bar.advance(-self.received)
        self._begin()
        return self.file.seek(0)

    def truncate(self) -> int:
        """Forget what follows."""
        return self.file.truncate()

    def is_right(self) -> bool:
        """Whether size and hash are as announced."""
        self.file.flush()
        return self.received == self.announced.size and self.hash.hexdigest() == self.announced.digest
