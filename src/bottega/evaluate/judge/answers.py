"""What is judged: answers of models, each with the question and, where there is one, the right answer. No torch.

A file has a JSON object a line (`.gz` too), in one of these forms:

    ours         {"id", "model", "category", "system", "prompt" | "question" | "turns" | "messages",
                  "answer": text or list of texts, "reference": text or list of texts}
    FastChat's   {"question_id", "model_id", "choices": [{"turns": [text or {"content"}]}]}, with a file of questions
                 {"question_id", "category", "turns", "reference"}
    an evaluation's `items.jsonl` (or its folder): items that a model generated an answer to

Only id, question and answer are required. Of several choices the first is judged.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.evaluate.items import ITEMS_FILE, Item

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Turn:
    """One question and what the model said to it."""

    question: str
    answer: str


@dataclass(frozen=True)
class Answer:
    """A conversation of one model. `references` are right answers by turn; () if there are none."""

    id: str
    turns: tuple[Turn, ...]
    system: str = ""
    category: str = ""
    references: tuple[str, ...] = ()

    @property
    def questions(self) -> tuple[str, ...]:
        """What was asked, the system's message first: models with equal ones were asked the same."""
        return (self.system, *(turn.question for turn in self.turns))

    @property
    def text(self) -> str:
        """All that the model said."""
        return "\n\n".join(turn.answer for turn in self.turns)

    def until(self, turns: int) -> Answer:
        """The conversation's first `turns` turns."""
        return replace(self, turns=self.turns[:turns], references=self.references[:turns])


Answers = dict[str, dict[str, Answer]]
"""Model → id → answer."""


@dataclass(frozen=True)
class Question:
    """What a file of questions knows of one: the turns, and right answers."""

    turns: tuple[str, ...]
    category: str = ""
    references: tuple[str, ...] = ()


def read_answers(paths: Sequence[Path], questions: Path | None = None, references: Path | None = None) -> Answers:
    """The answers of all files by model; raises UserError naming the file and line that is none.

    A model without a name is called like its file.
    """
    known = read_questions(questions) if questions is not None else {}
    right = read_references(references) if references is not None else {}
    found: Answers = {}
    for path, name in zip(paths, _names(paths), strict=True):
        count = 0
        for where, row in rows_of(path / ITEMS_FILE if path.is_dir() else path):
            count += 1
            try:
                read = _of_item(row) if {"task", "doc_id", "responses"} <= row.keys() else _of_row(row, known)
            except ValueError as error:
                raise UserError(f"{where}: {error}") from None
            if read is None:
                continue
            model, answer = read[0] or name, read[1]
            if answer.id in found.setdefault(model, {}):
                raise UserError(f"{where}: {model!r} has two answers with the id {answer.id!r}", hint="Leave one out.")
            if references is not None:
                answer = replace(answer, references=right.get(answer.id, ()))
            found[model][answer.id] = _fitting(answer, where)
        if not any(found.values()):
            hint = "Of an evaluation, only tasks with generated answers can be judged." if count else "It is empty."
            raise UserError(f"{path} has no answer to judge", hint=hint)
    return found


def read_questions(path: Path) -> dict[str, Question]:
    """The questions of a file by id."""
    found = {}
    for where, row in rows_of(path):
        turns = _asked(row)
        if not turns:
            raise UserError(f"{where} has no question", hint='It is in "turns", "prompt" or "question".')
        found[_id(row, where)] = Question(turns, str(row.get("category") or ""), _texts(row.get("reference")))
    return found


