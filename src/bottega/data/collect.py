"""`bottega data collect`: from documents to a corpus folder.

The two sides are split first, by name. Everything else is derived from each side on its
own: text, conversations, questions. In between, training blocks that resemble a held-out
one are dropped, with the facts that stand in them.
"""

from __future__ import annotations

import ast
import json
import platform
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottega.core.atomic import write_json
from bottega.core.errors import UserError
from bottega.core.hashing import digest_bytes, digest_data
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.verb import Context, Result
from bottega.core.view import Table, human_bytes, human_count
from bottega.data import dedup, sources, spec, split, stdlib
from bottega.data.blocks import Block, paragraphs, python_blocks, without
from bottega.data.config import CollectData
from bottega.data.facts import Fact, section_facts, short_names, symbol_facts
from bottega.data.pairs import conversation, questions
from bottega.data.sources import Document, Skipped, write_row
from bottega.data.symbols import Module, published, read_module

STAGED_FILE = "staged.jsonl"
MAX_FACTS = 200_000
"""Facts kept of each side; it bounds the memory."""
_BYTES_PER_SECOND = 1.9e6


def plan_collect(config: CollectData, specs: Specs) -> Plan:  # noqa: ARG001 (reads sources, not artefacts)
    """Look at names and sizes only."""
    plan = Plan("data collect", config, out=config.out)
    skipped = Skipped()
    if config.source == "python":
        files = {name: path.stat().st_size for name, path in stdlib.source_files().items()}
        extensions = stdlib.extension_modules()
        # The documentation of modules in C has no size before it is asked for; per module it is near this.
        total = sum(files.values()) + 4_000 * len(extensions) + 470_000
        count = len(files) + len(extensions) + 80
        plan.details["environment"] = {"python": platform.python_version(), "files": digest_data([files, extensions])}
        detail = f"{count} documents of Python {platform.python_version()}, {human_bytes(total)}"
    else:
        path = Path(config.source)
        plan.inputs["source"] = path
        files = {str(file): file.stat().st_size for file in _files(path, skipped)}
        total, count = sum(files.values()), len(files)
        detail = f"{count} files, {human_bytes(total)}" if path.exists() else "there is no such file or folder"
        if skipped.counts:
            detail += "; left out: " + ", ".join(f"{n} {reason}" for reason, n in skipped.counts.most_common(5))
    plan.checks.append(Check("source", count > 0, detail))
    plan.work = [
        f"read {detail}",
        f"hold out {config.held_out:.0%} of the bytes, drop what resembles them from the rest",
        f"write conversations, and up to {2 * config.questions} multiple-choice questions",
    ]
    heldout = min(int(total * config.held_out), split.MAX_HELDOUT)
    plan.cost = Cost(
        bytes_read=total,
        bytes_written=int(1.2 * total),
        peak_memory=int(70e6 + 40 * heldout + 500 * count),
        seconds=0.5 + total / _BYTES_PER_SECOND,
    )
    plan.produces = spec.CorpusSpec(
        documents=count,
        bytes=total,
        heldout_bytes=heldout,
        has_conversations=True if config.source == "python" else None,
        questions=2 * config.questions if config.source == "python" else 0,
    )
    return plan


def run_collect(plan: Plan, context: Context) -> Result:
    """Write the corpus folder; raises UserError if nothing could be read."""
    assert isinstance(plan.config, CollectData)
    collection = _Collection(plan.config, context.out)
    with context.reporter.bar("reading", plan.cost.bytes_read or None, "B") as bar:
        collection.stage(bar.advance)
    with context.reporter.bar("splitting", collection.staged_bytes, "B") as bar:
        collection.distribute(bar.advance)
    manifest = collection.finish()
    counts = {side: manifest[side] for side in ("train", "heldout")}
    rows = [
        ("training text", f"{counts['train']['documents']} documents", human_bytes(counts["train"]["bytes"])),
        ("held-out text", f"{counts['heldout']['documents']} documents", human_bytes(counts["heldout"]["bytes"])),
        ("near-duplicates dropped", f"{manifest['dropped']['near_duplicate_blocks']} blocks", ""),
        ("conversations", human_count(manifest["conversations"]["count"]), ""),
        ("questions", f"{manifest['questions']['seen']} seen, {manifest['questions']['unseen']} unseen", ""),
    ]
    for reason, row in manifest["skipped"].items():
        rows.append((f"left out: {reason}", row["count"], ", ".join(row["examples"])))
    return Result(manifest, [Table("Corpus", ("", "count", "size"), rows, note=manifest["fine_tuning"])])


def _files(path: Path, skipped: Skipped) -> Iterator[Path]:
    if path.is_dir():
        yield from sources.source_files(path, skipped)
    elif path.is_file():
        yield path


