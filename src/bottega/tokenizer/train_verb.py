"""`bottega tokenizer train`: plan and run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottega.core.dial import dial
from bottega.core.errors import UserError
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.verb import Context, Result
from bottega.core.view import Table, human_bytes
from bottega.tokenizer import texts, training
from bottega.tokenizer.config import TrainTokenizer
from bottega.tokenizer.measure import measure
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer

# Measured on one core: text counted, merges made, and text encoded, per second.
BYTES_PER_SECOND = 4e6
MERGES_PER_SECOND = 8_000
ENCODED_PER_SECOND = 2e6
# How much text the compression is measured on.
SAMPLE_BYTES = 2 * 2**20


def plan_train(config: TrainTokenizer, specs: Specs) -> Plan:
    """Find the text, settle the size of the vocabulary; reads no text."""
    vocab_size = config.vocab_size or (dial(config.size).vocab_size if config.size else None)
    if vocab_size is None:
        raise UserError("the size of the vocabulary is not said", hint="Give vocab_size, or size tiny, small or base.")
    checks: list[Check] = []
    total = 0
    if specs.is_predicted(config.data):
        total = specs.predicted_training_bytes(config.data)
        checks.append(Check("text", True, f"{config.data} will be made by an earlier step"))
    else:
        files = texts.find_files(config.data)
        total = sum(path.stat().st_size for path in files)
        count = f"{len(files)} file" + "s" * (len(files) > 1)
        checks.append(Check("text", total > 0, f"{human_bytes(total)} in {count}" if total else "it is empty"))
    used = min(total, config.max_bytes)
    counting, merging = used / BYTES_PER_SECOND, vocab_size / MERGES_PER_SECOND
    measuring = 2 * min(total, SAMPLE_BYTES) / ENCODED_PER_SECOND
    seconds = counting + merging + measuring if total else None
    return Plan(
        verb="tokenizer train",
        config=config,
        out=config.out,
        inputs={"data": config.data},
        checks=checks,
        work=[
            f"train a byte-level BPE of {vocab_size:,} tokens"
            + (f" on {human_bytes(used)} of text" if total else "")
            + f", {len(training.SPECIAL_TOKENS)} of them special",
            "measure its compression on text it was trained on and, if there is some, on text it was not",
        ],
        cost=Cost(bytes_read=total, bytes_written=80 * vocab_size, peak_memory=2**27 + 3 * used, seconds=seconds),
        produces=TokenizerSpec(
            vocab_size=vocab_size,
            has_template=True,
            bos_id=training.BOS_ID,
            eos_id=training.EOS_ID,
            pad_id=training.PAD_ID,
            stop_ids=training.STOP_IDS,
            adds_bos=True,
        ),
        details={"vocab_size": vocab_size},
    )


def run_train(plan: Plan, context: Context) -> Result:
    """Train, write the folder, measure."""
    config = plan.config
    assert isinstance(config, TrainTokenizer)
    files = texts.find_files(config.data)
    asked: int = plan.details["vocab_size"]
    with context.reporter.bar("reading text", sum(path.stat().st_size for path in files), "B") as bar:
        pieces = texts.read_texts(files, max_bytes=config.max_bytes, progress=bar.advance)
        backend = training.train(pieces, asked, min_frequency=config.min_frequency)
    training.write_folder(backend, context.out)
    tokenizer = Tokenizer.load(context.out)
    if tokenizer.vocab_size < asked:
        context.reporter.say(
            f"The text gave {tokenizer.vocab_size:,} tokens instead of {asked:,}: no more pairs occur "
            f"{config.min_frequency} times."
        )
    data: dict[str, Any] = {"vocab_size": tokenizer.vocab_size, "vocab_size_asked": asked, "hash": tokenizer.hash}
    rows: list[Sequence[Any]] = []
    heldout = texts.heldout_file(config.data) if config.data.is_dir() else None
    for name, paths in (("train", files), ("heldout", [heldout] if heldout else [])):
        measured = measure_files(tokenizer, paths)
        if measured:
            data[name] = measured
            rows.append(
                (name, measured["bytes_per_token"], measured["tokens_per_word"], human_bytes(measured["bytes"]))
            )
    table = Table(
        f"Tokenizer of {tokenizer.vocab_size:,} tokens",
        ("measured on", "bytes per token", "tokens per word", "text"),
        rows,
        note="A word is what stands between spaces.",
    )
    return Result(data, [table])


def measure_files(tokenizer: Tokenizer, paths: Sequence[Path]) -> dict[str, float] | None:
    """Bytes per token and tokens per word on an even sample of the files; None if they hold no text."""
    found = measure(tokenizer, texts.read_texts(paths, max_bytes=SAMPLE_BYTES))
    if not found.tokens:
        return None
    return {
        "bytes": found.bytes,
        "tokens": found.tokens,
        "bytes_per_token": found.bytes_per_token,
        "tokens_per_word": found.tokens_per_word,
    }
