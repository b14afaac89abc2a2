"""What a corpus folder and a tokens folder are, read from their manifests.

A manifest may come from anywhere, so nothing in it is believed that the files do not
confirm: names of files are derived, not read, and sizes are compared with the counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np

from bottega.core.errors import UserError

CORPUS_FILE = "corpus.json"
MANIFEST_FILE = "manifest.json"
SCHEMA_VERSION = 1
TRAIN_FILE, HELDOUT_FILE = "train.jsonl", "heldout.jsonl"
CONVERSATIONS_FILE, QUESTIONS_FILE = "conversations.jsonl", "questions.jsonl"
EXAMPLES_FILE = "examples.jsonl"
Form = Literal["text", "chat", "pairs", "labelled", "prompts"]
"""What the documents of a tokens folder are.

text: whole texts, trained on everywhere. chat: documents with a mask of what is trained. pairs: documents 2i (chosen)
and 2i + 1 (rejected) have one prompt, the mask is True on the completion. labelled: prompt and completion, with a
label in `examples.jsonl`. prompts: prompts alone, with the fields of their source row in `examples.jsonl`.
"""
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class CorpusSpec:
    """A folder of documents split in two sides, with what was derived from each.

    `documents` and `bytes` count both sides; `has_conversations` is None while nobody can tell.
    `exact` says that the numbers were counted, not estimated from file sizes.
    """

    documents: int
    bytes: int
    heldout_bytes: int
    has_conversations: bool | None
    conversations: int = 0
    questions: int = 0
    exact: bool = False
    licence: str = ""
    kind: ClassVar[str] = "corpus"

    @property
    def training_bytes(self) -> int:
        """Bytes of the side to train on."""
        return self.bytes - self.heldout_bytes

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `corpus.json`; raises UserError if `path` is no corpus folder."""
        manifest = _read_manifest(path / CORPUS_FILE, "corpus")
        try:
            sides = [manifest["train"], manifest["heldout"]]
            spec = cls(
                documents=sum(_count(side["documents"]) for side in sides),
                bytes=sum(_count(side["bytes"]) for side in sides),
                heldout_bytes=_count(manifest["heldout"]["bytes"]),
                has_conversations=_count(manifest["conversations"]["count"]) > 0,
                conversations=_count(manifest["conversations"]["count"]),
                questions=_count(manifest["questions"]["count"]),
                exact=True,
                licence=str(manifest.get("license") or ""),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path / CORPUS_FILE} is not a corpus manifest: {error!r}") from None
        for name in (TRAIN_FILE, HELDOUT_FILE, CONVERSATIONS_FILE, QUESTIONS_FILE):
            if not (path / name).is_file():
                raise UserError(f"{path} is not a complete corpus: {name} is missing")
        return spec


@dataclass(frozen=True)
class Shard:
    """The arrays of one shard: tokens (T,), offsets (documents + 1,) and, of every form but text, mask (T,)."""

    tokens: Path
    offsets: Path
    mask: Path | None
    token_count: int
    document_count: int

    @classmethod
    def at(cls, folder: Path, index: int, *, chat: bool, tokens: int = 0, documents: int = 0) -> Self:
        """Shard number `index` of `folder`, by the naming rule; `chat` says that it has a mask."""
        names = [folder / f"{part}-{index:05d}.npy" for part in ("tokens", "offsets", "mask")]
        return cls(names[0], names[1], names[2] if chat else None, tokens, documents)

    def files(self) -> Iterator[tuple[Path, int, tuple[str, ...]]]:
        """(path, number of items, allowed NumPy dtypes) of each file."""
        yield self.tokens, self.token_count, ("uint16", "uint32")
        yield self.offsets, self.document_count + 1, ("int64",)
        if self.mask is not None:
            yield self.mask, self.token_count, ("uint8",)


