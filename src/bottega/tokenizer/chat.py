"""A conversation as token ids, with the loss mask by construction.

One function for training and for serving, so that what a model is trained on is, id for id,
what it is given later. How:

* The text is what the chat template renders; the template owns BOS, nothing is added to it.
* An assistant's turn begins where the conversation before it, rendered with the generation
  prompt, ends. That this is a *prefix* of the whole is checked, not assumed.
* The text is cut there and at the turn's end and the pieces are tokenised apart, so that no
  token spans the place where generation starts.
* Trained are the tokens of the turn up to and including its stop token; a turn without one
  is refused, because a model trained on it would never learn to stop. The mask goes by
  position, never by id. `Masking` says which turns, and whether their stop tokens.
* Special strings inside a message stay text. They are cut in two, in the rendering, by a
  character that occurs nowhere in the conversation; the pieces are tokenised apart and the
  character is never seen by the tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from bottega.core.errors import UserError
from bottega.tokenizer.template import render
from bottega.tokenizer.tokenizer import Tokenizer

ROLES = ("system", "developer", "user", "assistant", "tool")
GIVE_TEMPLATE = "A base gets one by: bottega tokenizer extend MODEL --template chatml --out DIR"
Message = Mapping[str, Any]
TrainOn = Literal["assistant", "all", "last"]
TrainOnEos = Literal["turn", "last", "none"]


@dataclass(frozen=True)
class Masking:
    """What of a conversation is trained.

    `train_on`: every turn of the assistant, all tokens of everybody, or the assistant's last turn.
    `train_on_eos`: the stop token of every trained turn, of the last one, or of none.
    """

    train_on: TrainOn = "assistant"
    train_on_eos: TrainOnEos = "turn"


_EVERY_TURN = Masking()


@dataclass
class ChatTokens:
    """`ids`, `mask` (True where the model is trained to produce the token) and the `text` they stand for."""

    ids: list[int]
    mask: list[bool]
    text: str


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    weights: Sequence[bool | None] = (),
    masking: Masking = _EVERY_TURN,
) -> ChatTokens:
    """Encode a conversation: with `add_generation_prompt` for the model to go on from, else for training on.

    The ids of a training conversation begin with the ids of every serving prompt that leads
    up to one of its trained turns. `weights` (empty, or one for each message) are False on
    messages of the assistant that are not trained. Raises UserError if there is no template, a
    message is malformed, the template fails, or (in training) rewrites what came before a
    trained turn or ends one without a stop token.
    """
    check_messages(messages)
    chat = _Chat(tokenizer, messages, tools)
    text = chat.render(len(messages), add_generation_prompt)
    trained = trained_turns(messages, weights, masking)
    ids: list[int] = []
    mask: list[bool] = []
    for piece, turn in _pieces(text, chat.turns(text, strict=() if add_generation_prompt else trained)):
        piece_ids = chat.encode(piece, ids[-1] if ids else None)
        ids += piece_ids
        if turn is None or turn not in trained:
            mask += [turn is None and masking.train_on == "all"] * len(piece_ids)
            continue
        stop = max((at for at, id_ in enumerate(piece_ids) if id_ in tokenizer.stop_ids), default=-1)
        if stop < 0 and not add_generation_prompt:
            _refuse_unstopped(tokenizer, turn)
        ends = masking.train_on_eos == "turn" or (masking.train_on_eos == "last" and turn == trained[-1])
        rest = masking.train_on == "all"
        mask += [at < stop or (at == stop and ends) or (at > stop and rest) for at in range(len(piece_ids))]
    if tokenizer.bos_id is not None and ids[:2] == [tokenizer.bos_id] * 2:
        raise UserError(
            f"the chat template writes {tokenizer.token_text(tokenizer.bos_id)!r} twice at the beginning",
            hint="Remove one of them from the template.",
        )
    return ChatTokens(ids, mask, chat.unmarked(text))


def trained_turns(
    messages: Sequence[Message], weights: Sequence[bool | None] = (), masking: Masking = _EVERY_TURN
) -> list[int]:
    """Indices of the assistant's messages that are trained."""
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if masking.train_on == "last":
        turns = turns[-1:]
    return [index for index in turns if not weights or weights[index] is not False]


def _refuse_unstopped(tokenizer: Tokenizer, turn: int) -> NoReturn:
    raise UserError(
        f"message {turn}: the assistant's turn ends without a stop token, so the model would not learn to stop",
        hint=f"The stop tokens are {_shown(tokenizer, tokenizer.stop_ids)}. Let the chat template end the turn with "
        "one of them, or add the one it uses to eos_token_id in generation_config.json.",
    )


def check_messages(messages: Sequence[Message]) -> None:
    """Raise UserError unless each message is {"role": …, "content": text}."""
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise UserError(f"message {index} is no object with role and content")
        if message.get("role") not in ROLES:
            raise UserError(f"message {index}: role {message.get('role')!r} is none of {', '.join(ROLES)}")
        content = message.get("content")
        if not (isinstance(content, str) or (content is None and message.get("tool_calls"))):
            raise UserError(f"message {index}: content must be text, not {type(content).__name__}")


