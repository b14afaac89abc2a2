"""The verb `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.checkpoint.adapter_base import adapter_checks
from bottega.checkpoint.hub import locate
from bottega.checkpoint.spec import ModelSpec
from bottega.core.machine import memory_check
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Table, Text
from bottega.generate.checks import engine_checks, generation_memory
from bottega.generate.config import Chat, Generate, Sampled
from bottega.generate.search.settings import premature_layers
from bottega.generate.structure.config import constraint_of

if TYPE_CHECKING:
    from bottega.generate.generator import Generator, Piece, Ticket
    from bottega.generate.settings import Sampling
    from bottega.generate.speculate.controller import Speculation
    from bottega.tokenizer.tokenizer import Tokenizer

LOAD_SECONDS = 2.0
PROMPT_TOKENS = 4096  # its length is known only to the tokenizer
TAIL = 48  # characters of the answer that stand beside the bar
TRACED = 5  # candidates shown of each token; --json has them all
BYTES_PER_SECOND = 10e9  # weights read per generated token, on a slow machine


def plan_generate(config: Generate | Chat, specs: Specs) -> Plan:
    """Check that the model opens and has what the request needs."""
    spec = specs.of(Path(config.model), ModelSpec)
    plan = Plan("chat" if isinstance(config, Chat) else "generate", config)
    plan.checks = [
        Check("tokenizer", spec.has_tokenizer, "is there" if spec.has_tokenizer else "the folder has none"),
        *_template_check(config, spec),
        *adapter_checks(config.model, config.adapter, specs),
        *engine_checks(config, config.model, spec, specs),
    ]
    if isinstance(config, Generate) and config.has_form and spec.has_tokenizer:
        plan.checks += _form_check(config, specs)
    plan.work = [f"load {config.model}, then up to {config.max_new_tokens} tokens"]
    sequences = 1
    if isinstance(config, Generate) and not (search := config.search()).is_none:
        sequences = search.rows(config.top_k)
        plan.work.append(f"search by {search.method}, up to {sequences} sequences at a time")
        if search.dola_layers is not None:
            layers, tied = spec.config.num_hidden_layers, spec.config.tie_word_embeddings
            premature_layers(layers, search.dola_layers, tied=tied)  # raises where the model has none of them
    memory = generation_memory(spec, PROMPT_TOKENS + config.max_new_tokens, sequences, config=config, specs=specs)
    plan.checks.append(memory_check(memory))
    plan.cost = Cost(
        bytes_read=spec.nbytes,
        peak_memory=memory,
        seconds=LOAD_SECONDS + config.max_new_tokens * spec.nbytes / BYTES_PER_SECOND,
    )
    return plan


def _template_check(config: Generate | Chat, spec: ModelSpec) -> list[Check]:
    """Whether the model knows chats, if it is to chat."""
    if isinstance(config, Generate) and not config.chat:
        return []
    instead = "leave --chat out" if isinstance(config, Generate) else "use bottega generate"
    detail = "is there" if spec.template is not None else f"the model has none; to continue a text, {instead}"
    return [Check("chat template", spec.template is not None, detail)]


def _form_check(config: Generate, specs: Specs) -> list[Check]:
    """Raises UserError where no grammar can be made of the form; a model that is yet to be made has no tokens."""
    if specs.is_predicted(Path(config.model)):
        return []
    from bottega.tokenizer.tokenizer import Tokenizer

    constraint_of(config, Tokenizer.load(locate(Path(config.model))))
    return [Check("form", True, "a grammar can be made of it")]


def sampling_of(config: Sampled, tokenizer: Tokenizer) -> Sampling:
    """The engine's settings from the verb's."""
    from bottega.generate import words

    return replace(
        config.settings(),
        logit_bias=words.biases(tokenizer, config.logit_bias),
        allowed_tokens=words.allowed_words(tokenizer, config.allowed_word) if config.allowed_word else (),
        banned_words=words.banned_words(tokenizer, config.banned_word),
        dry_breakers=words.dry_breakers(tokenizer, config.dry_breaker if config.dry_multiplier else ()),
        stop_token_ids=tuple(words.token_of(tokenizer, text) for text in config.stop_token),
    )


def run_generate(plan: Plan, context: Context) -> Result:
    """One completion; `data` has text, token_ids, finish_reason and prompt_tokens, and what was asked for besides."""
    from bottega.generate.generator import Generator
    from bottega.generate.structure.healing import heal

    config = plan.config
    assert isinstance(config, Generate)
    generator = Generator.of(config)
    if generator.precision_note:
        context.reporter.say(generator.precision_note)
    ids = generator.prompt_ids(config.prompt, chat=config.chat, system=config.system)
    if not config.search().is_none:
        return _search(config, generator, ids, context)
    constraint, removed, asked = constraint_of(config, generator.tokenizer), "", ids
    if config.heal:
        healed = heal(generator.tokenizer, ids)
        constraint, removed, asked = healed.constraint, healed.removed, healed.prompt_ids
    ticket = generator.submit(asked, sampling_of(config, generator.tokenizer), constraint=constraint)
    pieces = _follow(generator, ticket, config.max_new_tokens, context)
    if ticket.finish_reason == "length" and len(pieces) < config.max_new_tokens:
        context.reporter.say(f"cut off after {len(pieces)} tokens: the model's context, or the cache, is full")
    text = "".join(piece.text for piece in pieces).removeprefix(removed)
    data: dict[str, Any] = {
        "text": text,
        "token_ids": [piece.token_id for piece in pieces],
        "finish_reason": ticket.finish_reason,
        "prompt_tokens": len(ids),
    }
    blocks: list[Block] = [Text(text if config.chat else config.prompt + text)]
    if constraint is not None and config.has_form:
        validity = constraint.judge(text)
        data |= {"valid": validity.valid, "invalid_because": validity.error or None}
        blocks += [] if validity.valid else [Text(f"The answer is not what was asked for: {validity.error}")]
    if ticket.speculation is not None:
        data["speculation"] = asdict(ticket.speculation)
        blocks.append(_speculation(ticket.speculation))
    if config.trace:
        data["trace"] = [piece.trace.as_data() for piece in pieces if piece.trace is not None]
        blocks.append(_trace(pieces, generator.tokenizer))
    return Result(data, blocks)


def _follow(generator: Generator, ticket: Ticket, most: int, context: Context) -> list[Piece]:
    """The pieces as they come, the end of the text beside the bar; Ctrl-C ends the answer and keeps what was said."""
    pieces: list[Piece] = []
    end = ""
    try:
        with context.reporter.bar("generate", most, "tok") as bar:
            for piece in generator.follow(ticket):
                pieces.append(piece)
                end = (end + piece.text)[-TAIL:]
                bar.advance(note="…" + " ".join(end.split()))
    except KeyboardInterrupt:
        if not pieces:
            raise
        context.reporter.say("stopped; this is what was said")
    return pieces


def _speculation(record: Speculation) -> Text:
    """What guessing ahead did."""
    if not record.proposed:
        return Text("Nothing was guessed ahead: by what was measured it would not have paid.")
    gain = "" if record.gain is None else f", {record.gain:.2f} times as fast as without"
    return Text(f"{record.accepted} of {record.proposed} guessed tokens stood{gain}.")


def _trace(pieces: Sequence[Piece], tokenizer: Tokenizer) -> Table:
    """One row a token: the likeliest candidates, and what became of them."""
    rows = []
    for number, piece in enumerate(pieces, 1):
        assert piece.trace is not None
        others = []
        for each in piece.trace.candidates[:TRACED]:
            before, after = f"{each.raw_probability:.3f}", f"{each.probability:.3f}"
            became = f" cut by {each.cut_by}" if each.cut_by is not None else f" → {after}" if after != before else ""
            others.append(f"{tokenizer.token_text(each.token)!r} {before}{became}")
        drawn = "" if piece.trace.uniform is None else f"{piece.trace.uniform:.3f}"
        rows.append([number, repr(piece.token_text), f"{piece.trace.entropy:.2f}", drawn, ", ".join(others)])
    columns = ("", "token", "entropy, nats", "drawn at", f"the {TRACED} likeliest: probability → after the samplers")
    return Table("How each token was chosen", columns, rows)


def _search(config: Generate, generator: Generator, ids: list[int], context: Context) -> Result:
    """The answers of a search; `data` has besides `sequences` (text, score, logprob), `votes` and `answer`, `tree`."""
    from bottega.generate.search.find import find
    from bottega.generate.search.show import result_of

    negative = None
    if config.negative_prompt is not None:
        negative = generator.prompt_ids(config.negative_prompt, chat=config.chat, system=config.system)
    search = config.search()
    with context.reporter.bar("search", config.max_new_tokens, "tok") as bar:
        found = find(
            generator.decoder,
            generator.tokenizer,
            ids,
            sampling_of(config, generator.tokenizer),
            search,
            negative=negative,
            on_step=bar.advance,
        )
    return result_of(found, search, generator.tokenizer, ids, "" if config.chat else config.prompt)
