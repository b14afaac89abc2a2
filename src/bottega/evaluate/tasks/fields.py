"""A document's fields by a task's rules: what is asked, what is right, what can be chosen.

Source: `ConfigurableTask.doc_to_text`, `doc_to_target`, `doc_to_choice` of lm-evaluation-harness: a text is the name of
a column, or else a template; digits become an index where there are choices, `[…]` a list.
"""

from __future__ import annotations

import ast
from typing import Any

from bottega.core.errors import UserError
from bottega.evaluate.tasks.documents import Doc
from bottega.evaluate.tasks.schema import TaskConfig
from bottega.tokenizer.template import render_text


def text_of(task: TaskConfig, doc: Doc, rule: Any = None) -> Any:
    """What stands before the answer: a text; an index where each choice is a prompt of its own."""
    rule = task.doc_to_text if rule is None else rule
    if not _is_template(rule, doc):
        return _value(rule, doc)
    text = render_text(rule, doc)
    return int(text) if text.isdigit() and task.doc_to_choice is not None else text


def target_of(task: TaskConfig, doc: Doc, rule: Any = None) -> Any:
    """What is right: a text, an index into the choices, or a list of either."""
    rule = task.doc_to_target if rule is None else rule
    if isinstance(rule, list):
        return rule
    if not _is_template(rule, doc):
        return _value(rule, doc)
    text = render_text(rule, doc)
    if text.isdigit() and task.doc_to_choice is not None:
        return int(text)
    if len(text) >= 2 and text[0] == "[" and text[-1] == "]":
        try:
            return ast.literal_eval(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return text
    return text


def choices_of(task: TaskConfig, doc: Doc, rule: Any = None) -> list[str]:
    """The texts chosen among; raises UserError if they are no list of texts that are not empty."""
    rule = task.doc_to_choice if rule is None else rule
    if isinstance(rule, list):
        choices = rule
    elif isinstance(rule, dict):
        choices = list(rule.values())
    elif not _is_template(rule, doc):
        choices = _value(rule, doc)
    else:
        text = render_text(rule, doc)
        try:
            choices = ast.literal_eval(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise UserError(f"doc_to_choice gives no list: {text[:80]!r}") from None
    if not isinstance(choices, list) or not choices:
        raise UserError("there are no choices")
    if not all(isinstance(choice, str) and choice for choice in choices):
        raise UserError("a choice is empty, or no text")
    return choices


def prefix_of(doc: Doc, rule: str | None) -> str | None:
    """What the answer begins with (`gen_prefix`), or a description: a column or a template."""
    if not rule:
        return None
    return str(doc[rule]) if rule in doc else render_text(rule, doc)


def _is_template(rule: Any, doc: Doc) -> bool:
    return isinstance(rule, str) and rule not in doc


def _value(rule: Any, doc: Doc) -> Any:
    """The value of a rule that is a function, an index or a column."""
    if callable(rule):
        try:
            return rule(doc)
        except Exception as error:  # the document does not have what the function looks for
            raise UserError(
                f"{getattr(rule, '__name__', 'a function')} fails: {type(error).__name__}: {error}"
            ) from None
    if not isinstance(rule, str):
        return rule
    if doc[rule] is None:
        raise UserError(f"column {rule!r} is empty")
    return doc[rule]
