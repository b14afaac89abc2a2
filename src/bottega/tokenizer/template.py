"""Chat templates: jinja text that turns a list of messages into one string.

The environment is the one that templates on the hub are written for (transformers'
`apply_chat_template`): sandboxed and immutable, `trim_blocks`, `lstrip_blocks`, `tojson`
without HTML escaping, `raise_exception`, `strftime_now`, loop controls, and
`{% generation %}` blocks, which mark what the assistant wrote and render as their content.
A template is foreign code: `limits` bounds what it may spend.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from bottega.core.errors import UserError
from bottega.tokenizer import limits

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **special_tokens: str,
) -> str:
    """The text of a conversation, equal to transformers' `apply_chat_template(tokenize=False)`.

    `special_tokens` are the names that templates use (`bos_token="<s>"` …). Raises UserError
    if the template cannot be compiled, refuses the messages, fails, or goes over a limit.
    """
    variables: dict[str, Any] = {
        "messages": [_with_reasoning_names(_plain(message)) for message in messages],
        "tools": None if tools is None else [_plain(tool) for tool in tools],
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **special_tokens,
    }
    compiled = _compile("the chat template", template, _environment())
    return _render("the chat template", "these messages", compiled, variables)


def render_text(template: str, variables: Mapping[str, Any]) -> str:
    """The text of a template over `variables`, with the rules of lm-evaluation-harness's task files.

    White space stays as it is, an unknown name is an error, and there is a filter `regex_replace`. Raises UserError
    as `render` does.
    """
    compiled = _compile("the template", template, _text_environment())
    return _render("the template", "this document", compiled, dict(variables))


def _compile(what: str, template: str, environment: _Environment) -> jinja2.Template:
    try:
        return _compiled(environment, template)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{what} is not valid jinja (line {error.lineno}): {error.message}") from None
    except (RecursionError, SyntaxError, MemoryError, ValueError, jinja2.TemplateError) as error:
        raise UserError(f"{what} cannot be compiled: {error}") from None


def _render(what: str, subject: str, compiled: jinja2.Template, variables: dict[str, Any]) -> str:
    token = limits.set_budget(limits.Budget(variables))
    try:
        return _collect(compiled, variables)
    except limits.LimitError as error:
        raise UserError(f"{what} was stopped: {error}") from None
    except jinja2.TemplateError as error:
        raise UserError(f"{what} refuses {subject}: {error.message}") from None
    except Exception as error:  # it is foreign code: any failure is the template's
        raise UserError(f"{what} fails on {subject}: {type(error).__name__}: {error}") from None
    finally:
        limits.reset_budget(token)


def _collect(compiled: jinja2.Template, variables: dict[str, Any]) -> str:
    pieces: list[str] = []
    size = 0
    for piece in compiled.generate(**variables):
        size += len(piece)
        if size > limits.MAX_CHARACTERS:
            raise limits.LimitError("its output is too long")
        pieces.append(piece)
    return "".join(pieces)


def _plain(value: Any) -> Any:
    """A copy made of plain JSON values only: other objects have methods that the sandbox does not know."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str.__str__(value)
    raise UserError(f"a message or a tool holds a {type(value).__name__}; only JSON values are possible")


def _with_reasoning_names(message: dict[str, Any]) -> dict[str, Any]:
    """A reasoning text under each of the names that templates read it by."""
    reasoning = next((message[key] for key in REASONING_KEYS if message.get(key) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


# ---------------------------------------------------------------------- the environment


class _Guards(NodeTransformer):
    """Put the counter around every loop, and the weighing into `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Count the iterations."""
        self.generic_visit(node)
        node.iter = nodes.Call(nodes.EnvironmentAttribute("counted"), [node.iter], [], None, None).set_lineno(
            node.lineno
        )
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Weigh what is joined."""
        self.generic_visit(node)
        return nodes.Call(nodes.EnvironmentAttribute("concatenate"), node.nodes, [], None, None).set_lineno(node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox with limits."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])
    counted = staticmethod(limits.counted)
    concatenate = staticmethod(limits.concatenate)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Guards().visit(Parser(self, source, name, filename).parse())

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator, after a look at its operands."""
        limits.check_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Any:
        """`str.format`, after a look at its widths."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            limits.check_format(value.__self__)
        return wrapped

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call, after a look at its arguments."""
        if __obj is not limits.counted and __obj is not limits.concatenate:
            limits.check_call(__obj, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}` renders as what is inside."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """The block as a call whose result is its own text."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Any) -> str:
        return caller()


class _Dict:
    """`dict(…)` without the type's other attributes."""

    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
        return dict(*args, **named)


class _Namespace(Namespace):
    """`namespace(…)` that stores no name beginning with an underscore."""

    def __init__(*args: Any, **named: Any) -> None:  # a template may name a variable `self`
        self, rest = args[0], args[1:]
        values = dict(*rest, **named)
        for name in values:
            _check_attribute(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, limits.weigh(value))


def _check_attribute(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a template may not store the attribute {name!r}")


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    if len(format) > 200 or re.search(r"%[^a-zA-Z]*\d", format):
        raise limits.LimitError("it formats the time with a width")
    return datetime.now().strftime(format)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, int) and indent > 64:
        raise limits.LimitError("it indents JSON too far")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, loopcontrols],
        finalize=limits.weigh,
        optimized=False,
    )
    environment.filters["tojson"] = _tojson
    environment.filters = {name: limits.limited_filter(name, filter_) for name, filter_ in environment.filters.items()}
    environment.globals.pop("lipsum", None)
    environment.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_Dict(), namespace=_Namespace
    )
    return environment


@lru_cache(maxsize=1)
def _text_environment() -> _Environment:
    environment = _Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=limits.weigh, optimized=False
    )
    environment.filters["regex_replace"] = _regex_replace
    environment.filters = {name: limits.limited_filter(name, filter_) for name, filter_ in environment.filters.items()}
    environment.globals.pop("lipsum", None)
    return environment


def _regex_replace(text: str, pattern: str, replacement: str, count: int = 0) -> str:
    return re.sub(pattern, replacement, text, count=count)


@lru_cache(maxsize=256)
def _compiled(environment: _Environment, template: str) -> jinja2.Template:
    return environment.from_string(template)
