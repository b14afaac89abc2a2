"""A chat template for a tokenizer that has none: its text, the special tokens that it writes, and where a turn ends.

Which token ends an answer is not asked for but looked at: a probe conversation is rendered, and the first special token
behind the answer is the one. It becomes a stop token, or a model trained with the template would not end its answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.model_files import read_text
from bottega.tokenizer.chat import encode_chat
from bottega.tokenizer.template import render
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.tokenizer.training import TURN_END, TURN_START, chat_template

CHATML = "chatml"
QUESTION, ANSWER = "What is it", "It is a probe"


@dataclass(frozen=True)
class ChatTemplate:
    """`text` is jinja; `tokens` are the special ones that it writes and a tokenizer may lack."""

    name: str
    text: str
    tokens: tuple[str, ...] = ()


def named_template(name: str) -> ChatTemplate:
    """`chatml`, or that of a file; raises UserError."""
    if name == CHATML:
        return ChatTemplate(name, chat_template(), (TURN_START, TURN_END))
    path = Path(name)
    if not path.is_file():
        hint = f"Give a file with the template, or {CHATML}."
        raise UserError(f"there is no chat template {name!r}", hint=hint)
    return ChatTemplate(name, read_text(path))


def with_template(tokenizer: Tokenizer, template: ChatTemplate) -> tuple[Tokenizer, int]:
    """The tokenizer with the template, and the token that ends a turn; raises UserError if they do not go together."""
    files = replace(tokenizer.files, chat_template=template.text)
    stop = _turn_end(Tokenizer(tokenizer.folder, files), template)
    made = Tokenizer(tokenizer.folder, replace(files, stop_ids=tokenizer.stop_ids | {stop}))
    encode_chat(made, _probe())
    return made, stop


def _probe() -> list[dict[str, Any]]:
    return [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]


def _turn_end(tokenizer: Tokenizer, template: ChatTemplate) -> int:
    """The special token that the template writes behind an answer; raises UserError if there is none."""
    text = render(template.text, _probe(), add_generation_prompt=False, tools=None, **tokenizer.special_tokens)
    if ANSWER not in text:
        raise UserError(f"the chat template {template.name} does not write what the assistant says")
    behind = tokenizer.encode_markup(text.rpartition(ANSWER)[2], previous=0)
    stop = next((id_ for id_ in behind if id_ in tokenizer.control_ids), None)
    if stop is None:
        raise UserError(
            f"the chat template {template.name} writes no special token of the tokenizer behind an answer, so a model "
            "would not learn to stop",
            hint="Add the one that it ends a turn with: --add TOKEN --special.",
        )
    return stop
