"""`bottega tokenizer extend`: new tokens for a model, each with a row of the embedding that means something already.

And a chat template for a model that has none, with its special tokens; the one that ends a turn becomes a stop token.

A new token begins as the mean of the rows of the tokens that its text was written with before ("pieces"), or
as the mean of all rows ("mean": Hewitt 2021; it keeps the other probabilities nearly as they were). A row of zeros
or noise would have to be found by training from nothing, and an output row of zeros can take most of the probability.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
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
from bottega.core.view import Block, Table, Text
from bottega.tokenizer.files import write_tokenizer
from bottega.tokenizer.give_template import named_template, with_template
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

COPY_BYTES_PER_SECOND = 5e8


class ExtendTokenizer(Writes):
    """Add tokens or a chat template to a model: its tokenizer learns them, its embedding and head get rows for them."""

    model: str
    """Model folder, or org/name[@revision] of the hub."""
    add: tuple[str, ...] = ()
    """Token to add (may be given several times)."""
    template: str | None = None
    """Chat template for the model: chatml, which brings its special tokens along, or a file of jinja."""
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
        if not self.add and self.template is None:
            raise ValueError("give tokens to add, or a chat template: template: chatml")
        return self


@dataclass(frozen=True)
class _Extended:
    """What the tokenizer becomes: a tokenizer.json, the new tokens with their ids, and what the template adds."""

    content: str
    new: dict[str, int]
    tokenizer: Tokenizer
    stop: int | None = None


def _extend(config: ExtendTokenizer, tokenizer: Tokenizer) -> _Extended:
    """Raises UserError for tokens that no tokenizer can have, and for a template that cannot be used."""
    template = named_template(config.template) if config.template is not None else None
    content, given = tokenizer.extended(template.tokens if template else (), special=True)
    brought = dict(zip(template.tokens if template else (), given, strict=True))
    new = {text: id_ for text, id_ in brought.items() if tokenizer.id_of(text) is None}
    made = tokenizer.with_content(content)
    content, ids = made.extended(config.add, special=config.special)
    new |= dict(zip(config.add, ids, strict=True))
    if template is None:
        return _Extended(content, new, tokenizer.with_content(content))
    return _Extended(content, new, *with_template(tokenizer.with_content(content), template))


def plan_extend(config: ExtendTokenizer, specs: Specs) -> Plan:
    """Check that the tokens are new, and that the template goes with them; say how large the model becomes."""
    spec = specs.of(Path(config.model), ModelSpec)
    folder = locate_planned(config.model, specs)
    plan = Plan("tokenizer extend", config, config.out, {"model": folder})
    template = named_template(config.template) if config.template is not None else None
    rows = spec.vocab_size + len(config.add) + len(template.tokens if template else ())  # as long as nobody can tell
    after, stops = None, spec.config.eos_token_id
    if not specs.is_predicted(folder):
        tokenizer = Tokenizer.load(folder)
        extended = _extend(config, tokenizer)
        after = TokenizerSpec.of(extended.tokenizer)
        plan.checks += _token_checks(config, tokenizer, list(extended.new.values()), spec.vocab_size)
        rows = max([spec.vocab_size, *(id_ + 1 for id_ in extended.new.values())])
        if extended.stop is not None:
            stops = tuple(dict.fromkeys([*stops, extended.stop]))
            instead = " instead of its own" if tokenizer.chat_template else ""
            ends = f"{config.template}{instead}; a turn ends with {extended.tokenizer.token_text(extended.stop)}"
            plan.checks.append(Check("chat template", True, ends))
    rows = -(-rows // config.multiple_of) * config.multiple_of
    new = replace(spec.config, vocab_size=rows, eos_token_id=stops)
    plan.details["config"] = new
    predicted = ModelSpec.predict(new, tokenizer_hash="", template=template.text if template else spec.template)
    plan.produces = replace(predicted, licence=spec.licence, tokenizer=after)
    plan.work = [f"vocabulary {spec.vocab_size:,} → {rows:,}, rows from {config.start}, into {config.out}"]
    memory = PROCESS_BYTES + 3 * 4 * rows * new.hidden_size
    plan.checks.append(memory_check(memory))
    plan.cost = Cost(spec.nbytes, spec.nbytes, memory, seconds=2.0 + spec.nbytes / COPY_BYTES_PER_SECOND)
    return plan


def _token_checks(config: ExtendTokenizer, tokenizer: Tokenizer, ids: list[int], rows: int) -> list[Check]:
    known = [text for text in config.add if tokenizer.id_of(text) is not None]
    detail = f"already in the vocabulary: {', '.join(map(repr, known))}" if known else f"{len(ids)} new ones"
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
    extended = _extend(config, tokenizer)
    pieces = {id_: tokenizer.encode(text) for text, id_ in extended.new.items()}
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
    stops = {} if extended.stop is None else {"eos_token_id": sorted(extended.tokenizer.stop_ids)}
    write_model_files(context.out, new, generation={**folder.generation_config, **stops})
    _write_tokenizer(context.out, extended, config)
    data: dict[str, Any] = {"tokens": extended.new, "vocab_size": [old, new.vocab_size]}
    summary = f"{folder.path.name} with {len(extended.new)} more tokens, not trained yet."
    view: list[Block] = []
    if extended.stop is not None:
        data |= {"template": config.template, "turn_end": extended.tokenizer.token_text(extended.stop)}
        view.append(Text(f"Chat template: {config.template}; a turn ends with {data['turn_end']}."))
        summary = f"{summary[:-1]}, and a chat template."
    write_card(context.out, new, CardText(config.out.name, summary), context.record(data))
    rows = [(text, id_, len(pieces[id_])) for text, id_ in extended.new.items()]
    if rows:
        note = "Their rows are trained with the whole model, or beside an adapter: {new_tokens: auto}."
        view.insert(0, Table("New tokens", ("token", "id", "pieces before"), rows, note))
    return Result(data, view)


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


def _write_tokenizer(folder: Path, extended: _Extended, config: ExtendTokenizer) -> None:
    """tokenizer.json with the new tokens, the template, and what tokenizer_config.json says of both."""
    write_text(folder / "tokenizer.json", extended.content)
    special = [text for text in extended.new if config.special or text not in config.add]
    template = extended.tokenizer.chat_template if config.template is not None else None
    if template is not None:
        write_text(folder / "chat_template.jinja", template)
    path = folder / "tokenizer_config.json"
    if not path.is_file() or not (special or template):
        return
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if special:
        more = data.get("additional_special_tokens")
        data["additional_special_tokens"] = [*(more if isinstance(more, list) else []), *special]
    if template is not None:
        data["chat_template"] = template  # readers older than chat_template.jinja look for it here
    write_json(path, data)