def read_references(path: Path) -> dict[str, tuple[str, ...]]:
    """Right answers by id and turn: FastChat's form (answers of a model), or "reference", "answer" or "target"."""
    found = {}
    for where, row in rows_of(path):
        named = next((row[name] for name in ("reference", "answer", "target") if row.get(name)), None)
        texts = _chosen(row) if "choices" in row else _texts(named)
        if not texts:
            raise UserError(f"{where} has no reference answer", hint='It is in "reference", or in choices[0]["turns"].')
        found[_id(row, where)] = texts
    return found


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """('FILE, line N', object) of each line; raises UserError if one is no JSON object, or the file cannot be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{path}, line {number}"
                    try:
                        row = _whole(json.loads(line.decode("utf-8")))
                    except (ValueError, RecursionError) as error:
                        raise UserError(f"{where} is not JSON: {error or 'nested too deeply'}") from None
                    if not isinstance(row, dict):
                        raise UserError(f"{where} is not a JSON object")
                    yield where, row
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _whole(value: Any) -> Any:
    """Halves of surrogate pairs, which no model, file or page can hold, as the escapes that they were."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _names(paths: Sequence[Path]) -> list[str]:
    """The files' own names where they tell them apart, else with their folders'."""
    stems = [path.name.removesuffix(".gz").removesuffix(".jsonl") for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _of_item(row: Row) -> tuple[str, Answer] | None:
    """(model, answer) of an evaluation's item; None if nothing was generated."""
    try:
        item = Item.from_row(dict(row))
    except TypeError as error:
        raise ValueError(f"it is no item: {error}") from None
    if not item.responses:
        return None
    turn, right = Turn(item.prompt, item.responses[0]), (item.target,) if item.target else ()
    return item.model, Answer(f"{item.task}/{item.doc_id}", (turn,), category=item.task, references=right)


def _of_row(row: Row, known: Mapping[str, Question]) -> tuple[str, Answer]:
    id_ = _id(row, "it")
    question = known.get(id_, Question(()))
    system, asked, said = _conversation(row)
    asked = asked or question.turns
    if not asked:
        raise ValueError(f'the question {id_!r} is not known. Give it as "prompt", or a file of them with --questions')
    said = (*said, *(_chosen(row) if "choices" in row else _texts(row.get("answer"))))
    if len(said) < len(asked):
        raise ValueError(f"{len(asked)} questions have {len(said)} answers")
    if len(said) > len(asked):
        raise ValueError(f"{len(said)} answers are to {len(asked)} questions")
    turns = tuple(Turn(*each) for each in zip(asked, said, strict=True))
    category = str(row.get("category") or question.category)
    right = _texts(row.get("reference")) or question.references
    return str(row.get("model") or row.get("model_id") or ""), Answer(id_, turns, system, category, right)


def _conversation(row: Row) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """System message, the user's turns, and the assistant's among `messages`."""
    system = str(row.get("system") or "")
    messages = row.get("messages")
    if messages is None:
        return system, _asked(row), ()
    if not isinstance(messages, list):
        raise ValueError("messages is no list")
    turns: dict[str, list[str]] = {"user": [], "assistant": []}
    for place, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str):
            raise ValueError(f"message {place} has no text")
        if place == 0 and role in ("system", "developer"):
            system = content
            continue
        wanted = "user" if len(turns["user"]) == len(turns["assistant"]) else "assistant"
        if role != wanted:
            raise ValueError(f"message {place} is of {role!r}, and it is the turn of {wanted!r}")
        turns[wanted].append(content)
    return system, tuple(turns["user"]), tuple(turns["assistant"])


def _asked(row: Row) -> tuple[str, ...]:
    return next((_texts(row[name]) for name in ("turns", "prompt", "question") if row.get(name)), ())


def _chosen(row: Row) -> tuple[str, ...]:
    """The turns of the first choice."""
    choices = row["choices"]
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("choices has no object in it")
    return _texts(choices[0].get("turns"))


def _texts(value: Any) -> tuple[str, ...]:
    """A text, or a list of texts or of {"content": text}."""
    if value is None or value == "":
        return ()
    parts = value if isinstance(value, list) else [value]
    texts = []
    for part in parts:
        text = part.get("content") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise ValueError(f"a text is wanted, not {text!r:.60}")
        texts.append(text)
    return tuple(texts)


def _id(row: Row, where: str) -> str:
    id_ = row.get("id", row.get("question_id"))
    if id_ is None or id_ == "":
        raise UserError(f"{where} has no id", hint='It is in "id" or "question_id".')
    return str(id_)


def _fitting(answer: Answer, where: str) -> Answer:
    """References are for each turn, or, of several turns, for the first ones."""
    if len(answer.references) > len(answer.turns):
        raise UserError(f"{where}: {len(answer.references)} references are for {len(answer.turns)} turns")
    return answer
