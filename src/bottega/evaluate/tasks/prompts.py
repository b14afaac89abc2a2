"""From documents to prompts: description, examples, question; as plain text or through the model's chat template.

Source: `fewshot_context` and `build_qa_turn` of lm-evaluation-harness 0.4.13, character for character: the examples of
a task are drawn from one stream of random numbers, document by document, so the same seed gives the same examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from bottega.core.errors import UserError
from bottega.evaluate.tasks.documents import Doc, Documents, read_split
from bottega.evaluate.tasks.fields import choices_of, prefix_of, target_of, text_of
from bottega.evaluate.tasks.schema import Fewshot, TaskConfig

ChatTemplate = Callable[[list[dict[str, str]], bool], str]
"""(messages, whether the assistant's turn is to be opened) → text."""


@dataclass(frozen=True)
class Asking:
    """How all tasks are asked: the choices that lm-evaluation-harness has as options of the same names."""

    num_fewshot: int | None = None
    fewshot_seed: int = 1234
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None
    chat_template: ChatTemplate | None = None


@dataclass(frozen=True)
class Prompt:
    """A document's prompt, or one for each choice (`contexts`); what is right and what can be chosen."""

    doc_id: int
    doc: Doc
    contexts: list[str]
    continuations: list[str]
    choices: list[str]
    target: Any
    """Text, index, or list of either, as the task's rule gives it."""
    gold: int | list[int] | None


@dataclass(frozen=True)
class _Part:
    role: str
    content: str
    delimiter: str = ""


class Prompts:
    """The prompts of one task. Raises UserError, naming task and document, where one cannot be made."""

    def __init__(self, task: TaskConfig, data: Path | None, asking: Asking) -> None:
        self.task, self.data, self.asking = task, data, asking
        fewshot = task.fewshot_config or Fewshot()
        self.fewshot = replace_none(fewshot, task)
        self.num_fewshot = _shots(task, asking)

    def documents(self) -> list[Doc]:
        """The documents that are asked."""
        return self._processed(self.task.split, self.task.process_docs)

    def build(self, limit: int | None = None) -> list[Prompt]:
        """The prompts of all documents, or of the first `limit`."""
        docs = self.documents()
        if not docs:
            raise UserError(f"task {self.task.task}: no documents are left")
        stream = Random(self.asking.fewshot_seed)
        found = []
        for doc_id, doc in enumerate(docs[:limit]):
            try:
                if not doc_id:
                    self._several_contexts = self._is_multiple_input(doc)
                found.append(self._prompt(doc_id, doc, self._examples(doc, stream)))
            except UserError as error:
                where = f"task {self.task.task}, document {doc_id}"
                raise UserError(f"{where}: {error.message}", hint=error.hint) from None
        return found

    # ------------------------------------------------------------------ examples

    @cached_property
    def _pool(self) -> list[Doc]:
        """The documents that examples are drawn from."""
        fewshot, task = self.fewshot, self.task
        if fewshot.split is not None:
            pool = self._processed(fewshot.split, fewshot.process_docs)
        elif fewshot.samples is not None:
            pool = self._given(fewshot.samples)
        elif split := task.training_split or task.validation_split:
            pool = self._processed(split, task.process_docs)
        else:
            pool = self.documents()
        if fewshot.fewshot_indices is not None and fewshot.sampler == "default":
            places = fewshot.fewshot_indices
            if any(not -len(pool) <= place < len(pool) for place in places):
                raise UserError(f"fewshot_indices {places} go beyond the {len(pool)} examples that there are")
            pool = [pool[place] for place in places]
        return list(pool)

    def _examples(self, doc: Doc, stream: Random) -> list[Doc]:
        count = self.num_fewshot
        if not count:
            return []
        # Where examples come from what is asked, a document must not be its own example.
        same_split = self.fewshot.split == self.task.test_split
        pool = self._pool
        try:
            if self.fewshot.sampler == "first_n":
                rest = [each for each in pool if each != doc] if same_split else pool
                return _first(rest, count)
            if not same_split:
                return stream.sample(pool, count)
            drawn = [each for each in stream.sample(pool, count + 1) if each != doc][:count]
            return drawn if len(drawn) == count else stream.sample([each for each in pool if each != doc], count)
        except ValueError:
            raise UserError(
                f"{count} examples are wanted, and there are {len(pool)} documents to take them from"
            ) from None

    def _given(self, samples: list[Doc] | Callable[[], list[Doc]]) -> list[Doc]:
        if not callable(samples):
            return samples
        try:
            return list(samples())
        except Exception as error:  # it is the task's code
            raise UserError(f"fewshot_config.samples fails: {type(error).__name__}: {error}") from None

    def _processed(self, split: str, process: Callable[..., Any] | None) -> list[Doc]:
        docs = read_split(self.task, split, self.data)
        if process is None:
            return docs
        try:
            return list(process(Documents(docs)))
        except Exception as error:  # the rows are not what the function takes them for
            raise UserError(
                f"task {self.task.task}: the documents of split {split!r} are not what {process.__name__} expects: "
                f"{type(error).__name__}: {error}"
            ) from None

    # ------------------------------------------------------------------ texts

    def _is_multiple_input(self, doc: Doc) -> bool:
        """Whether each choice is a prompt of its own (winogrande): the question is then the index of the right one."""
        return self.task.doc_to_choice is not None and isinstance(text_of(self.task, doc), int)

    def _prompt(self, doc_id: int, doc: Doc, examples: Sequence[Doc]) -> Prompt:
        task = self.task
        choices = choices_of(task, doc) if task.doc_to_choice is not None else []
        target = target_of(task, doc)
        if task.output_type == "loglikelihood_rolling":
            return Prompt(doc_id, doc, [""], [str(target)], [], target, None)
        opening = prefix_of(doc, task.gen_prefix)
        before = self._before(doc, examples)
        if self._several_contexts:
            ends = [self._turn(choice, None, opening, delimiter="") for choice in choices]
            continuation = f"{self._delimiter(opening)}{target}"
            contexts = [self._written([*before, *end], opening) for end in ends]
            gold = gold_of(text_of(task, doc), choices)
            return Prompt(doc_id, doc, contexts, [continuation] * len(choices), choices, target, gold)
        question = text_of(task, doc)
        turn = self._turn(question, None, opening, delimiter=task.target_delimiter)
        context = self._written([*before, *turn], opening)
        if task.output_type == "multiple_choice":
            continuations = [f"{self._delimiter(opening)}{choice}" for choice in choices]
            return Prompt(doc_id, doc, [context], continuations, choices, target, gold_of(target, choices))
        if task.output_type == "loglikelihood":
            return Prompt(doc_id, doc, [context], [str(target)], [], target, None)
        if choices:
            gold = gold_of(target, choices)
            target = [choices[each] for each in gold] if isinstance(gold, list) else choices[gold]
        return Prompt(doc_id, doc, [context], [], choices, target, None)

    def _before(self, doc: Doc, examples: Sequence[Doc]) -> list[_Part]:
        """The system message and the examples."""
        task, fewshot = self.task, self.fewshot
        description = prefix_of(doc, task.description) or ""
        system = _joined(self.asking.system_instruction, description, task.fewshot_delimiter)
        parts = [_Part("system", system)] if system else []
        for example in examples:
            question = text_of(task, example, fewshot.doc_to_text)
            choices = choices_of(task, example, fewshot.doc_to_choice) if fewshot.doc_to_choice is not None else None
            answer = target_of(task, example, fewshot.doc_to_target)
            if self._several_contexts and choices is not None:
                question, choices = _chosen(question, choices), None
            if isinstance(answer, list):
                answer = answer[0] if answer else None
            elif choices is not None and isinstance(answer, int):
                answer = _chosen(answer, choices)
            parts += self._turn(
                question,
                answer,
                prefix_of(example, fewshot.gen_prefix),
                delimiter=fewshot.target_delimiter or "",
                end=fewshot.fewshot_delimiter or "",
            )
        return parts

    def _turn(self, question: Any, answer: Any, opening: str | None, *, delimiter: str, end: str = "") -> list[_Part]:
        if not isinstance(question, str):
            raise UserError(f"doc_to_text gives {question!r}, which is no text")
        has_answer = answer is not None and answer != ""
        apart = delimiter if (has_answer and not opening) or (opening and _needs_space(question, opening)) else ""
        parts = [_Part("user", question, apart)]
        if has_answer:
            if not isinstance(answer, str):
                raise UserError(f"an example's answer is {answer!r}, which is no text")
            parts.append(_Part("assistant", _joined(opening, answer, " "), end))
        elif opening:
            parts.append(_Part("assistant", opening))
        return parts

    def _delimiter(self, opening: str | None) -> str:
        """What stands before a choice: with a chat template nothing, as the template has ended the question."""
        if self.asking.chat_template is None or (self.task.gen_prefix and not (opening or "")[-1:].isspace()):
            return self.task.target_delimiter
        return ""

    def _written(self, parts: Sequence[_Part], opening: str | None) -> str:
        template = self.asking.chat_template
        if template is None:
            return "".join(part.content + part.delimiter for part in parts)
        each = list(parts) if self.asking.fewshot_as_multiturn else _one_turn(parts)
        return template([{"role": part.role, "content": part.content} for part in each], not opening)


def replace_none(fewshot: Fewshot, task: TaskConfig) -> Fewshot:
    """`fewshot` with the task's own settings where it says nothing."""
    own = {
        "split": task.fewshot_split,
        "process_docs": task.process_docs,
        "doc_to_text": task.doc_to_text,
        "doc_to_choice": task.doc_to_choice,
        "doc_to_target": task.doc_to_target,
        "gen_prefix": task.gen_prefix,
        "fewshot_delimiter": task.fewshot_delimiter,
        "target_delimiter": task.target_delimiter,
    }
    given = fewshot.model_fields_set
    return fewshot.model_copy(update={key: value for key, value in own.items() if key not in given})


def _shots(task: TaskConfig, asking: Asking) -> int:
    """How many examples: what is asked for, unless the task says 0 (its prompt holds them already) or has no prompt."""
    if task.output_type == "loglikelihood_rolling":
        return 0
    if asking.num_fewshot is None or task.num_fewshot == 0:
        return task.num_fewshot or 0
    return asking.num_fewshot


def _first(pool: list[Doc], count: int) -> list[Doc]:
    if count > len(pool):
        raise ValueError
    return pool[:count]


def _chosen(index: Any, choices: list[str]) -> str:
    """An example's choice."""
    gold = gold_of(index, choices)
    assert isinstance(gold, int)
    return choices[gold]


def gold_of(target: Any, choices: list[str]) -> int | list[int]:
    """The index of the right choice (or several); raises UserError if it is none of the choices."""
    if isinstance(target, list):
        found = [gold_of(each, choices) for each in target]
        return [each for each in found if isinstance(each, int)]
    if isinstance(target, str):
        if target not in choices:
            raise UserError(f"the right answer {target!r} is none of the choices {choices}")
        return choices.index(target)
    if not isinstance(target, int) or not 0 <= target < len(choices):
        raise UserError(f"the right answer {target!r} is no index into {len(choices)} choices")
    return int(target)


def _one_turn(parts: Sequence[_Part]) -> list[_Part]:
    """All examples and the question in one turn of the user."""
    system, rest = ([parts[0]], list(parts[1:])) if parts[0].role == "system" else ([], list(parts))
    last = [rest.pop()] if rest[-1].role == "assistant" else []
    rest[-1] = replace(rest[-1], delimiter="")
    return [*system, _Part("user", "".join(part.content + part.delimiter for part in rest)), *last]


def _joined(first: str | None, second: str | None, delimiter: str) -> str:
    """Both, with `delimiter` between them unless white space is there already."""
    if not first or not second:
        return first or second or ""
    return f"{first}{delimiter}{second}" if _needs_space(first, second) else first + second


def _needs_space(first: str, second: str) -> bool:
    return bool(first) and not (first[-1].isspace() or second[0].isspace())
