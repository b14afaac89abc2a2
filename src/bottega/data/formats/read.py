"""Rows of the usual formats as examples; the table of formats is in `detect`.

Every function takes a row (an object with text keys) and raises Rejected with the reason.
Sources: the dataset documentation of TRL (types and columns), Axolotl, LLaMA-Factory and OpenAI's
fine-tuning guide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bottega.data.formats.kinds import (
    Completion,
    Conversation,
    Labelled,
    Message,
    Pair,
    Prompt,
    Ranked,
    Rejected,
    Side,
    Text,
    Tokens,
)
from bottega.data.formats.turns import (
    clean,
    conversation,
    has_answer,
    message_of,
    messages_of,
    system_of,
    text_of,
    tools_of,
)

Row = Mapping[str, Any]
TURNS = ("messages", "conversations", "conversation")
OUTPUTS = ("output", "response")
COMPLETIONS = ("completion", "response", "answer")
QUESTIONS = ("question", "problem", "query")
CHOSEN = ("chosen", "chosen_response", "response_chosen")
REJECTED = ("rejected", "rejected_response", "response_rejected")
ANSWERS = ("responses", "completions", "answers", "outputs", "candidates")
SCORES = ("scores", "ratings", "rewards", "score", "rating")
RANKS = ("ranks", "rank", "ranking")
LABELS = ("label", "kto_tag")
MAX_ANSWERS = 64
_MEDIA = ("images", "image", "videos", "audios")
_HH_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def first(row: Row, keys: Sequence[str]) -> Any:
    """The value of the first of `keys` that the row has, None if it has none."""
    return next((row[key] for key in keys if row.get(key) is not None), None)


def text(row: Row) -> Text:
    """{"text"}."""
    return Text(text_of(row.get("text"), "a text that is none"))


def tokens(row: Row) -> Tokens:
    """{"input_ids", and labels (-100 where not trained), or completion_mask, or attention_mask (0 on padding)}."""
    ids = _integers(row.get("input_ids"))
    labels, completion = row.get("labels"), row.get("completion_mask")
    attention = row.get("attention_mask")
    keep = [bool(bit) for bit in _integers(attention)] if attention is not None else [True] * len(ids)
    mask: list[bool] | None = None
    if labels is not None:
        labels = _integers(labels)
        mask = [label != -100 for label in labels]
        if any(label not in (-100, id_) for label, id_ in zip(labels, ids, strict=False)):
            raise Rejected("labels that are neither -100 nor the token (they must not be shifted)")
    elif completion is not None:
        mask = [bool(bit) for bit in _integers(completion)]
    if len(keep) != len(ids) or (mask is not None and len(mask) != len(ids)):
        raise Rejected("labels or masks of another length than input_ids")
    kept = [at for at, bit in enumerate(keep) if bit]
    return Tokens([ids[at] for at in kept], None if mask is None else [mask[at] for at in kept])


def turns(row: Row) -> Conversation:
    """{"messages" or "conversations": [turns], "tools"?, "system"?}; with pictures or sound it is refused."""
    if any(row.get(key) for key in _MEDIA):
        raise Rejected("images, video or sound")
    return conversation(first(row, TURNS), row)


def alpaca(row: Row) -> Conversation:
    """{"instruction", "input"?, "output", "system"?, "history": [[question, answer], …]?}."""
    answer = {"role": "assistant", "content": text_of(first(row, OUTPUTS), "no answer")}
    return Conversation([*_instruction(row), answer], tools_of(row))


def completion(row: Row) -> Conversation | Completion:
    """{"prompt", "completion"}: two texts, or two lists of messages."""
    prompt, answer = row.get("prompt"), first(row, COMPLETIONS)
    if isinstance(prompt, str) and isinstance(answer, str) and not system_of(row):
        return Completion(clean(prompt), clean(answer))
    before, after = _prompt(row), _answer(answer, None)
    messages = [*as_messages(before, "user"), *as_messages(after, "assistant")]
    asked = len(messages) - len(as_messages(after, "assistant"))
    return Conversation(messages, tools_of(row), [False] * asked + [None] * (len(messages) - asked))


def pair(row: Row) -> Pair:
    """{"chosen", "rejected"}, with an explicit prompt or as whole conversations that begin with the same one."""
    chosen, rejected = first(row, CHOSEN), first(row, REJECTED)
    if type(chosen) is not type(rejected):
        raise Rejected("chosen and rejected are of different types")
    prompt = _prompt(row) if _has_prompt(row) else None
    if isinstance(chosen, str) and prompt is None:
        return _scored(row, *_implicit_texts(clean(chosen), clean(rejected)))
    sides = (_answer(chosen, prompt), _answer(rejected, prompt))
    if prompt is None:
        return _scored(row, *_common_prefix(*(as_messages(side, "assistant") for side in sides)))
    return _scored(row, prompt, *sides)


def output_pair(row: Row) -> Pair:
    """{"instruction", "input", "output": [chosen, rejected]}: LLaMA-Factory's earlier ranking format."""
    outputs = [text_of(output, "an answer that is no text") for output in row["output"]]
    if len(outputs) != 2:
        raise Rejected("a list of answers without scores, and not two")
    return _scored(row, _instruction(row), *([{"role": "assistant", "content": output}] for output in outputs))