@dataclass(frozen=True)
class TokensSpec:
    """A folder of token shards. Numbers are estimates until `exact`; `longest` is 0 while unknown.

    `chat` says that the form is "chat"; a `form` that is left out follows from it.
    """

    tokens: int
    documents: int
    trained_tokens: int
    vocab_size: int
    tokenizer_hash: str
    template_hash: str
    chat: bool
    longest: int = 0
    text_bytes: int = 0
    exact: bool = False
    licence: str = ""
    """What the corpus says of its text, in words; empty if nothing is known."""
    shards: tuple[Shard, ...] = ()
    form: Form | None = None
    kind: ClassVar[str] = "tokens"

    def __post_init__(self) -> None:
        form = self.form or ("chat" if self.chat else "text")
        if form not in FORMS or (form == "chat") != self.chat:
            raise ValueError(f"form {form!r}, chat {self.chat}")
        object.__setattr__(self, "form", form)

    @property
    def masked(self) -> bool:
        """Whether each document has a mask of what is trained."""
        return self.form != "text"

    @property
    def examples(self) -> int:
        """Documents, or pairs of them."""
        return self.documents // 2 if self.form == "pairs" else self.documents

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the manifest and the shards' headers; raises UserError where they contradict each other."""
        manifest = _read_manifest(path / MANIFEST_FILE, "tokens")
        try:
            chat = bool(manifest["chat"])
            masked = chat or manifest.get("form", "text") != "text"
            spec = cls(
                tokens=_count(manifest["tokens"]),
                documents=_count(manifest["documents"]),
                trained_tokens=_count(manifest["trained_tokens"]),
                vocab_size=_count(manifest["vocab_size"]),
                tokenizer_hash=str(manifest["tokenizer_hash"]),
                template_hash=str(manifest["template_hash"]),
                chat=chat,
                longest=_count(manifest["longest"]),
                text_bytes=_count(manifest["text_bytes"]),
                exact=True,
                licence=str(manifest.get("license") or ""),
                shards=tuple(
                    Shard.at(path, i, chat=masked, tokens=_count(row["tokens"]), documents=_count(row["documents"]))
                    for i, row in enumerate(manifest["shards"])
                ),
                form=manifest.get("form"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path / MANIFEST_FILE} is not a tokens manifest: {error!r}") from None
        spec._check(path)
        return spec

    def _check(self, path: Path) -> None:
        for name, total, parts in (
            ("tokens", self.tokens, [shard.token_count for shard in self.shards]),
            ("documents", self.documents, [shard.document_count for shard in self.shards]),
        ):
            if sum(parts) != total:
                raise UserError(f"{path}: the shards hold {sum(parts)} {name}, the manifest says {total}")
        if self.form == "pairs" and self.documents % 2:
            raise UserError(f"{path}: {self.documents} documents are no pairs")
        if self.form in ("pairs", "labelled", "prompts") and not (path / EXAMPLES_FILE).is_file():
            raise UserError(f"{path} is not a complete folder of {self.form}: {EXAMPLES_FILE} is missing")
        for shard in self.shards:
            if not shard.token_count:
                raise UserError(f"{path}: {shard.tokens.name} is said to be empty; an empty shard is never written")
            for file, items, dtypes in shard.files():
                check_array(file, items, dtypes)


def check_array(path: Path, items: int, dtypes: tuple[str, ...]) -> None:
    """Raise UserError unless `path` is a .npy file of exactly `items` values of one of `dtypes`."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version} of the format")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            expected = file.tell() + math.prod(shape) * dtype.itemsize
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an array: {error}", hint="Prepare the data again.") from None
    if fortran or shape != (items,) or dtype.name not in dtypes or dtype.byteorder == ">":
        raise UserError(f"{path} holds {dtype.name}{list(shape)}, but {items} of {' or '.join(dtypes)} are needed")
    if path.stat().st_size != expected:
        raise UserError(f"{path} has {path.stat().st_size} bytes, its header needs {expected}: it was cut or changed")


def _read_manifest(path: Path, kind: str) -> dict[str, Any]:
    """The JSON object at `path`, of this kind and of a schema version that we know."""
    if not path.is_file():
        raise UserError(f"{path.parent} is not a {kind} folder: it has no {path.name}")
    try:
        data = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict) or data.get("kind") != kind:
        raise UserError(f"{path} is not the manifest of a {kind} folder")
    if data.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{path} has schema version {data.get('schema_version')!r}, this version knows 1")
    return data


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
