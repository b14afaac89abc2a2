"""Examples as token ids with a mask of what is trained.

Messages go through the chat template (`tokenizer.chat`). Plain texts stand as they are: a prompt and
its completion are tokenised apart, so that no token spans the place where generation starts, and the
completion ends with the tokenizer's end-of-sequence token. Where there is a template, a plain prompt
is a user's message and its completion the assistant's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from bottega.core.errors import UserError
from bottega.data.config import ExampleOptions
from bottega.data.formats.kinds import (
    Completion,
    Conversation,
    Example,
    Labelled,
    Message,
    Pair,
    Prompt,
    Rejected,
    Side,
    Text,
    Tokens,
    Tools,
)
from bottega.data.formats.read import as_messages
from bottega.tokenizer.chat import GIVE_TEMPLATE, Masking, encode_chat
from bottega.tokenizer.template import REASONING_KEYS
from bottega.tokenizer.tokenizer import Tokenizer

_AS_TEXT = " (tools: text writes them as text)"


class Encoded(NamedTuple):
    """Token ids, and True where the model is trained to produce the token."""

    ids: list[int]
    mask: list[bool]


def encode_example(tokenizer: Tokenizer, example: Example, options: ExampleOptions) -> list[Encoded]:
    """The documents of an example: two of a pair (chosen, rejected), else one.

    Raises Rejected where this example cannot be used, UserError where none can (no chat template, no
    end-of-sequence token).
    """
    if options.train_on == "all" and isinstance(example, Pair | Labelled):
        raise UserError(
            "train_on: all trains on prompts too, and judged answers are compared by themselves",
            hint="Leave train_on out for pairs and labelled answers.",
        )
    try:
        found = _encode(tokenizer, example, options)
    except RecursionError:
        raise Rejected("nested too deeply") from None
    # The first token has nothing before it: a mask on it alone trains nothing.
    if not isinstance(example, Prompt) and not all(any(encoded.mask[1:]) for encoded in found):
        raise Rejected("no token to train on")
    if isinstance(example, Pair) and found[0].ids == found[1].ids:
        raise Rejected("chosen and rejected are the same")
    return found


def _encode(tokenizer: Tokenizer, example: Example, options: ExampleOptions) -> list[Encoded]:
    match example:
        case Conversation():
            return [_conversation(tokenizer, example, options)]
        case Completion():
            return [_answered(tokenizer, example.prompt, example.completion, None, options)]
        case Pair():
            sides = (example.chosen, example.rejected)
            return [_answered(tokenizer, example.prompt, side, example.tools, options) for side in sides]
        case Labelled():
            return [_answered(tokenizer, example.prompt, example.completion, example.tools, options)]
        case Prompt():
            return [_prompt(tokenizer, example, options)]
        case Tokens():
            return [_tokens(tokenizer, example)]
        case Text():
            ids = tokenizer.document_prefix() + tokenizer.encode(example.text)
            return [Encoded(ids, [True] * len(ids))]
        case _:
            raise AssertionError("several ranked answers become pairs first")


def _answered(
    tokenizer: Tokenizer, prompt: Side, answer: Side, tools: Tools | None, options: ExampleOptions
) -> Encoded:
    """A prompt and an answer of which only the answer is trained."""
    if isinstance(prompt, str) and isinstance(answer, str) and not tokenizer.chat_template:
        return _plain(tokenizer, prompt, answer, options)
    before, after = as_messages(prompt, "user"), as_messages(answer, "assistant")
    weights = [*(False for _ in before), *(None for _ in after)]
    return _conversation(tokenizer, Conversation([*before, *after], tools, weights), options)


def _plain(tokenizer: Tokenizer, prompt: str, completion: str, options: ExampleOptions) -> Encoded:
    if tokenizer.eos_id is None:
        raise UserError(
            f"{tokenizer.folder} has neither a chat template nor an end-of-sequence token, so a completion has no end",
            hint="Name one as eos_token in its tokenizer_config.json.",
        )
    asked = tokenizer.document_prefix() + tokenizer.encode(prompt)
    answer = tokenizer.encode_inside(completion) if asked else tokenizer.encode(completion)
    trained = [True] * len(answer) + [options.train_on_eos != "none"]
    return Encoded([*asked, *answer, tokenizer.eos_id], [options.train_on == "all"] * len(asked) + trained)


def _conversation(tokenizer: Tokenizer, example: Conversation, options: ExampleOptions) -> Encoded:
    messages = _with_reasoning(tokenizer, example.messages, options)
    messages, tools, weights = _with_tools(tokenizer, messages, example.tools, example.weights, options)
    masking = Masking(options.train_on, options.train_on_eos)
    try:
        chat = encode_chat(tokenizer, messages, tools=tools, weights=weights, masking=masking)
    except UserError as error:
        raise Rejected(_reason(error) + (_AS_TEXT if tools else "")) from None
    return Encoded(chat.ids, chat.mask)


def _prompt(tokenizer: Tokenizer, example: Prompt, options: ExampleOptions) -> Encoded:
    if isinstance(example.prompt, str) and not tokenizer.chat_template:
        ids = tokenizer.document_prefix() + tokenizer.encode(example.prompt)
    else:
        messages = _with_reasoning(tokenizer, as_messages(example.prompt, "user"), options)
        messages, tools, _ = _with_tools(tokenizer, messages, example.tools, [], options)
        try:
            ids = encode_chat(tokenizer, messages, tools=tools, add_generation_prompt=True).ids
        except UserError as error:
            raise Rejected(_reason(error)) from None
    if not ids:
        raise Rejected("an empty prompt")
    return Encoded(ids, [False] * len(ids))


def _tokens(tokenizer: Tokenizer, example: Tokens) -> Encoded:
    if any(not 0 <= id_ < tokenizer.vocab_size for id_ in example.ids):
        raise Rejected("token ids that the tokenizer does not have")
    return Encoded(example.ids, [True] * len(example.ids) if example.mask is None else example.mask)


def _with_tools(
    tokenizer: Tokenizer,
    messages: list[Message],
    tools: Tools | None,
    weights: Sequence[bool | None],
    options: ExampleOptions,
) -> tuple[list[Message], Tools | None, Sequence[bool | None]]:
    """Messages and tools in a form that the template shows; raises Rejected where it would leave them out."""
    template = tokenizer.chat_template
    if not template:
        raise UserError(
            f"{tokenizer.folder} has no chat template, so conversations have no form",
            hint="Use the tokenizer of a model that was tuned on conversations, or give prompts and completions as "
            f"plain texts. {GIVE_TEMPLATE}",
        )
    calls = any(message.get("tool_calls") for message in messages)
    if options.tools == "text":
        weights = [None, *weights] if tools and weights and messages[0]["role"] != "system" else weights
        return _as_text(messages, tools), None, weights
    for used, name in ((tools, "tools"), (calls, "tool_calls")):
        if used and name not in template:
            raise Rejected(f"{name}, for which the chat template has no place{_AS_TEXT}")
    return messages, tools, weights


def _with_reasoning(tokenizer: Tokenizer, messages: list[Message], options: ExampleOptions) -> list[Message]:
    """Messages whose reasoning the template shows; raises Rejected where it would leave it out."""
    if not any("reasoning_content" in message for message in messages):
        return messages
    if options.reasoning == "template":
        if not any(key in (tokenizer.chat_template or "") for key in REASONING_KEYS):
            raise Rejected("reasoning, for which the chat template has no place (reasoning: text or drop)")
        return messages
    said: list[Message] = []
    for message in messages:
        plain = {key: value for key, value in message.items() if key != "reasoning_content"}
        if options.reasoning == "text" and "reasoning_content" in message:
            plain["content"] = f"<think>\n{message['reasoning_content']}\n</think>\n\n{message['content']}"
        said.append(plain)
    return said


def _as_text(messages: list[Message], tools: Tools | None) -> list[Message]:
    """Tools as lines of JSON in the system message, calls as lines of JSON in the assistant's."""
    said: list[Message] = []
    for message in messages:
        lines = [_json(call["function"]) for call in message.get("tool_calls", ())]
        content = "\n".join([message["content"], *lines] if message["content"] else lines) if lines else None
        plain = {key: value for key, value in message.items() if key != "tool_calls"}
        said.append(plain if content is None else plain | {"content": content})
    if not tools:
        return said
    listed = "\n".join(_json(tool["function"]) for tool in tools)
    if said[0]["role"] != "system":
        return [{"role": "system", "content": listed}, *said]
    return [said[0] | {"content": f"{said[0]['content']}\n\n{listed}"}, *said[1:]]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _reason(error: UserError) -> str:
    """An error of one conversation as a reason: without its place in it, and without what it quotes."""
    return re.sub(r"(['\"]).*?\1", "…", re.sub(r"^message \d+: ", "", error.message))