def ranked(row: Row) -> Ranked:
    """{prompt, "responses": [texts, messages or objects], "scores" (more is better) or "ranks" (1 is best)}."""
    answers = first(row, ANSWERS)
    if not isinstance(answers, list) or len(answers) < 2:
        raise Rejected("fewer than two answers")
    if len(answers) > MAX_ANSWERS:
        raise Rejected(f"more than {MAX_ANSWERS} answers")
    objects = all(isinstance(answer, Mapping) and "role" not in answer for answer in answers)
    ranks = first(row, RANKS) if not objects else [first(answer, RANKS) for answer in answers]
    are_ranks = isinstance(ranks, list) and any(rank is not None for rank in ranks)
    keys = ("overall_score", "score", "rating", "reward")
    scores = ranks if are_ranks else [first(answer, keys) for answer in answers] if objects else first(row, SCORES)
    if not isinstance(scores, list) or len(scores) != len(answers):
        raise Rejected("not one score for each answer")
    numbers = [-_number(score) if are_ranks else _number(score) for score in scores]
    if objects:
        answers = [first(answer, ("response", "text", "content", "completion", "output")) for answer in answers]
    prompt = _prompt(row)
    prompt, *found = _alike(prompt, *(_answer(answer, prompt) for answer in answers))
    return Ranked(prompt, found, numbers, are_ranks, tools_of(row))


def labelled(row: Row) -> Labelled:
    """{"prompt", "completion", "label"}, or a conversation with a label: the last answer is meant."""
    label = _label(first(row, LABELS))
    if first(row, TURNS) is not None:
        found = turns(row)
        messages = found.messages
        last = max((at for at, message in enumerate(messages) if message["role"] == "assistant"), default=0)
        if last == 0:
            raise Rejected("no answer of the assistant")
        return Labelled(messages[:last], [messages[last]], label, found.tools)
    prompt = _prompt(row)
    prompt, answer = _alike(prompt, _answer(first(row, (*COMPLETIONS, "output")), prompt))
    return Labelled(prompt, answer, label, tools_of(row))


def prompt(row: Row) -> Prompt:
    """{"prompt", "question", "problem", "instruction" or messages, and whatever a reward needs}."""
    return Prompt(without_answer(_prompt(row)), dict(row), tools_of(row))


def without_answer(side: Side) -> Side:
    """Messages up to the last that is not the assistant's."""
    if isinstance(side, str):
        return side
    end = max((at + 1 for at, message in enumerate(side) if message["role"] != "assistant"), default=0)
    if not end or all(message["role"] in ("system", "developer") for message in side[:end]):
        raise Rejected("no question")
    return side[:end]


def as_messages(side: Side, role: str) -> list[Message]:
    """The messages of a side; a text becomes one message of `role`."""
    return [{"role": role, "content": side}] if isinstance(side, str) else side


# ---------------------------------------------------------------------- parts of rows


def _has_prompt(row: Row) -> bool:
    return first(row, ("prompt", "instruction", *QUESTIONS, *TURNS)) is not None or isinstance(row.get("input"), str)


def _prompt(row: Row) -> Side:
    """What is asked: a plain text where it stands alone, else messages."""
    given = row.get("prompt")
    if given is None:
        if isinstance(row.get("instruction"), str):
            return _instruction(row)
        if first(row, TURNS) is not None:
            return messages_of(first(row, TURNS), row)
        given = first(row, (*QUESTIONS, "input"))
    if isinstance(given, list | Mapping):
        return messages_of(given, row)
    question = text_of(given, "no prompt")
    system = system_of(row)
    return [*system, {"role": "user", "content": question}] if system else question


