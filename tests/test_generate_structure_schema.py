"""JSON Schema as a grammar: whatever it ends validates (by `jsonschema`, which it does not know), or it is refused.

And what is valid is accepted: of every schema, its instances in canonical form (compact, properties in the
schema's order).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.core.errors import UserError
from bottega.generate.structure.schema import json_schema, prepare, validate
from bottega.tokenizer.tokenizer import Tokenizer
from structure_schemas import schema as random_schema
from structure_walks import follow, takes, tiny, walk

FREE, MOST = 40, 600


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> list[Tokenizer]:
    return [tiny(tmp_path_factory.mktemp("tiny") / str(seed), seed) for seed in range(8)]


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def check(seeds: range, tokenizers: list[Tokenizer]) -> dict[str, int]:
    """Walk through and sample each schema; the counts. Every ended text must validate."""
    counts = {"refused": 0, "ended": 0, "cut off": 0, "accepted": 0}
    for seed in seeds:
        made, sample = random_schema(seed)
        tokenizer, draw = tokenizers[seed % len(tokenizers)], random.Random(seed)
        try:
            constraint = json_schema(tokenizer, made, spaces=seed % 2 == 0)
        except UserError:
            counts["refused"] += 1
            continue
        oracle = jsonschema.Draft202012Validator(made)
        for _ in range(3):
            text = walk(constraint, tokenizer, draw, free=draw.choice([0, 10, FREE]), most=MOST)
            counts["ended" if text is not None else "cut off"] += 1
            if text is not None:
                assert oracle.is_valid(json.loads(text)), (seed, made, text)
        for _ in range(4):
            value = sample()
            if oracle.is_valid(value):  # (a property by two parts of the schema, say, need not be)
                taken = takes(constraint, tokenizer, compact(value))
                assert taken, (seed, made, compact(value), follow(constraint.copy(), tokenizer, compact(value)))
                counts["accepted"] += 1
    return counts


def test_what_a_grammar_ends_validates_and_what_is_valid_it_takes(tokenizers: list[Tokenizer]) -> None:
    counts = check(range(150), tokenizers)
    print(counts)
    assert counts["refused"] <= 15 and counts["cut off"] <= 15 and counts["accepted"] > 400, counts


@pytest.mark.slow
def test_a_thousand_schemas(tokenizers: list[Tokenizer]) -> None:
    counts = check(range(150, 1150), tokenizers)
    print(counts)
    assert counts["refused"] <= 100 and counts["cut off"] <= 100 and counts["accepted"] > 3000, counts


SUITE = json.loads((Path(__file__).parent / "json_schema_test_suite.json").read_text())["groups"]


def canonical_forms(value: Any) -> list[str]:
    """Compact JSON, integers as integers, in every order of the topmost properties (the grammar fixes one)."""
    value = _integers(value)
    if not isinstance(value, dict) or len(value) > 4:
        return [compact(value)]
    return [compact(dict(order)) for order in itertools.permutations(value.items())]


def _integers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_integers(item) for item in value]
    return {key: _integers(item) for key, item in value.items()} if isinstance(value, dict) else value


def test_the_json_schema_test_suite(tokenizers: list[Tokenizer]) -> None:
    """Draft 2020-12: every group is refused, or told right from wrong, and what is generated validates.

    The one exception: `format` is an annotation there, and the grammar enforces it.
    """
    counts = {"refused": 0, "compiled": 0, "valid": 0, "invalid": 0, "walks": 0}
    for number, group in enumerate(SUITE):
        made, tokenizer = group["schema"], tokenizers[number % len(tokenizers)]
        try:
            constraint = json_schema(tokenizer, made)
        except UserError as error:
            assert str(error).startswith("json_schema"), error
            counts["refused"] += 1
            continue
        counts["compiled"] += 1
        for value, valid in group["tests"]:
            taken = any(takes(constraint, tokenizer, text) for text in canonical_forms(value))
            if group["file"] != "format":
                assert taken == valid, (group["file"], group["description"], made, value)
            counts["valid" if valid else "invalid"] += 1
        oracle = jsonschema.Draft202012Validator(made)
        text = walk(constraint, tokenizer, random.Random(number), free=12, most=MOST)
        if text is not None:
            assert oracle.is_valid(json.loads(text)), (group["file"], made, text)
            counts["walks"] += 1
    print(counts)
    assert counts["refused"] <= 205 and counts["valid"] > 300 and counts["invalid"] > 200 and counts["walks"] > 150


REFUSED = {
    "uniqueItems": ({"type": "array", "uniqueItems": True}, "[1,1]"),
    "contains": ({"contains": {"type": "string"}}, "[1]"),
    "propertyNames": ({"propertyNames": {"maxLength": 2}}, '{"long":1}'),
    "not": ({"not": {"type": "string"}}, '"x"'),
    "if": ({"if": {"type": "string"}, "then": {"minLength": 3}}, '"x"'),
    "dependentRequired": ({"dependentRequired": {"a": ["b"]}}, '{"a":1}'),
    "oneOf": ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "3"),
    "minProperties": ({"type": "object", "minProperties": 2}, '{"a":1,"a":2}'),
    "const": ({"const": 2**60 + 1}, "1152921504606846976"),
    "unevaluatedProperties": ({"unevaluatedProperties": False}, '{"a":1}'),
}


@pytest.mark.parametrize("keyword", REFUSED)
def test_what_a_grammar_cannot_hold_is_refused_by_name_or_checked_afterwards(
    keyword: str, tokenizers: list[Tokenizer]
) -> None:
    made, wrong = REFUSED[keyword]
    with pytest.raises(UserError, match=f"(?s)guided_json: .*'{keyword}'.*strict"):
        json_schema(tokenizers[0], made, field="guided_json")
    lenient = json_schema(tokenizers[0], made, strict=False)
    assert any(keyword in note for note in lenient.notes), lenient.notes
    assert not validate(wrong, made).valid
    ended = lenient.copy()
    if follow(ended, tokenizers[0], wrong) == wrong:  # the grammar lets it through, the check does not
        assert ended.is_accepting and not ended.judge(wrong).valid


MALFORMED = [
    ("{", "not JSON"), ("[1]", "must be a JSON Schema"), (3, "must be a JSON Schema"), (False, "must be a JSON Schema"),
    ({"type": "frob"}, r"\['type'\]"), ({"minLength": "3"}, r"\['minLength'\]"), ({"pattern": "("}, r"\['pattern'\]"),
    ({"pattern": "(?=a)b"}, r"\['pattern'\]"), ({"$ref": "#/$defs/x"}, "does not exist"), ({"a": float("nan")}, "JSON"),
    ({"$ref": "https://example.com/schema.json"}, "not followed"), ({"$ref": "#"}, "no text can satisfy"),
    ({"type": "integer", "minimum": 5, "maximum": 3}, "Unsatisfiable"),
    ({"x-guidance": {"lenient": True}}, "x-guidance"),
    ({"format": "blob"}, "blob"), ({"patternProperties": {"^a": {}, "a$": {}}}, "disjoint"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "reason"), MALFORMED, ids=str)
def test_a_bad_schema_is_the_users_error(made: Any, reason: str, tokenizers: list[Tokenizer]) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        json_schema(tokenizers[0], made)
    assert str(caught.value).startswith("json_schema")


KEYWORDS = (
    "type", "properties", "items", "allOf", "anyOf", "oneOf", "$ref", "$defs", "required", "enum", "const", "pattern",
    "minProperties", "maxItems", "minLength", "maximum", "multipleOf", "prefixItems", "additionalProperties", "format",
    "patternProperties", "not", "$schema", "$id", "$anchor",
)  # fmt: skip
LEAVES = st.sampled_from(
    [None, True, False, 0, -1, 2.5, 2**70, "", "a", "object", "string", "#", "#/$defs/a", "#/items", "(", "date", "#a"]
)
NODES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from([*KEYWORDS, "a", "b"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(made=st.dictionaries(st.sampled_from(KEYWORDS), NODES, max_size=5), strict=st.booleans())
def test_whatever_is_sent_as_a_schema_is_compiled_or_refused(made: dict[str, Any], strict: bool) -> None:
    with contextlib.suppress(UserError):
        prepare(made, strict=strict, field="guided_json")


def test_white_space_is_bounded_and_properties_come_in_order(tokenizers: list[Tokenizer]) -> None:
    made = {"type": "object", "properties": {"b": {"type": "array"}, "a": {"type": "integer"}}, "required": ["a"]}
    tokenizer = tokenizers[0]
    spaced, tight = json_schema(tokenizer, made), json_schema(tokenizer, made, spaces=False)

    def both(text: str) -> tuple[bool, bool]:
        return takes(spaced, tokenizer, text), takes(tight, tokenizer, text)

    assert both('{"b":[1,2],"a":1}') == (True, True)
    assert both('{"b": [1, 2], "a": 1}') == (True, False)
    assert both(json.dumps({"b": [1, {"x": []}], "a": 1}, indent=4)) == (True, False)
    assert both('{"a":1,"b":[]}') == (False, False)
    assert both('{  "a":1}') == both('{"a":1\n\n}') == both(' {"a":1}') == both('{"a":1}\n') == (False, False)


@pytest.mark.parametrize(
    ("text", "made", "valid"),
    [
        ("1e999", {"type": "number"}, True), ("9" * 6000, {"type": "integer"}, True),
        ("NaN", {}, False), ("[1", {}, False),
        ("[" * 5000 + "]" * 5000, {}, False), ("0.3", {"multipleOf": 0.1}, True), ("1.0", {"type": "integer"}, True),
        ('{"a":[{"b":1}]}', {"properties": {"a": {"items": {"properties": {"b": {"type": "string"}}}}}}, False),
        ("a" * 40 + "!", {"pattern": "^(a+)+$"}, False), ('"' + "a" * 5000 + '!"', {"pattern": "^(a+)+$"}, False),
    ],
)  # fmt: skip
def test_finished_texts_are_checked(text: str, made: Any, valid: bool) -> None:
    found = validate(text, made)
    assert found.valid is valid and bool(found.error) is not valid


def test_the_check_says_where(tokenizers: list[Tokenizer]) -> None:
    assert "['a'][1]" in validate('{"a":[1,"x"]}', {"properties": {"a": {"items": {"type": "integer"}}}}).error
    constraint = json_schema(tokenizers[0], {"type": "array"})
    follow(constraint, tokenizers[0], "[1")
    assert constraint.judge("[1").error == "the text ended before its grammar did"
