"""Limits on what a chat template may do, so that a hostile one can neither hang nor fill the memory.

Jinja's sandbox keeps a template away from Python's internals, but not from endless loops
or `'a' * 10**10`. Here every loop is counted, every operation that can grow a value
(operators, calls, filters, `~`, output) is weighed before and after, and a deadline holds
over all of it. The limits are far above what any real template needs.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

MAX_STEPS = 5_000_000
MAX_CHARACTERS = 16_000_000
MAX_TOTAL_CHARACTERS = 256_000_000
MAX_ITEMS = 1_000_000
MAX_ARGUMENT = 100_000
MAX_EXPONENT = 64
MAX_NUMBER = 2**256
MAX_SECONDS = 10.0
_WIDE_FORMAT = re.compile(r"\d{5,}|\*")


class LimitError(Exception):
    """The template went over a limit."""


class Budget:
    """What one rendering has used. `given` are the caller's own lists and dicts, which need no weighing."""

    def __init__(self, given: Any) -> None:
        self.steps = 0
        self.characters = 0
        self.deadline = time.monotonic() + MAX_SECONDS
        self.known: set[int] = set()
        self._remember(given)

    def _remember(self, value: Any) -> None:
        if isinstance(value, (dict, list, tuple)):
            self.known.add(id(value))
            for item in value.values() if isinstance(value, dict) else value:
                self._remember(item)

    def step(self, count: int = 1) -> None:
        """Count work; raises LimitError when it is too much or takes too long."""
        self.steps += count
        if self.steps > MAX_STEPS or (self.steps % 256 < count and time.monotonic() > self.deadline):
            raise LimitError("it runs for too long")

    def weigh(self, value: Any) -> None:
        """Raise LimitError if the value is too large: a text, a number, or a list of lists of lists."""
        stack, items = [value], 0
        while stack:
            item = stack.pop()
            items += 1
            if isinstance(item, (str, bytes)):
                self.characters += len(item)
                if len(item) > MAX_CHARACTERS or self.characters > MAX_TOTAL_CHARACTERS:
                    raise LimitError("it makes a text that is too long")
            elif isinstance(item, int):
                if abs(item) > MAX_NUMBER:
                    raise LimitError("it makes a number that is too large")
            elif isinstance(item, (dict, list, tuple)) and id(item) not in self.known:
                if len(item) > MAX_ITEMS:
                    raise LimitError("it makes a list that is too long")
                stack.extend([*item.keys(), *item.values()] if isinstance(item, dict) else item)
            if items > MAX_ITEMS:
                raise LimitError("it makes a list that is too long")
        self.step(items)


_current: ContextVar[Budget | None] = ContextVar("template_budget", default=None)
set_budget, reset_budget = _current.set, _current.reset


def weigh(value: Any) -> Any:
    """The value itself, once it is known not to be too large."""
    budget = _current.get()
    if budget is not None:
        budget.weigh(value)
    return value


def counted(values: Iterable[Any]) -> Iterator[Any]:
    """The values, each counted as one step."""
    budget = _current.get()
    for value in values:
        if budget is not None:
            budget.step()
        yield value


def concatenate(*values: Any) -> str:
    """Jinja's `~`."""
    texts = [str(weigh(value)) for value in values]
    _check_total(sum(map(len, texts)))
    return "".join(texts)


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Raise LimitError before an operator that would make something too large."""
    weigh(left)
    weigh(right)
    if operator == "**" and isinstance(right, (int, float)) and abs(right) > MAX_EXPONENT:
        raise LimitError("it raises to a power that is too large")
    if operator == "%" and isinstance(left, str) and _WIDE_FORMAT.search(left):
        raise LimitError("it formats with a width that is too large")
    sized = (str, bytes, list, tuple)
    if operator == "*":
        for sequence, count in ((left, right), (right, left)):
            if isinstance(sequence, sized) and isinstance(count, int):
                _check_total(len(sequence) * count, sequence)
    if operator == "+" and isinstance(left, sized) and isinstance(right, sized):
        _check_total(len(left) + len(right), left)


def check_call(function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Raise LimitError before a call with an argument, or on an object, that is too large."""
    owner = getattr(function, "__self__", None)
    for value in (*arguments, *named.values()):
        weigh(value)
        if isinstance(value, int) and abs(value) > MAX_ARGUMENT:
            raise LimitError("it calls a function with a number that is too large")
    if isinstance(owner, str) and arguments:
        first, second = arguments[0], arguments[1] if len(arguments) > 1 else None
        name = getattr(function, "__name__", "")
        if name == "replace" and isinstance(first, str) and isinstance(second, str):
            _check_total(len(owner) + owner.count(first) * len(second))
        if name == "join":
            _check_join(owner, first)
        if name == "expandtabs" and isinstance(first, int):
            _check_total(len(owner) + owner.count("\t") * first)


def check_format(text: str) -> None:
    """Raise LimitError for a `str.format` text with an enormous width."""
    if _WIDE_FORMAT.search(text) or re.search(r":[^}]*\{", text):
        raise LimitError("it formats with a width that is too large")


def limited_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter with its arguments and its result weighed."""

    @functools.wraps(function)  # keeps jinja's mark that says which context the filter wants
    def limited(*arguments: Any, **named: Any) -> Any:
        own = arguments[1:] if hasattr(function, "jinja_pass_arg") else arguments
        values = (*own, *named.values())
        for value in values:
            if isinstance(value, (str, bytes, int, dict, list, tuple)):
                weigh(value)
        if any(isinstance(value, int) and abs(value) > MAX_ARGUMENT for value in values[1:]):
            raise LimitError(f"it uses the filter {name} with a number that is too large")
        text = own[0] if own and isinstance(own[0], str) else ""
        extra = [value for value in values[1:] if isinstance(value, (int, str))]
        widest = max((value if isinstance(value, int) else len(value) for value in extra), default=0)
        if name in ("indent", "wordwrap", "replace"):
            _check_total(len(text) * max(widest, 1) if len(text) * widest > MAX_CHARACTERS else 0)
        if name == "format" and _WIDE_FORMAT.search(text):
            raise LimitError("it formats with a width that is too large")
        if name == "join" and own:
            _check_join(extra[0] if extra else "", own[0])
        result = function(*arguments, **named)
        return weigh(result) if isinstance(result, (str, int, dict, list, tuple)) else result

    return limited


def _check_join(separator: Any, values: Any) -> None:
    if isinstance(values, (list, tuple)):
        _check_total(sum(len(value) if isinstance(value, str) else 0 for value in values))
        _check_total(len(values) * len(str(separator)))


def _check_total(size: int, kind: Any = "") -> None:
    if size > (MAX_CHARACTERS if isinstance(kind, (str, bytes)) else MAX_ITEMS):
        raise LimitError("it makes a text or a list that is too long")
