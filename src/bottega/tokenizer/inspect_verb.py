"""`bottega tokenizer inspect`: the tokens of a text, or the loss mask of a conversation, in colour."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.model_files import read_bounded
from bottega.core.plan import Check, Cost, Plan, Specs
from bottega.core.verb import Context, Result
from bottega.core.view import Block, Spans, Style, Table
from bottega.tokenizer.chat import ChatTokens, encode_chat
from bottega.tokenizer.config import InspectTokenizer
from bottega.tokenizer.spec import TokenizerSpec
from bottega.tokenizer.tokenizer import Tokenizer

MAX_TEXT_BYTES = 4 * 2**20
MAX_CONVERSATIONS_SHOWN = 5
TOKEN_LEGEND: dict[Style, str] = {"even": "a token", "odd": "the next token", "special": "special token"}
MASK_LEGEND: dict[Style, str] = {"trained": "trained", "muted": "only read", "special": "special token, only read"}


def plan_inspect(config: InspectTokenizer, specs: Specs) -> Plan:
    """Check that the tokenizer is there and that at most one thing to look at is given."""
    spec = specs.of(config.tokenizer, TokenizerSpec)
    given = [name for name in ("text", "file", "messages") if getattr(config, name) is not None]
    files = [path for path in (config.file, config.messages) if path is not None]
    checks = [Check("what to show", len(given) <= 1, " and ".join(given) or "the tokenizer itself")]
    checks += [Check("file", path.is_file(), str(path)) for path in files]
    if config.messages is not None:
        has = "has one" if spec.has_template else "the tokenizer has none"
        checks.append(Check("chat template", spec.has_template, has))
    return Plan(
        verb="tokenizer inspect",
        config=config,
        inputs={"tokenizer": config.tokenizer},
        checks=checks,
        work=["show " + (given[0] if given else "the tokenizer")],
        cost=Cost(bytes_read=sum(path.stat().st_size for path in files if path.is_file()), seconds=1.0),
    )


def run_inspect(plan: Plan, context: Context) -> Result:  # noqa: ARG001 (it is quick: nothing to report on the way)
    """Encode and show."""
    config = plan.config
    assert isinstance(config, InspectTokenizer)
    tokenizer = Tokenizer.load(config.tokenizer)
    if config.messages is not None:
        return _show_conversations(tokenizer, read_conversations(config.messages))
    if config.file is not None:
        return _show_text(tokenizer, read_bounded(config.file, MAX_TEXT_BYTES).decode("utf-8", "replace"))
    if config.text is not None:
        return _show_text(tokenizer, config.text)
    return _show_tokenizer(tokenizer)


def read_conversations(path: Path) -> list[list[dict[str, Any]]]:
    """Conversations of a JSON file (messages, or an object or a list of objects with them) or JSONL file."""
    content = read_bounded(path, MAX_TEXT_BYTES).decode("utf-8", "replace")
    try:
        if path.suffix == ".jsonl":
            # Not splitlines: a text may hold U+2028 and its like.
            values = [json.loads(line) for line in content.split("\n") if line.strip()]
        else:
            value = json.loads(content)
            values = value if isinstance(value, list) and not _is_conversation(value) else [value]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    found: list[list[dict[str, Any]]] = []
    for index, value in enumerate(values):
        conversation = value.get("messages") if isinstance(value, dict) else value
        if isinstance(conversation, list) and _is_conversation(conversation):
            found.append(conversation)
        else:
            raise UserError(
                f"{path}: entry {index} is no conversation",
                hint='A conversation is [{"role": "user", "content": "…"}, …], or {"messages": [...]}.',
            )
    if not found:
        raise UserError(f"{path} holds no conversation")
    return found


def _is_conversation(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(message, dict) and "role" in message for message in value)


def _show_text(tokenizer: Tokenizer, text: str) -> Result:
    ids = tokenizer.encode(text)
    tokens = [tokenizer.token_text(id_) for id_ in ids]
    size = len(text.encode("utf-8"))
    data = {
        "characters": len(text),
        "bytes": size,
        "count": len(ids),
        "bytes_per_token": round(size / len(ids), 4) if ids else None,
        "ids": ids,
        "tokens": tokens,
    }
    alternating: tuple[Style, Style] = ("even", "odd")
    spans: list[tuple[str, Style]] = [
        (token, "special" if id_ in tokenizer.special_ids else alternating[index % 2])
        for index, (token, id_) in enumerate(zip(tokens, ids, strict=True))
    ]
    title = f"{len(ids):,} tokens, {len(text):,} characters, {size:,} bytes"
    if ids:
        title += f" ({size / len(ids):.2f} bytes per token)"
    return Result(data, [Spans(title, spans, TOKEN_LEGEND)])


def _show_conversations(tokenizer: Tokenizer, conversations: Sequence[list[dict[str, Any]]]) -> Result:
    encoded = [encode_chat(tokenizer, conversation) for conversation in conversations]
    total, trained = sum(len(chat.ids) for chat in encoded), sum(sum(chat.mask) for chat in encoded)
    view: list[Block] = [mask_view(tokenizer, chat) for chat in encoded[:MAX_CONVERSATIONS_SHOWN]]
    view.append(
        Table(
            "All conversations",
            ("conversations", "tokens", "trained", "trained share"),
            [(len(encoded), total, trained, f"{trained / max(total, 1):.1%}")],
            note=f"The first {MAX_CONVERSATIONS_SHOWN} are shown." if len(encoded) > MAX_CONVERSATIONS_SHOWN else "",
        )
    )
    data = {
        "conversations": [
            {
                "text": chat.text,
                "ids": chat.ids,
                "tokens": [tokenizer.token_text(id_) for id_ in chat.ids],
                "mask": chat.mask,
            }
            for chat in encoded
        ],
        "count": total,
        "trained": trained,
    }
    return Result(data, view)


def mask_view(tokenizer: Tokenizer, chat: ChatTokens) -> Spans:
    """The tokens in the colours of the mask."""

    def style(id_: int, trained: bool) -> Style:
        if trained:
            return "trained"
        return "special" if id_ in tokenizer.special_ids else "muted"

    spans: list[tuple[str, Style]] = [
        (tokenizer.token_text(id_), style(id_, trained)) for id_, trained in zip(chat.ids, chat.mask, strict=True)
    ]
    return Spans(f"{len(chat.ids):,} tokens, {sum(chat.mask):,} trained", spans, MASK_LEGEND)


def _show_tokenizer(tokenizer: Tokenizer) -> Result:
    def named(id_: int | None) -> str:
        return "none" if id_ is None else f"{tokenizer.token_text(id_)} ({id_})"

    data = {
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "pad_id": tokenizer.pad_id,
        "stop_ids": sorted(tokenizer.stop_ids),
        "adds_bos": tokenizer.adds_bos,
        "has_template": tokenizer.chat_template is not None,
        "hash": tokenizer.hash,
        "template_hash": tokenizer.template_hash,
    }
    rows: list[Sequence[Any]] = [
        ("tokens", tokenizer.vocab_size),
        ("BOS", named(tokenizer.bos_id) + (", begins every document" if tokenizer.adds_bos else "")),
        ("EOS", named(tokenizer.eos_id)),
        ("padding", named(tokenizer.pad_id)),
        ("stops at", ", ".join(named(id_) for id_ in sorted(tokenizer.stop_ids)) or "none"),
        ("special tokens", len(tokenizer.special_ids)),
        ("chat template", "yes" if tokenizer.chat_template is not None else "no"),
    ]
    return Result(data, [Table(f"Tokenizer {tokenizer.folder.name}", ("", ""), rows)])
