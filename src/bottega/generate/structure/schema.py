"""JSON Schema (Draft 2020-12) as a grammar, and the check of finished texts.

llguidance makes the grammar; `jsonschema-rs`, which knows nothing of grammars, checks the schema
before and the answer after. Strict: what the grammar cannot hold is refused by name. Lenient: it
is left out of the grammar, noted, and found out by the check of the answer.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jsonschema_rs
from jsonschema_rs import Validator
from llguidance import LLMatcher

from bottega.core.errors import UserError
from bottega.generate.constraint import Validity
from bottega.generate.structure.grammar import LENIENT_HINT, GrammarConstraint, compile_grammar, refusal
from bottega.tokenizer.tokenizer import Tokenizer

# One space, or a line break with its indentation: any other white space is how a model loops for ever.
WHITE_SPACE = r"\x20|\n\x20{0,24}|\n\t{0,12}"
MAX_CHARACTERS = 262_144
MAX_DEPTH = 64
# The compiler follows references by recursion; an 8 MiB stack holds over 2,000 levels of JSON.
MAX_LINKED_DEPTH = 600
MAX_PROPERTIES = 1_000  # of one object: compiling takes time in the square of them
MAX_ALL_PROPERTIES = 4_000
MAX_PATTERN_PROPERTIES = 100  # in all: each is intersected with each
MAX_CONJOINED = 8  # patterns that one text must match: each can double the work of compiling
# Subschemas with every reference written out: the check of an answer may visit each.
MAX_EXPANDED = 100_000
EXACT_INTEGER = 2**53

_ONE = (
    "items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames", "unevaluatedItems",
    "unevaluatedProperties", "additionalItems", "contentSchema",
)  # fmt: skip
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")

Schema = dict[str, Any]


@dataclass(frozen=True)
class Checked:
    """A schema of bounded size that a grammar can be made of, and what checks the texts written by it."""

    schema: Schema
    options: dict[str, Any]
    validator: Validator
    notes: tuple[str, ...]

    def as_lark(self) -> str:
        """The symbol that stands for it in a grammar."""
        return "%json " + json.dumps({**self.schema, "x-guidance": self.options})

    def as_grammar(self) -> str:
        """A grammar of it alone."""
        return LLMatcher.grammar_from_json_schema(json.dumps(self.schema), overrides=self.options)  # type: ignore[arg-type]


def prepare(schema: Any, *, strict: bool, spaces: bool = True, field: str) -> Checked:
    """Check a schema and bring it into the form that grammars embed; see `json_schema`."""
    checked = _bounded(schema, field)
    validator = _validator(checked, field)
    notes = _refuse_or_note(checked, field, strict)
    space = {"whitespace_pattern": WHITE_SPACE} if spaces else {"whitespace_flexible": False}
    options = {**space, "lenient": not strict, "coerce_one_of": False}
    made = Checked(checked, options, validator, notes)
    failed, messages = LLMatcher.validate_grammar_with_warnings(made.as_grammar())
    if failed:
        raise refusal(field, messages[0])
    return replace(made, notes=notes + tuple(map(_told, messages)))


def json_schema(
    tokenizer: Tokenizer, schema: Any, *, strict: bool = True, spaces: bool = True, field: str = "json_schema"
) -> GrammarConstraint:
    """The answer is JSON that satisfies `schema` (an object, its text, or true), properties in the schema's order.

    Args:
        tokenizer: whose tokens the answer is made of.
        schema: JSON Schema; references only within it.
        strict: refuse what the grammar cannot hold; else leave it to the check of the answer.
        spaces: allow a space, or a line break with indentation, where JSON allows white space.
        field: how to call it in errors.

    Raises:
        UserError: the schema is no valid one, too large, unsupported, or nothing can satisfy it.
    """
    checked = prepare(schema, strict=strict, spaces=spaces, field=field)
    grammar = checked.as_grammar()
    if space := leading_space(tokenizer):
        grammar = LLMatcher.grammar_from_lark(f"start: {space} answer\nanswer: {checked.as_lark()}")
    judge = partial(check_text, checked.validator)
    return compile_grammar(tokenizer, grammar, field, judge=judge, notes=checked.notes)


def leading_space(tokenizer: Tokenizer) -> str:
    """The Lark symbol before an answer: SentencePiece writes a space before a text, and takes it away when decoding."""
    return "/ ?/" if tokenizer.family == "byte_fallback" else ""


def json_object(tokenizer: Tokenizer, *, field: str = "json_object") -> GrammarConstraint:
    """The answer is any JSON object."""
    return json_schema(tokenizer, {"type": "object"}, field=field)


def validate(text: str, schema: Any) -> Validity:
    """Whether `text` is JSON that satisfies `schema`; raises UserError if that is no schema."""
    return check_text(_validator(_bounded(schema, "schema"), "schema"), text)


def _bounded(schema: Any, field: str) -> Schema:
    """The schema as an object of bounded size; raises UserError naming what is too large."""
    if isinstance(schema, str):
        if len(schema) > MAX_CHARACTERS:
            raise UserError(f"{field} has {len(schema)} characters", hint=f"At most {MAX_CHARACTERS} are accepted.")
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{field} is not JSON: {error}") from None
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise UserError(f"{field} must be a JSON Schema (an object), not {type(schema).__name__}")
    if _depth(schema) > MAX_DEPTH:
        raise UserError(f"{field} is nested more than {MAX_DEPTH} levels deep", hint="Name parts in $defs.")
    try:
        size = len(json.dumps(schema, ensure_ascii=False, allow_nan=False).encode("utf-8"))
    except (TypeError, ValueError) as error:
        raise UserError(f"{field} is not JSON: {error}") from None
    if size > MAX_CHARACTERS:
        raise UserError(f"{field} has {size} bytes", hint=f"At most {MAX_CHARACTERS} are accepted.")
    _check_links(schema, field)
    return schema


def _validator(schema: Schema, field: str) -> Validator:
    """What checks finished texts, in linear time for patterns; raises UserError if `schema` is no valid schema."""
    try:
        return jsonschema_rs.validator_for(
            schema,
            pattern_options=jsonschema_rs.RegexOptions(),
            validate_formats=False,  # an annotation since 2019-09; the grammar enforces those it knows
            retriever=_refuse_to_fetch,
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        message = str(getattr(error, "message", error)).split("\n", 1)[0]
        place = "".join(f"[{step!r}]" for step in getattr(error, "instance_path", ()))
        raise UserError(f"{field}{place} is no valid JSON Schema: {message[:300]}") from None


def check_text(validator: Validator, text: str) -> Validity:
    """Whether the text is JSON that the validator takes."""
    try:
        value = json.loads(text, parse_float=_number, parse_int=_number, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return Validity(False, f"not JSON: {error}")
    try:
        error = next(validator.iter_errors(value), None)
    except (ValueError, RecursionError) as failure:  # nested deeper than the library follows
        return Validity(False, f"could not be checked: {failure}")
    if error is None:
        return Validity(True)
    place = "".join(f"[{step!r}]" for step in error.instance_path)
    return Validity(False, f"{place or 'the value'}: {error.message[:300]}")


def _number(text: str) -> int | float:
    """A number of JSON, which may be as large as it likes; beyond a double's range it counts as its end."""
    if len(text) < 300 and text.removeprefix("-").isdigit():
        return int(text)
    return max(-sys.float_info.max, min(float(text), sys.float_info.max))


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _refuse_to_fetch(uri: str) -> Any:
    raise ValueError(f"references to other documents are not followed: {uri}")


