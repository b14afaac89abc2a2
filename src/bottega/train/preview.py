"""The first examples of a run's data as the stage will see them, for its plan. Imports no torch, reads no weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bottega.core.errors import UserError
from bottega.data.config import ExampleOptions
from bottega.data.detection import SAMPLE_ROWS, data_path, sample
from bottega.data.encode import Encoded, encode_example
from bottega.data.formats.detect import examples_of
from bottega.data.formats.kinds import Rejected
from bottega.data.spec import EXAMPLES_FILE, Form, TokensSpec
from bottega.data.writing import example_row
from bottega.tokenizer.tokenizer import Tokenizer

MOST_TOKENS = 1 << 20  # of a tokens folder, that are looked at


@dataclass(frozen=True)
class Preview:
    """What the first rows of the data become.

    Attributes:
        examples: the documents of each, token ids and mask.
        rows: what is known of each beside its text (label, right answer), as `examples.jsonl` says it.
        refused: why rows cannot be used, with counts.
        looked_at: rows of the sample.
        whole: whether there is nothing else in the data.
    """

    examples: list[list[Encoded]] = field(default_factory=list)
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    looked_at: int = 0
    whole: bool = False

    @property
    def documents(self) -> list[Encoded]:
        """All of them."""
        return [document for example in self.examples for document in example]

    def refined(self, spec: TokensSpec) -> TokensSpec:
        """An estimate of the data with lengths as they are found here; what was counted stays."""
        documents = self.documents
        if spec.exact or not documents:
            return spec
        tokens = sum(len(document.ids) for document in documents) / len(documents)
        trained = sum(sum(document.mask) for document in documents) / len(documents)
        longest = max(len(document.ids) for document in documents)
        each = 2 if spec.form == "pairs" else 1
        usable = 1 - sum(self.refused.values()) / max(self.looked_at, 1)
        count = len(documents) if self.whole else each * max(1, round(spec.documents / each * usable))
        return replace(
            spec, tokens=round(tokens * count), trained_tokens=round(trained * count), documents=count, longest=longest
        )


def preview_raw(source: Path, form: Form, tokenizer: Tokenizer, options: ExampleOptions) -> Preview:
    """Of a file or folder of examples. Plain text has no examples."""
    if form == "text":
        return Preview()
    found = Preview()
    rows = sample(data_path(source, form), SAMPLE_ROWS + 1)
    for row in rows[:SAMPLE_ROWS]:
        try:
            examples = examples_of(row.value, form, every_pair=options.ranked == "all")[1]
            encoded = [encode_example(tokenizer, example, options) for example in examples]
        except Rejected as rejected:
            found.refused[str(rejected)] += 1
            continue
        except UserError:  # no template: said by a check of its own
            return Preview()
        found.examples.extend(encoded)
        found.rows.extend(example_row(example) for example in examples)
    return replace(found, looked_at=min(len(rows), SAMPLE_ROWS), whole=len(rows) <= SAMPLE_ROWS)


def preview_tokens(folder: Path, spec: TokensSpec) -> Preview:
    """Of a tokens folder that is there."""
    if spec.form == "text" or not spec.shards:
        return Preview()
    shard, each = spec.shards[0], 2 if spec.form == "pairs" else 1
    offsets = np.load(shard.offsets, mmap_mode="r", allow_pickle=False)[: SAMPLE_ROWS * each + 1].astype(np.int64)
    if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] > shard.token_count or shard.mask is None:
        return Preview()  # damaged: said where it is read
    offsets = offsets[offsets <= MOST_TOKENS]
    end = int(offsets[-1])
    tokens = np.load(shard.tokens, mmap_mode="r", allow_pickle=False)[:end].tolist()
    mask = np.load(shard.mask, mmap_mode="r", allow_pickle=False)[:end].astype(bool).tolist()
    bounds = list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
    documents = [Encoded(tokens[start:stop], mask[start:stop]) for start, stop in bounds]
    examples = [documents[start : start + each] for start in range(0, len(documents) - each + 1, each)]
    return Preview(examples, _rows(folder / EXAMPLES_FILE, len(examples)), whole=len(documents) == spec.documents)


def _rows(file: Path, count: int) -> list[Mapping[str, Any]]:
    if not file.is_file():
        return []
    found: list[Mapping[str, Any]] = []
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in islice(lines, count):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                return []  # damaged: said where it is read
            found.append(row if isinstance(row, dict) else {})
    return found