@dataclass
class _Side:
    """What has been written and learnt of one side."""

    documents: int = 0
    bytes: int = 0
    facts: dict[str, Fact] = field(default_factory=dict)
    given: int = 0
    beyond: int = 0

    def learn(self, facts: Iterator[Fact]) -> None:
        for fact in facts:
            if len(self.facts) < MAX_FACTS:
                self.facts.setdefault(fact.id, fact)
            else:
                self.beyond += 1


class _Collection:
    """The work of one `collect`, in three passes: stage, distribute, finish."""

    def __init__(self, config: CollectData, out: Path) -> None:
        self.config, self.out = config, out
        self.is_python = config.source == "python"
        self.skipped = Skipped()
        self.sizes: Counter[str] = Counter()
        self.staged_bytes = self.staged_documents = self.exact = 0
        self.dropped: Counter[str] = Counter()
        self.sides = {"train": _Side(), "heldout": _Side()}
        self.modules: dict[str, list[Module]] = {"train": [], "heldout": []}
        self.heldout: set[str] = set()

    def stage(self, advance: Callable[[float], None]) -> None:
        """Read the source once, into one file of rows; exact duplicates are left out."""
        if self.is_python:
            documents = stdlib.read_python(self.skipped)
        else:
            documents = sources.read_documents(Path(self.config.source), self.skipped)
        seen: set[bytes] = set()
        with (self.out / STAGED_FILE).open("w", encoding="utf-8") as file:
            for document in documents:
                size = len(document.text.encode("utf-8"))
                advance(size)
                digest = bytes.fromhex(digest_bytes(document.text.strip().encode("utf-8")))[:16]
                if digest in seen:
                    self.exact += 1
                    continue
                seen.add(digest)
                row = {"id": document.id, "text": document.text, "source": document.source}
                write_row(file, row | ({"messages": document.messages} if document.messages else {}))
                self.staged_documents += 1
                self.staged_bytes += size
        if not self.staged_documents:
            reasons = ", ".join(f"{reason} ({n})" for reason, n in self.skipped.counts.most_common())
            raise UserError(
                f"nothing readable in {self.config.source}" + (f": {reasons}" if reasons else ""),
                hint="Documents are .txt, .md, .rst, .html, .json, .jsonl or .parquet files.",
            )

    def distribute(self, advance: Callable[[float], None]) -> None:
        """Write each document to its side; the held-out side first, for the other is compared with it."""
        for document in self._documents():
            self.sizes[self._unit(document.id)] += len(document.text.encode("utf-8"))
        self.heldout = split.choose_heldout(self.sizes, self.config.held_out, self.config.seed)
        index = dedup.HeldoutIndex()
        for side, name in (("heldout", spec.HELDOUT_FILE), ("train", spec.TRAIN_FILE)):
            with ExitStack() as stack:
                texts = stack.enter_context((self.out / name).open("w", encoding="utf-8"))
                # Given conversations are written as they come; made ones are added at the end.
                given = stack.enter_context((self.out / spec.CONVERSATIONS_FILE).open("w", encoding="utf-8"))
                for document in self._documents():
                    if (self._unit(document.id) in self.heldout) != (side == "heldout"):
                        continue
                    advance(len(document.text.encode("utf-8")))
                    self._place(document, side, index, texts, given)

    def _place(self, document: Document, side: str, index: dedup.HeldoutIndex, texts: Any, given: Any) -> None:
        tree = self._parse(document)
        blocks = python_blocks(document.text, tree) if tree else paragraphs(document.text)
        text, gone = document.text, []
        if side == "heldout":
            index.add(block.text for block in blocks)
        else:
            gone = [blocks[number] for number in index.find([block.text for block in blocks])]
            if gone:
                text = without(text, gone)
                self.dropped["near_duplicate_blocks"] += len(gone)
                self.dropped["near_duplicate_bytes"] += len(document.text.encode()) - len(text.encode())
                self.dropped["documents_touched"] += 1
            if not text.strip():
                self.dropped["documents_left_empty"] += 1
                return
        write_row(texts, {"id": document.id, "text": text, "source": document.source})
        found = self.sides[side]
        found.documents += 1
        found.bytes += len(text.encode("utf-8"))
        if document.messages and side == "train" and not gone:
            write_row(given, {"id": document.id, "messages": document.messages, "kind": "given"})
            found.given += 1
        if tree is not None:
            self._read_symbols(document, side, tree, gone)
        elif not self.is_python and not document.messages:
            found.learn(section_facts(text, document.source, is_row=sources.is_rows(document.source)))

    def _parse(self, document: Document) -> ast.Module | None:
        if not self.is_python or stdlib.module_name(document.id) is None:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return ast.parse(document.text)
            except (SyntaxError, ValueError, RecursionError):
                self.skipped.add("source that does not parse (kept as text)", document.id)
                return None

    def _read_symbols(self, document: Document, side: str, tree: ast.Module, gone: list[Block]) -> None:
        name = stdlib.module_name(document.id)
        assert name is not None
        module = read_module(name, tree, is_package=document.id.endswith("/__init__.py"))
        if gone:
            lost = {number for block in gone for number in range(block.first, block.last + 1)}
            module.symbols = [s for s in module.symbols if not lost & {s.lines[0], s.lines[2]}]
        self.modules[side].append(module)

    def finish(self) -> dict[str, Any]:
        """Conversations, questions and manifest."""
        # Names are resolved over all modules, as people know them; facts then go to their own side.
        if self.is_python:
            self._learn_symbols()
        train, heldout = self.sides["train"], self.sides["heldout"]
        kinds = Counter({"given": train.given} if train.given else {})
        with (self.out / spec.CONVERSATIONS_FILE).open("a", encoding="utf-8") as file:
            for fact in train.facts.values():
                messages = conversation(fact, self.config.seed)
                write_row(file, {"id": fact.id, "messages": messages, "kind": fact.kind})
                kinds[fact.kind] += 1
        seed, limit = self.config.seed, self.config.questions
        asked = questions(list(train.facts.values()), "seen", seed, limit)
        asked += questions(list(heldout.facts.values()), "unseen", seed, limit, known=train.facts.values())
        with (self.out / spec.QUESTIONS_FILE).open("w", encoding="utf-8") as file:
            for question in asked:
                write_row(file, question)
        (self.out / STAGED_FILE).unlink()
        manifest = self._manifest(kinds, asked)
        write_json(self.out / spec.CORPUS_FILE, manifest)
        return manifest

    def _learn_symbols(self) -> None:
        sides = {id(module): side for side, modules in self.modules.items() for module in modules}
        everything = [module for modules in self.modules.values() for module in modules]
        everything.sort(key=lambda module: (module.name.startswith("_"), module.name))
        by_side = published(everything)
        ambiguous = short_names([symbol for symbol, _ in by_side])
        for name, side in self.sides.items():
            symbols = [symbol for symbol, module in by_side if sides[id(module)] == name]
            side.learn(symbol_facts(symbols, ambiguous))

    def _manifest(self, kinds: Counter[str], asked: list[dict[str, Any]]) -> dict[str, Any]:
        groups = Counter(question["group"] for question in asked)
        by_kind = Counter(f"{question['group']} {question['kind']}" for question in asked)
        train, heldout = self.sides["train"], self.sides["heldout"]
        if kinds:
            fine_tuning = f"{sum(kinds.values())} conversations to fine-tune on"
        else:
            fine_tuning = "no fine-tuning: no heading in the documents is followed by a paragraph of prose"
        return {
            "kind": "corpus",
            "schema_version": spec.SCHEMA_VERSION,
            "source": self.config.source,
            "license": stdlib.LICENSE if self.is_python else "not known: these are the user's own documents",
            "train": {"documents": train.documents, "bytes": train.bytes},
            "heldout": {"documents": heldout.documents, "bytes": heldout.bytes},
            "split": {
                "unit": "module and its family, topic" if self.is_python else "document, or part of a large one",
                "seed": self.config.seed,
                "share": round(heldout.bytes / (train.bytes + heldout.bytes), 4),
                # For people; the first of many are enough.
                "heldout_units": sorted(self.heldout)[:100],
            },
            "dropped": {
                "exact_duplicate_documents": self.exact,
                "near_duplicate_blocks": 0,
                "near_duplicate_bytes": 0,
                **self.dropped,
            },
            "conversations": {"count": sum(kinds.values()), "kinds": dict(kinds), "beyond_limit": train.beyond},
            "questions": {
                "count": len(asked),
                "seen": groups["seen"],
                "unseen": groups["unseen"],
                "kinds": dict(sorted(by_kind.items())),
            },
            "fine_tuning": fine_tuning,
            "skipped": self.skipped.as_data(),
        }

    def _unit(self, id_: str) -> str:
        return stdlib.family(id_) if self.is_python else id_

    def _documents(self) -> Iterator[Document]:
        """The staged documents, large ones in parts."""
        with (self.out / STAGED_FILE).open(encoding="utf-8") as file:
            for line in file:
                document = Document(**json.loads(line))
                if self.is_python or document.messages:
                    yield document
                    continue
                for number, text in enumerate(split.parts(document.text, self.staged_bytes)):
                    if text.strip():
                        id_ = f"{document.id}:{number}" if len(text) < len(document.text) else document.id
                        yield Document(id_, text, document.source)
