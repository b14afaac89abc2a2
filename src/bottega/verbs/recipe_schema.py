"""The JSON Schema of recipes (draft 2020-12), for editors: completion, documentation, red underlines.

A recipe is one step, or a chain. What a step may hold follows from its verb, whose settings come
from pydantic's schema of the verb's config model, documentation included.
"""

from __future__ import annotations

from typing import Any

from bottega.verbs.registry import VERBS

NAME = "^[A-Za-z0-9_-]+$"
REFERENCE = {"type": "string", "pattern": r"\$\{[^}]*\}", "description": "A parameter or an earlier step: ${name}."}


def recipe_schema() -> dict[str, Any]:
    """The schema as plain data."""
    verbs = [verb for verb in VERBS.values() if verb.step]
    definitions: dict[str, Any] = {"reference": REFERENCE}
    for verb in verbs:
        definitions[_definition(verb.name)] = _step(verb.name, verb.summary, definitions)
    definitions["step"] = {
        "type": "object",
        "required": ["verb"],
        "properties": {"verb": {"enum": [verb.name for verb in verbs], "description": "What the step does."}},
        "allOf": [
            {"if": {"properties": {"verb": {"const": verb.name}}}, "then": {"$ref": _reference(verb.name)}}
            for verb in verbs
        ],
    }
    definitions["chain"] = _chain()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Bottega recipe",
        "description": "One step, or a chain in which a step names earlier ones.",
        "if": {"type": "object", "required": ["steps"]},
        "then": {"$ref": "#/$defs/chain"},
        "else": {"$ref": "#/$defs/step"},
        "$defs": definitions,
    }


def _chain() -> dict[str, Any]:
    named = {"type": "object", "propertyNames": {"pattern": NAME}}
    described = {
        "name": {"type": "string", "pattern": NAME, "description": "Name of the recipe's folder in the workspace."},
        "description": {"type": "string", "description": "What the recipe makes; its first line is the report's."},
        "parameters": {**named, "description": "Name → default; given as --name VALUE, used as ${name}."},
        "patience_seconds": {
            "type": "number",
            "description": "From this estimate on, the next of `smaller` is suggested.",
        },
        "smaller": {
            **named,
            "additionalProperties": {"type": "array"},
            "description": "Parameter → its values, the smallest first.",
        },
        "report": {"type": "object", "description": "Title and words of report.html."},
        "when_given": {
            **named,
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"leave_out": {"type": "array", "items": {"type": "string"}}, "parameters": named},
            },
            "description": "Parameter whose default is a step → what changes once something else is given for it.",
        },
        "steps": {
            **named,
            "minProperties": 1,
            "additionalProperties": {"$ref": "#/$defs/step"},
            "description": "Name → step, in the order in which they run.",
        },
    }
    return {"type": "object", "required": ["steps"], "additionalProperties": False, "properties": described}


def _step(verb: str, summary: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Settings of one verb: each as its model says, or a reference, or null for its default."""
    schema = VERBS[verb].config_type().model_json_schema(ref_template="#/$defs/{model}")
    definitions |= {name: {**part, **_properties(part)} for name, part in schema.get("$defs", {}).items()}
    properties = {"verb": {"const": verb}, **_properties(schema)["properties"]}
    # A recipe says where a step writes.
    required = [name for name in schema.get("required", ()) if name != "out"]
    return {
        "type": "object",
        "description": summary,
        "required": required,
        "additionalProperties": False,
        "properties": properties,
    }


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties of an object's schema, each of which may be a reference too; empty for what is no object."""
    found: dict[str, Any] = {}
    for name, field in schema.get("properties", {}).items():
        about = {key: field[key] for key in ("description", "default") if key in field}
        value = {key: rest for key, rest in field.items() if key not in ("description", "default", "title", "format")}
        found[name] = {**about, "anyOf": [value, {"$ref": "#/$defs/reference"}, {"type": "null"}]}
    return {"properties": found} if found else {}


def _definition(verb: str) -> str:
    return "verb-" + verb.replace(" ", "-")


def _reference(verb: str) -> str:
    return "#/$defs/" + _definition(verb)
