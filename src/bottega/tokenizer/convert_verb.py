"""`bottega tokenizer convert`: a vocabulary in another format becomes a tokenizer folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.verb import Context, Result
from bottega.core.view import Table, Text
from bottega.tokenizer.config import ConvertTokenizer
from bottega.tokenizer.files import files_of
from bottega.tokenizer.foreign.assemble import Converted
from bottega.tokenizer.foreign.companions import FILES as COMPANION_FILES
from bottega.tokenizer.foreign.source import convert, find
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer

# Measured on one core, for the vocabulary with the most merges.
BYTES_PER_SECOND = 1e6


def plan_convert(config: ConvertTokenizer, specs: Specs) -> Plan:  # noqa: ARG001 (it reads no artefact of ours)
    """Convert in memory: all that can fail fails here, and the tokenizer is known."""
    source = config.source
    if source.is_dir() and (source / "tokenizer.json").is_file():
        raise UserError(f"{source} has a tokenizer.json already", hint="There is nothing to convert; use it as it is.")
    converted = convert(source, pattern=config.pattern)
    folder = source if source.is_dir() else source.parent
    tokenizer = Tokenizer(folder, files_of(folder, converted.content, converted.config))
    inputs = {f"source.{path.name}": path for path in _files(source, folder)}
    size = sum(path.stat().st_size for path in inputs.values())
    return Plan(
        verb="tokenizer convert",
        config=config,
        out=config.out,
        inputs=inputs,
        checks=[Check("vocabulary", True, f"{converted.source}, {tokenizer.vocab_size:,} tokens")],
        work=["write tokenizer.json and the configs beside it"],
        cost=Cost(
            bytes_read=size,
            bytes_written=2 * len(converted.content),
            peak_memory=2**27 + 40 * len(converted.content),
            seconds=0.5 + size / BYTES_PER_SECOND,
        ),
        produces=TokenizerSpec.of(tokenizer),
        details={"converted": converted},
    )


def run_convert(plan: Plan, context: Context) -> Result:
    """Write the folder, and open it."""
    converted: Converted = plan.details["converted"]
    converted.write(context.out)
    tokenizer = Tokenizer.load(context.out)
    for note in converted.notes:
        context.reporter.say(f"Ids can differ from the source's: {note}.")
    data: dict[str, Any] = {
        "source": converted.source,
        "vocab_size": tokenizer.vocab_size,
        "bos": tokenizer.bos_id,
        "eos": tokenizer.eos_id,
        "adds_bos": tokenizer.adds_bos,
        "has_template": tokenizer.chat_template is not None,
        "hash": tokenizer.hash,
        "notes": list(converted.notes),
    }

    def named(id_: int | None) -> str:
        return "none" if id_ is None else f"{tokenizer.token_text(id_)} ({id_})"

    rows: list[Sequence[Any]] = [
        ("was", converted.source),
        ("tokens", f"{tokenizer.vocab_size:,}"),
        ("special tokens", f"{len(tokenizer.special_ids):,}"),
        ("BOS", named(tokenizer.bos_id) + (", begins every document" if tokenizer.adds_bos else "")),
        ("EOS", named(tokenizer.eos_id)),
        ("chat template", "yes" if tokenizer.chat_template is not None else "no"),
    ]
    notes = [Text(f"Ids can differ: {note}.") for note in converted.notes]
    return Result(data, [Table("Converted", ("", ""), rows), *notes])


def _files(source: Path, folder: Path) -> list[Path]:
    """The files that are read: the vocabulary and what stands beside it."""
    vocabulary = source if source.is_file() else find(folder)
    names = ["vocab.json", "merges.txt"] if vocabulary and vocabulary.name in ("vocab.json", "merges.txt") else []
    beside = [folder / name for name in (*names, *COMPANION_FILES)]
    return list(dict.fromkeys(path for path in (vocabulary, *beside) if path is not None and path.is_file()))
