"""The JSON Schema of recipes: the shipped ones fit, mistakes do not, everything is documented."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml

from bottega.core.recipe import shipped_recipes
from bottega.verbs.recipe_schema import recipe_schema
from bottega.verbs.registry import VERBS

SCHEMA = recipe_schema()
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "number": (int, float), "integer": (int,),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
KNOWN = {
    "$schema", "$defs", "$ref", "title", "description", "default", "type", "enum", "const", "pattern", "anyOf", "allOf",
    "if", "then", "else", "properties", "required", "additionalProperties", "propertyNames", "minProperties", "items",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "format",
}  # fmt: skip


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether the value is valid: the part of draft 2020-12 that the schema uses, read from its specification."""
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    checks = [
        "$ref" not in schema or fits(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]),
        "type" not in schema
        or (isinstance(value, TYPES[schema["type"]]) and (schema["type"] == "boolean" or not isinstance(value, bool))),
        "enum" not in schema or value in schema["enum"],
        "const" not in schema or value == schema["const"],
        "anyOf" not in schema or any(fits(value, part) for part in schema["anyOf"]),
        all(fits(value, part) for part in schema.get("allOf", ())),
        fits(value, schema.get("then" if fits(value, schema["if"]) else "else", {})) if "if" in schema else True,
    ]
    if isinstance(value, str):
        checks.append(re.search(schema.get("pattern", ""), value) is not None)
    if isinstance(value, list):
        checks += [fits(item, schema["items"]) for item in value if "items" in schema]
    if isinstance(value, (int, float)):
        checks.append(schema.get("minimum", value) <= value <= schema.get("maximum", value))
        checks.append("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        checks.append("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    if isinstance(value, dict):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        checks += [name in value for name in schema.get("required", ())]
        checks += [fits(name, schema.get("propertyNames", {})) for name in value]
        checks.append(len(value) >= schema.get("minProperties", 0))
        for name, item in value.items():
            inside = properties.get(name, rest)
            checks.append(inside if isinstance(inside, bool) else fits(item, inside))
    return all(checks)


def test_it_is_json_and_its_references_lead_somewhere() -> None:
    text = json.dumps(SCHEMA, allow_nan=False)
    assert {f"#/$defs/{name}" for name in SCHEMA["$defs"]} >= set(re.findall(r'"\$ref": "([^"]+)"', text))


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_fit(name: str) -> None:
    assert fits(yaml.safe_load(shipped_recipes()[name]), SCHEMA)


def test_one_step_fits() -> None:
    step = {"verb": "train", "data": "tokens", "tokenizer": "tok", "learning_rate": 0.01, "trackers": ["wandb"]}
    assert fits(step, SCHEMA)
    assert fits({"verb": "train", "data": "${tokens}", "size": "${size}", "seed": "${seed}", "heldout": None}, SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"learnin_rate": 0.1},
        {"learning_rate": "fast"},
        {"learning_rate": 0},
        {"trackers": ["excel"]},
        {"size": "huge"},
        {"seed": 1.5},
        {"verb": "serve"},
        {"verb": "trian"},
        {"data": None, "verb": None},
    ],
)
def test_mistakes_do_not_fit(change: dict[str, Any]) -> None:
    step = {"verb": "train", "data": "tokens", "tokenizer": "tok"}
    assert fits(step, SCHEMA)
    assert not fits(step | change, SCHEMA)
    chain: dict[str, Any] = {"steps": {"base": step}}
    assert fits(chain, SCHEMA)
    wrong = copy.deepcopy(chain)
    wrong["steps"]["base"] |= change
    assert not fits(wrong, SCHEMA)


@pytest.mark.parametrize(
    "recipe",
    [{}, {"steps": {}}, {"steps": {"a/b": {"verb": "show", "model": "m"}}}, {"steps": {"a": {"verb": "show"}}},
     {"steps": {"a": {"verb": "show", "model": "m"}}, "parameter": {}}],
)  # fmt: skip
def test_wrong_recipes_do_not_fit(recipe: dict[str, Any]) -> None:
    assert not fits(recipe, SCHEMA)


def test_every_setting_of_every_step_is_documented() -> None:
    for verb in VERBS.values():
        name = "verb-" + verb.name.replace(" ", "-")
        assert (name in SCHEMA["$defs"]) == verb.step
        if verb.step:
            settings = SCHEMA["$defs"][name]["properties"]
            assert set(settings) == {"verb", *verb.config_type().model_fields}
            assert all(field.get("description") for key, field in settings.items() if key != "verb")