# ---------------------------------------------------------------------- what the grammar would not hold


def _refuse_or_note(schema: Schema, field: str, strict: bool) -> tuple[str, ...]:
    """Raise UserError for what the compiler takes and yet does not hold; if not strict, return it."""
    faults = []
    if "x-guidance" in schema:
        raise UserError(f"{field}: 'x-guidance' is no keyword of JSON Schema")
    for part in subschemas(schema):
        least = part.get("minProperties", 0)
        if isinstance(least, (int, float)) and least > 1 + len({str(name) for name in _listed(part, "required")}):
            faults.append(
                f"'minProperties' {least} is more than one above the required properties, and a grammar cannot tell "
                "whether the others are given twice"
            )
        for name in ("const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
            if large := next(_inexact(part.get(name)), None):
                faults.append(f"'{name}' has {large}, which the grammar cannot hold exactly")
    if faults and strict:
        raise UserError(f"{field}: {faults[0]}", hint=LENIENT_HINT)
    return tuple(f"{fault}; checked only afterwards" for fault in dict.fromkeys(faults))


def _inexact(value: Any) -> Iterator[Any]:
    """Numbers in `value` that a double does not hold, or that it writes with an exponent."""
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)) and (abs(value) > EXACT_INTEGER or (value and abs(value) < 1e-9)):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _inexact(item)


def _told(message: str) -> str:
    """What a lenient compilation left out, by the library's own account."""
    reason = refusal("", message).message.removeprefix(": ")
    return f"{reason}; not enforced" if "format" in reason else f"{reason}; checked only afterwards"


# ---------------------------------------------------------------------- walking a schema


