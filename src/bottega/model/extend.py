"""`bottega tokenizer extend`: new tokens for a model, each with a row of the embedding that means something already.

A new token begins as the mean of the rows of the tokens that its text was written with before ("pieces"), or
as the mean of all rows ("mean": Hewitt 2021; it keeps the other probabilities nearly as they were). A row of zeros
or noise would have to be found by training from nothing, and an output row of zeros can take most of the probability.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from bottega.checkpoint.card import CardText, write_card
from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.header import TensorInfo
from bottega.checkpoint.hub import locate_planned
from bottega.checkpoint.spec import ModelSpec
from bottega.checkpoint.writer import TensorWriter, write_model_files
from bottega.core.atomic import write_json, write_text
from bottega.core.machine import memory_check
from bottega.core.plan import PROCESS_BYTES, Check, Cost, Plan, Specs
from bottega.core.record import read_record
from bottega.core.schema import Writes
from bottega.core.verb import Context, Result
from bottega.core.view import Table
from bottega.tokenizer.files import write_tokenizer
from bottega.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

COPY_BYTES_PER_SECOND = 5e8


class ExtendTokenizer(Writes):
    """Add tokens to a model: its tokenizer learns them, its embedding and output layer get a row for each."""

    model: str
    """Model folder, or org/name[@revision] of the hub."""
    add: tuple[str, ...] = Field(min_length=1)
    """Token to add (may be given several times)."""
    special: bool = False
    """The tokens are special: plain text never becomes one, and decoding leaves them out."""
    start: Literal["pieces", "mean"] = "pieces"
    """What a new row begins as: the mean of the token's former pieces, or of all rows."""
    multiple_of: int = Field(default=1, ge=1)
    """Fill the vocabulary up to a multiple of this (64 suits GPUs)."""

    @model_validator(mode="after")
    def _consistent(self) -> ExtendTokenizer:
        if len(set(self.add)) < len(self.add) or not all(text.strip() for text in self.add):
            raise ValueError("every token to add must be given once, and not be empty")
        return self


def plan_extend(config: ExtendTokenizer, specs: Specs) -> Plan:
    """Check that the tokens are new; say how large the model becomes."""
    spec = specs.of(Path(config.model), ModelSpec)
    folder = locate_planned(config.model, specs)
    plan = Plan("tokenizer extend", config, config.out, {"model": folder})
    rows = spec.vocab_size + len(config.add)  # as long as nobody can tell
    if not specs.is_predicted(folder):
        tokenizer = Tokenizer.load(folder)
        ids = tokenizer.extended(config.add, special=config.special)[1]
        plan.checks += _token_checks(config, tokenizer, ids, spec.vocab_size)
        rows = max(spec.vocab_size, *(id_ + 1 for id_ in ids))
    rows = -(-rows // config.multiple_of) * config.multiple_of
    new = replace(spec.config, vocab_size=rows)
    plan.details["config"] = new
    plan.produces = ModelSpec.predict(new, tokenizer_hash="", template=spec.template)
    plan.work = [f"vocabulary {spec.vocab_size:,} → {rows:,}, rows from {config.start}, into {config.out}"]
    memory = PROCESS_BYTES + 3 * 4 * rows * new.hidden_size
    plan.checks.append(memory_check(memory))
    plan.cost = Cost(spec.nbytes, spec.nbytes, memory, seconds=2.0 + spec.nbytes / COPY_BYTES_PER_SECOND)
    return plan


def _token_checks(config: ExtendTokenizer, tokenizer: Tokenizer, ids: list[int], rows: int) -> list[Check]:
    known = [text for text in config.add if tokenizer.id_of(text) is not None]
    detail = f"already in the vocabulary: {', '.join(map(repr, known))}" if known else f"{len(config.add)} new ones"
    # Libraries number new tokens by how many there are; in a vocabulary with gaps that can be another token's id.
    taken = [id_ for id_ in ids if tokenizer.token_kind(id_) != "unused"]
    fits = tokenizer.vocab_size <= rows
    return [
        Check("tokens", not known, detail),
        Check(
            "ids", bool(known) or not taken, f"{taken[0]} is taken: the vocabulary has gaps" if taken else "are free"
        ),
        Check("embedding", fits, f"{rows:,} rows for {tokenizer.vocab_size:,} tokens"),
    ]


def run_extend(plan: Plan, context: Context) -> Result:
    """Write the folder: every tensor as it is, embedding and output layer with more rows."""
    config, new = plan.config, plan.details["config"]
    assert isinstance(config, ExtendTokenizer)
    folder = ModelFolder.open(plan.inputs["model"])
    tokenizer = Tokenizer.load(folder.path)
    content, ids = tokenizer.extended(config.add, special=config.special)
    pieces = {id_: tokenizer.encode(text) for id_, text in zip(ids, config.add, strict=True)}
    known, old = tokenizer.vocab_size, folder.config.vocab_size
    names = {new.family.embedding, new.family.head}
    infos = {
        name: TensorInfo((new.vocab_size, *tensor.shape[1:]), tensor.dtype) if name in names else tensor.info
        for name, tensor in folder.tensors.items()
    }
    with TensorWriter(context.out, infos) as writer:
        for name, tensor in folder.tensors.items():
            loaded = tensor.load()
            writer.add(name, _grown(loaded, new, known, pieces, config.start) if name in names else loaded)
    write_tokenizer(folder.path, context.out)
    write_model_files(context.out, new, generation=folder.generation_config)
    _write_tokenizer(context.out, content, config)
    data = {"tokens": dict(zip(config.add, ids, strict=True)), "vocab_size": [old, new.vocab_size]}
    summary = f"{folder.path.name} with {len(ids)} more tokens, not trained yet."
    write_card(context.out, new, CardText(config.out.name, summary), context.record(data))
    rows = [(text, id_, len(pieces[id_])) for text, id_ in zip(config.add, ids, strict=True)]
    return Result(data, [Table("New tokens", ("token", "id", "pieces before"), rows)])


def added_tokens(model: Path) -> tuple[int, ...]:
    """Ids of the tokens that `tokenizer extend` gave the model folder, as its record says; none of other folders."""
    record = read_record(model)
    given = record.metrics.get("tokens") if record is not None and record.verb == "tokenizer extend" else None
    ids = given.values() if isinstance(given, dict) else ()
    return tuple(sorted(id_ for id_ in ids if type(id_) is int and id_ >= 0))


def _grown(
    rows: torch.Tensor, config: ModelConfig, known: int, pieces: dict[int, list[int]], start: str
) -> torch.Tensor:
    """(V, H) → (vocab_size, H): rows for the new ids, as `start` says; what only fills up is the mean of the `known`.

    `pieces` are the former tokens of each new id.
    """
    import torch

    used = rows[:known].float()
    grown = used.mean(0).expand(config.vocab_size, -1).clone()
    grown[: len(rows)] = rows.float()
    for place, ids in pieces.items():
        grown[place] = used[torch.tensor(ids)].mean(0) if start == "pieces" and ids else used.mean(0)
    return grown.to(rows.dtype)


def _write_tokenizer(folder: Path, content: str, config: ExtendTokenizer) -> None:
    """tokenizer.json with the new tokens, and, where they are special, tokenizer_config.json too."""
    write_text(folder / "tokenizer.json", content)
    path = folder / "tokenizer_config.json"
    if not (config.special and path.is_file()):
        return
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    more = data.get("additional_special_tokens")
    data["additional_special_tokens"] = [*(more if isinstance(more, list) else []), *config.add]
    write_json(path, data)
