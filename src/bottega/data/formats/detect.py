"""Which format a row has, told from its keys, and the examples that it gives for a form of data.

The first format in the table whose keys a row has is its format, so files may mix them. A row of one
form can often serve another: an answered question is a prompt without its answer, the better answer
of a pair is one to learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bottega.data.formats import read
from bottega.data.formats.kinds import (
    Completion,
    Conversation,
    Example,
    Labelled,
    Pair,
    Prompt,
    Ranked,
    Rejected,
    Side,
    Text,
    Tokens,
    Tools,
)
from bottega.data.formats.turns import conversation, has_answer
from bottega.data.spec import Form

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """A format: the form of data it is made for, the keys that tell it, and how a row is read."""

    name: str
    form: Form
    keys: str
    matches: Callable[[Row], bool]
    read: Callable[[Row], Example]


def _has(row: Row, keys: tuple[str, ...]) -> bool:
    return read.first(row, keys) is not None


def _is_label(row: Row) -> bool:
    return _has(row, read.LABELS) and (_has(row, read.TURNS) or _has(row, (*read.COMPLETIONS, "output")))


def _is_ranked(row: Row) -> bool:
    answers = read.first(row, read.ANSWERS)
    objects = isinstance(answers, list) and bool(answers) and all(isinstance(answer, Mapping) for answer in answers)
    return isinstance(answers, list) and (objects or _has(row, (*read.SCORES, *read.RANKS)))


def _is_output_pair(row: Row) -> bool:
    return isinstance(row.get("instruction"), str) and isinstance(row.get("output"), list)


def _is_text_of(key: str, others: tuple[str, ...]) -> Callable[[Row], bool]:
    return lambda row: isinstance(row.get(key), str) and _has(row, others)


FORMATS = (
    Format("tokens", "chat", "input_ids", lambda row: _has(row, ("input_ids",)), read.tokens),
    Format(
        "preference",
        "pairs",
        "chosen, rejected",
        lambda row: _has(row, read.CHOSEN) and _has(row, read.REJECTED),
        read.pair,
    ),
    Format("ranked", "pairs", "responses or completions, and scores or ranks", _is_ranked, read.ranked),
    Format("labelled", "labelled", "label or kto_tag, and an answer", _is_label, read.labelled),
    Format("messages", "chat", "messages", lambda row: _has(row, ("messages",)), read.turns),
    Format("sharegpt", "chat", "conversations", lambda row: _has(row, read.TURNS), read.turns),
    Format("alpaca pair", "pairs", "instruction, output (two)", _is_output_pair, read.output_pair),
    Format("alpaca", "chat", "instruction, output", _is_text_of("instruction", read.OUTPUTS), read.alpaca),
    Format(
        "completion",
        "chat",
        "prompt, completion",
        lambda row: _has(row, ("prompt",)) and _has(row, read.COMPLETIONS),
        read.completion,
    ),
    Format("text", "text", "text", lambda row: isinstance(row.get("text"), str), read.text),
    Format(
        "prompt",
        "prompts",
        "prompt or question",
        lambda row: _has(row, ("prompt", "instruction", *read.QUESTIONS)),
        read.prompt,
    ),
)
BY_NAME = {format_.name: format_ for format_ in FORMATS}


def format_of(row: Any) -> Format | None:
    """The format of a row, None if its keys are those of none. A text is a text, a list of turns a conversation."""
    if isinstance(row, str):
        return BY_NAME["text"]
    if isinstance(row, list):
        return BY_NAME["messages"] if row and all(isinstance(turn, Mapping) for turn in row) else None
    if not isinstance(row, Mapping):
        return None
    return next((format_ for format_ in FORMATS if format_.matches(row)), None)


def examples_of(row: Any, form: Form, *, every_pair: bool = False) -> tuple[Format, list[Example]]:
    """The row's format, and what the row is as examples of `form`; raises Rejected with the reason.

    `every_pair` makes of several ranked answers all pairs, not only the best with the worst.
    """
    try:
        found = format_of(row)
        if found is None:
            raise Rejected("of no known format")
        if isinstance(row, str):
            return found, _as_form(read.text({"text": row}), form, {}, every_pair)
        if isinstance(row, list):
            return found, _as_form(conversation(row, {}), form, {"messages": row}, every_pair)
        if form == "prompts" and found.form == "chat" and found.name == "completion":
            return found, [read.prompt(row)]
        return found, _as_form(found.read(row), form, row, every_pair)
    except RecursionError:
        raise Rejected("nested too deeply") from None


def _as_form(example: Example, form: Form, row: Row, every_pair: bool) -> list[Example]:
    if isinstance(example, Pair | Ranked | Labelled):
        return _from_answers(example, form, row, every_pair)
    if form == "prompts":
        if isinstance(example, Prompt):
            return [example]
        if isinstance(example, Conversation):
            return [Prompt(read.without_answer(example.messages), dict(row), example.tools)]
        if isinstance(example, Text):
            raise Rejected("a text, not a question (name it prompt)")
    if form == "chat":
        if isinstance(example, Conversation) and not any(map(has_answer, example.messages)):
            raise Rejected("no answer of the assistant")
        if isinstance(example, Completion) and not example.completion.strip():
            raise Rejected("an empty answer")
        if isinstance(example, Conversation | Completion | Tokens):
            return [example]
    if form == "text" and isinstance(example, Text | Tokens):
        return [example]
    raise Rejected(f"{_WHAT[type(example)]}, no {_WANTED[form]}")


def _from_answers(example: Pair | Ranked | Labelled, form: Form, row: Row, every_pair: bool) -> list[Example]:
    if form == "prompts":
        return [Prompt(read.without_answer(example.prompt), dict(row), example.tools)]
    if isinstance(example, Labelled):
        _check_answers(example.completion)
        if form == "labelled":
            return [example]
        if form == "chat" and not example.label:
            raise Rejected("labelled as bad")
        if form == "chat":
            return [_answered(example.prompt, example.completion, example.tools)]
        raise Rejected(f"one labelled answer, no {_WANTED[form]}")
    pairs = [example] if isinstance(example, Pair) else list(example.pairs(every=every_pair and form == "pairs"))
    if not pairs:
        raise Rejected("all answers have the same score")
    for pair in pairs:
        _check_answers(pair.chosen, pair.rejected)
    if form == "pairs":
        return list(pairs)
    best = pairs[0]
    if form == "labelled":
        return [Labelled(best.prompt, side, side is best.chosen, best.tools) for side in (best.chosen, best.rejected)]
    if form == "chat":
        return [_answered(best.prompt, best.chosen, best.tools)]
    raise Rejected(f"a pair of answers, no {_WANTED[form]}")


def _check_answers(*sides: Side) -> None:
    if not all(map(read.has_content, sides)):
        raise Rejected("an empty answer")
    if len(sides) == 2 and sides[0] == sides[1]:
        raise Rejected("chosen and rejected are the same")


def _answered(prompt: Side, answer: Side, tools: Tools | None) -> Example:
    """The conversation of which only the answer is trained."""
    if isinstance(prompt, str) and isinstance(answer, str):
        return Completion(prompt, answer)
    before, after = read.as_messages(prompt, "user"), read.as_messages(answer, "assistant")
    return Conversation([*before, *after], tools, [*(False for _ in before), *(None for _ in after)])


_WHAT = {
    Text: "a text",
    Tokens: "token ids",
    Conversation: "a conversation",
    Completion: "a prompt and its completion",
    Prompt: "a prompt without an answer",
}
_WANTED: dict[Form, str] = {
    "text": "text",
    "chat": "conversation",
    "pairs": "pair of answers",
    "labelled": "answer with a label",
    "prompts": "prompt",
}