def children(schema: Mapping[str, Any]) -> Iterator[Any]:
    """The subschemas that stand directly in a schema (not those in `enum`, `const` and the like)."""
    for name in _ONE:
        if isinstance(schema.get(name), dict):
            yield schema[name]
    for name in _MANY:
        yield from (part for part in _listed(schema, name) if isinstance(part, dict))
    for name in _NAMED:
        yield from (part for part in _named(schema, name).values() if isinstance(part, dict))


def _listed(schema: Mapping[str, Any], name: str) -> list[Any]:
    """A keyword's list, empty if it has none (what is no schema is found out later)."""
    value = schema.get(name)
    return value if isinstance(value, list) else []


def _named(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = schema.get(name)
    return value if isinstance(value, dict) else {}


def subschemas(schema: Schema) -> Iterator[Schema]:
    """A schema and all within it."""
    stack = [schema]
    while stack:
        part = stack.pop()
        yield part
        stack.extend(children(part))


def _depth(value: Any) -> int:
    """Levels of lists and objects, counted no further than is of interest."""
    level, depth = [value] if isinstance(value, (dict, list)) else [], 0
    while level and depth <= MAX_DEPTH:
        level = [
            item
            for node in level
            for item in (node.values() if isinstance(node, dict) else node)
            if isinstance(item, (dict, list))
        ]
        depth += 1
    return depth


def _check_links(schema: Schema, field: str) -> None:
    """Bound what following references costs the compiler (depth) and the check of an answer (size)."""
    targets: dict[str, Any] = {}
    properties = patterns = 0
    for part in subschemas(schema):
        count = len(_named(part, "properties"))
        properties, patterns = properties + count, patterns + len(_named(part, "patternProperties"))
        if count > MAX_PROPERTIES or properties > MAX_ALL_PROPERTIES:
            raise UserError(
                f"{field} has too many properties", hint=f"{MAX_PROPERTIES} in an object, {MAX_ALL_PROPERTIES} in all."
            )
        if patterns > MAX_PATTERN_PROPERTIES:
            raise UserError(f"{field} has more than {MAX_PATTERN_PROPERTIES} patternProperties")
        reference = part.get("$ref")
        if isinstance(reference, str) and reference not in targets:
            targets[reference] = _at(schema, reference)
    if sum(1 + _depth(target) for target in targets.values()) > MAX_LINKED_DEPTH:
        raise UserError(
            f"{field}: its {len(targets)} references are together nested too deep", hint="Split the schema."
        )
    if _expanded(schema, targets, {}) > MAX_EXPANDED:
        raise UserError(f"{field}: with its references written out it has more than {MAX_EXPANDED} subschemas")
    conjoined = Counter[str]()
    _count_patterns(schema, targets, "", False, conjoined)
    if any(count > MAX_CONJOINED for count in conjoined.values()):
        raise UserError(f"{field}: by 'allOf' one text must match more than {MAX_CONJOINED} patterns")


def _count_patterns(
    part: Any, targets: dict[str, Any], path: str, within: bool, counts: Counter[str], following: tuple[str, ...] = ()
) -> None:
    """How many patterns `allOf` puts on the text at each path of properties."""
    if not isinstance(part, dict):
        return
    counts[path] += within and "pattern" in part
    for name in ("allOf", "anyOf", "oneOf"):
        for child in _listed(part, name):
            _count_patterns(child, targets, path, within or name == "allOf", counts, following)
    reference = part.get("$ref")
    if isinstance(reference, str) and reference not in following:
        _count_patterns(targets.get(reference), targets, path, within or len(part) > 1, counts, (*following, reference))
    for name, child in _named(part, "properties").items():
        _count_patterns(child, targets, f"{path}/{name}", within, counts, following)
    _count_patterns(part.get("items"), targets, f"{path}/[]", within, counts, following)


def _at(schema: Schema, reference: str) -> Any:
    """What a local reference points to; None if it is another kind, or dangling (the compiler says so)."""
    node: Any = schema
    if not reference.startswith("#"):
        return {}
    for step in reference[1:].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict):
            node = node.get(key, {})
        else:
            return {}
    return node


def _expanded(part: Any, targets: dict[str, Any], known: dict[int, int]) -> int:
    """Subschemas of `part` with references written out; a reference back to where it stands counts once."""
    if not isinstance(part, dict):
        return 1
    if id(part) not in known:
        known[id(part)] = 1
        parts = [*children(part)]
        if isinstance(part.get("$ref"), str):
            parts.append(targets.get(part["$ref"]))
        known[id(part)] = 1 + sum(_expanded(child, targets, known) for child in parts)
    return known[id(part)]