def _instruction(row: Row) -> list[Message]:
    """The messages of an alpaca row up to the question; its input stands below the instruction."""
    question, extra = text_of(row.get("instruction"), "no instruction"), row.get("input") or ""
    extra = text_of(extra, "an input that is no text")
    messages = system_of(row)
    history, otherwise = row.get("history") or [], "a history that is no list of questions and answers"
    if not isinstance(history, list):
        raise Rejected(otherwise)
    for turn in history:
        if not isinstance(turn, Sequence) or len(turn) != 2:
            raise Rejected(otherwise)
        asked, answered = (text_of(part, otherwise) for part in turn)
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": f"{question}\n\n{extra}" if extra.strip() else question}]


def _answer(answer: Any, prompt: Side | None) -> Side:
    """An answer as text or messages; messages that repeat the prompt lose it."""
    if isinstance(answer, str):
        return clean(answer)
    if isinstance(answer, Mapping):
        return [message_of(answer)]
    if not isinstance(answer, list) or not answer:
        raise Rejected("no answer")
    messages = messages_of(answer)
    asked = as_messages(prompt, "user") if prompt is not None else []
    return messages[len(asked) :] if asked and messages[: len(asked)] == asked else messages


def _scored(row: Row, prompt: Side, chosen: Side, rejected: Side) -> Pair:
    """The pair with the scores that the row gives."""
    prompt, chosen, rejected = _alike(prompt, chosen, rejected)
    scores = [first(row, (f"score_{side}", f"{side}_score", f"{side}_rating")) for side in ("chosen", "rejected")]
    rating = row.get("rating")
    if None in scores and isinstance(rating, list) and len(rating) == 2:
        scores = [max(map(_number, rating)), min(map(_number, rating))]
    margin = row.get("margin")
    return Pair(
        prompt,
        chosen,
        rejected,
        tools_of(row),
        None if None in scores else (_number(scores[0]), _number(scores[1])),
        None if margin is None else _number(margin),
    )


def _alike(prompt: Side, *answers: Side) -> list[Side]:
    """Prompt and answers, all as text if they are texts, else all as messages."""
    if all(isinstance(side, str) for side in (prompt, *answers)):
        return [prompt, *answers]
    return [as_messages(prompt, "user"), *(as_messages(answer, "assistant") for answer in answers)]


def _common_prefix(chosen: list[Message], rejected: list[Message]) -> tuple[Side, Side, Side]:
    """The prompt is what both conversations begin with."""
    if chosen == rejected:
        raise Rejected("chosen and rejected are the same")
    end = next(
        (at for at, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other),
        min(len(chosen), len(rejected)),
    )
    if end == 0:
        raise Rejected("chosen and rejected have no prompt in common")
    return chosen[:end], chosen[end:], rejected[end:]


def _implicit_texts(chosen: str, rejected: str) -> tuple[Side, Side, Side]:
    """Two whole texts: Anthropic's "Human: … Assistant: …", or plain ones, cut where they begin to differ."""
    if chosen == rejected:
        raise Rejected("chosen and rejected are the same")
    if chosen.startswith("\n\nHuman:") and rejected.startswith("\n\nHuman:"):
        return _common_prefix(_hh_messages(chosen), _hh_messages(rejected))
    end = next(
        (at for at, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other),
        min(len(chosen), len(rejected)),
    )
    end -= end > 0 and chosen[end - 1] == " "  # the space belongs to the word behind it
    if end == 0:
        raise Rejected("chosen and rejected have no prompt in common")
    return chosen[:end], chosen[end:], rejected[end:]


def _hh_messages(dialogue: str) -> list[Message]:
    parts = _HH_TURN.split(dialogue)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": roles[who], "content": said} for who, said in pairs]


def has_content(side: Side) -> bool:
    """Whether an answer says something, and is the assistant's."""
    return bool(side.strip()) if isinstance(side, str) else bool(side) and all(map(has_answer, _assistants(side)))


def _assistants(side: list[Message]) -> list[Message]:
    found = [message for message in side if message["role"] == "assistant"]
    if not found or side[0]["role"] != "assistant":
        raise Rejected("an answer that does not begin with the assistant")
    return found


def _label(value: Any) -> bool:
    """True or false, also as 1 and 0, "true" and "false"."""
    words = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    if value not in (0, 1) or isinstance(value, str):
        raise Rejected("a label that is neither true nor false")
    return bool(value)


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise Rejected("a score that is no number")
    return number


def _integers(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
        raise Rejected("input_ids, labels or masks that are no lists of whole numbers")
    return value