class _Chat:
    """A conversation whose special strings are cut apart by a marker, so that only the template's remain."""

    def __init__(
        self, tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None
    ) -> None:
        if not tokenizer.chat_template:
            raise UserError(
                f"{tokenizer.folder} has no chat template",
                hint=f"Use a model that was fine-tuned on conversations. {GIVE_TEMPLATE}",
            )
        self.tokenizer = tokenizer
        self.template = tokenizer.chat_template
        self.controls = _any_of(re.escape(text) for text in tokenizer.control_tokens)
        self.cuts = _any_of(_cut(text) for text in tokenizer.control_tokens)
        self.marker = _unused_character("".join([self.template, *_texts(messages), *_texts(tools)]))
        self.marked_something = False
        self.plain, self.plain_tools = list(messages), tools
        self.marked = [self._mark(message) for message in messages]
        self.marked_tools = None if tools is None else [self._mark(tool) for tool in tools]
        self._rendered: dict[tuple[int, bool], str] = {}

    def render(self, count: int, add_generation_prompt: bool) -> str:
        """The first `count` messages, rendered, with markers in them."""
        key = (count, add_generation_prompt)
        if key not in self._rendered:
            self._rendered[key] = self._render(self.marked[:count], self.marked_tools, add_generation_prompt)
            if self.marked_something:
                plain = self._render(self.plain[:count], self.plain_tools, add_generation_prompt)
                if plain != self.unmarked(self._rendered[key]):
                    raise UserError(
                        "a message contains a special token of the tokenizer as text, and the chat template acts on it",
                        hint=f"Remove it. Special: {_shown(self.tokenizer, self.tokenizer.control_ids)}.",
                    )
        return self._rendered[key]

    def _render(
        self, messages: list[Message], tools: Sequence[Mapping[str, Any]] | None, add_generation_prompt: bool
    ) -> str:
        return render(
            self.template,
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            **self.tokenizer.special_tokens,
        )

    def turns(self, text: str, *, strict: Sequence[int]) -> list[tuple[int, int, int]]:
        """(index of the message, start, end) in `text` of each assistant turn.

        A turn that the template renders otherwise once more messages follow has no place in
        `text`: an error if it is one of `strict`, else left out (it can be read by the model, but not trained).
        """
        found: list[tuple[int, int, int]] = []
        for index, message in enumerate(self.plain):
            if message["role"] != "assistant":
                continue
            try:
                before, after = self.render(index, True), self.render(index + 1, False)
            except UserError:
                if index in strict:
                    raise
                continue
            last_end = found[-1][2] if found else 0
            if last_end <= len(before) <= len(after) and after.startswith(before) and text.startswith(after):
                found.append((index, len(before), len(after)))
            elif index in strict:
                self._refuse(index, before, after, text)
        return found

    def _refuse(self, index: int, before: str, after: str, text: str) -> None:
        wanted, got = (before, after) if not after.startswith(before) else (after, text)
        at = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))
        start = max(at - 20, 0)
        raise UserError(
            f"message {index}: the chat template writes the conversation up to this turn in two ways: when the turn is "
            f"asked for, {self.unmarked(wanted[start : at + 20])!r}; when it has been given, "
            f"{self.unmarked(got[start : at + 20])!r}",
            hint="What the model is trained on would not be what it is served. If the template drops reasoning from "
            "earlier turns, give each turn as a conversation of its own; else correct the template.",
        )

    def encode(self, piece: str, previous: int | None) -> list[int]:
        """Ids of a piece of rendered text; the template's special strings are tokens, the messages' are not."""
        ids: list[int] = []
        for part in piece.split(self.marker):
            part_ids = self.tokenizer.encode_markup(part, previous=ids[-1] if ids else previous)
            written = sum(1 for _ in self.controls.finditer(part))
            made = sum(1 for id_ in part_ids if id_ in self.tokenizer.control_ids)
            if made > written:
                raise UserError(
                    "a message contains text that the tokenizer turns into a special token",
                    hint=f"Special: {_shown(self.tokenizer, self.tokenizer.control_ids)}.",
                )
            ids += part_ids
        return ids

    def unmarked(self, text: str) -> str:
        """The text without markers."""
        return text.replace(self.marker, "")

    def _mark(self, value: Any) -> Any:
        if isinstance(value, str):
            marked = self.cuts.sub(lambda found: found.group() + self.marker, value)
            self.marked_something |= marked != value
            return marked
        if isinstance(value, Mapping):
            return {self._mark(key): self._mark(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._mark(item) for item in value]
        return value


def _cut(special: str) -> str:
    """A pattern for the first character of `special`, wherever a message is to be cut there.

    Strings like `<|end|>` are cut wherever their opening `<|` stands, so that no template can
    join the special string from parts of messages; others (`</s>`, whose opening is that of
    any closing tag) where they stand in full.
    """
    opening = re.match(r"[\W_]*", special)
    length = opening.end() if opening else 0
    rest = special[1:length] if 2 <= length < len(special) and special[:length] != "</" else special[1:]
    return f"{re.escape(special[0])}(?={re.escape(rest)})"


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(dict.fromkeys(patterns)) or "(?!)")


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _unused_character(text: str) -> str:
    """A character of the last private plane that is not in `text`."""
    used = set(text)
    return next(chr(code) for code in range(0x10FFFD, 0x100000, -1) if chr(code) not in used)


def _shown(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    return ", ".join(repr(tokenizer.token_text(id_)) for id_ in sorted(ids)[:8]) or "none"


def _pieces(text: str, turns: list[tuple[int, int, int]]) -> Iterator[tuple[str, int | None]]:
    """The text cut at the turns: (piece, index of the message if the piece is an assistant turn)."""
    at = 0
    for index, start, end in turns:
        yield text[at:start], None
        yield text[start:end], index
        at = end
    yield text[at:], None
