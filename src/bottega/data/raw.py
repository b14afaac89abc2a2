"""Data that nobody prepared: `bottega train` tokenises it into its own folder, once.

The tokens folder is named by a digest of the source, the tokenizer and the options, so a run that is
resumed finds what it wrote, and any change of one of them makes another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottega.core import atomic
from bottega.core.errors import UserError
from bottega.core.hashing import digest_data, digest_path
from bottega.core.plan import Check
from bottega.core.progress import Quiet, Reporter
from bottega.data.config import ExampleOptions
from bottega.data.detection import data_path, detect, detect_form
from bottega.data.prepare import estimate, form_checks, source_sizes, write
from bottega.data.spec import MANIFEST_FILE, Form, TokensSpec
from bottega.data.writing import TokensWriter
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer

__all__ = ["RawPlan", "detect_form", "is_prepared", "plan_raw", "prepare_raw"]
_VERSION = 1
"""Of what `prepare_raw` writes for the same input."""
_SHARD_TOKENS = 2**26


@dataclass(frozen=True)
class RawPlan:
    """What raw data will become: an estimate, the detected format and why, and what was checked."""

    spec: TokensSpec
    format: str
    why: str
    checks: list[Check]


def is_prepared(path: Path) -> bool:
    """Whether `path` is a tokens folder already."""
    return (path / MANIFEST_FILE).is_file()


def plan_raw(source: Path, form: Form | None, tokenizer: TokenizerSpec) -> RawPlan:
    """What `source` will become as `form` (None: what it is made for), from a sample of its rows.

    Raises UserError if it is not there, or of no known format.
    """
    found = detect(source)
    form = form or found.form
    source = data_path(source, form)
    size, documents = source_sizes(source, form)
    checks = [Check("data", True, f"{found.format}: {found.why}")]
    checks += form_checks(form, source, tokenizer) if form != "text" else []
    return RawPlan(estimate(form, tokenizer, size, documents), found.format, found.why, checks)


def prepare_raw(
    source: Path,
    form: Form | None,
    tokenizer_folder: Path,
    folder: Path,
    *,
    reporter: Reporter | None = None,
    **options: Any,
) -> Path:
    """The tokens folder of `source` below `folder`, written unless it is there already.

    `options` are the settings of `ExampleOptions`. Raises UserError if nothing of the source can be used.
    """
    settings = ExampleOptions.parse(options, where="data")
    form = form or detect_form(source)[0]
    source = data_path(source, form)
    tokenizer = Tokenizer.load(tokenizer_folder)
    out = folder / f"tokens-{_digest(source, form, tokenizer, settings)[:16]}"
    if is_prepared(out):
        return out
    with atomic.building(out) as partial:
        atomic.empty_folder(partial)
        writer = TokensWriter(partial, form, tokenizer, settings, _SHARD_TOKENS)
        size = source_sizes(source, form)[0]
        with (reporter or Quiet()).bar("tokenizing", size or None, "B") as bar:
            write(writer, source, bar.advance)
        if not writer.shards.documents:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in writer.skipped.counts.most_common(5))
            raise UserError(f"nothing in {source} can be used as {form}" + (f": {reasons}" if reasons else ""))
        writer.finish()
        atomic.finish_folder(partial, out)
    return out


def _digest(source: Path, form: Form, tokenizer: Tokenizer, options: ExampleOptions) -> str:
    settings: Mapping[str, Any] = options.as_data()
    known = [tokenizer.hash, tokenizer.template_hash, tokenizer.bos_id, tokenizer.eos_id, sorted(tokenizer.stop_ids)]
    return digest_data([_VERSION, digest_path(source), form, known, settings])
