"""Requests made from a document of OpenAPI: a hypothesis strategy for the part of JSON Schema that ours uses."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-3, 3) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
# Fields that OpenAPI knows nothing more of than "any": what is likely to be meant, beside anything.
FORMS = st.sampled_from([{"type": "object"}, {"type": "string", "maxLength": 3}, {"enum": [1, "a"]}, "json", {}, True])


class Documented:
    """Strategies for the schemas of one document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.schemas: dict[str, Any] = document["components"]["schemas"]

    def values(self, schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
        """What the schema allows."""
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            return st.deferred(lambda: self.values(self.schemas[name], depth + 1))
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return st.one_of([self.values(option, depth) for option in schema[keyword]])
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        kind = schema.get("type")
        return self._of_type(kind, schema, depth) if kind is not None else JSON | FORMS

    def _of_type(self, kind: str, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        match kind:
            case "null":
                return st.none()
            case "boolean":
                return st.booleans()
            case "string" if "pattern" in schema:
                return st.from_regex(schema["pattern"], fullmatch=True)
            case "string":
                return st.text(min_size=schema.get("minLength", 0), max_size=20) | st.sampled_from(
                    ["panel", "oil {", "0"]
                )
            case "integer":
                low = schema.get("minimum", -3)
                return st.integers(low, min(schema.get("maximum", low + 40), low + 40))
            case "number":
                low, high = schema.get("minimum", schema.get("exclusiveMinimum", -3)), schema.get("maximum", 3)
                return st.floats(low, high, exclude_min="exclusiveMinimum" in schema)
            case "array":
                most = min(schema.get("maxItems", 3), 3)
                return st.lists(
                    self.values(schema.get("items", {}), depth), min_size=schema.get("minItems", 0), max_size=most
                )
        return self._object(schema, depth)

    def _object(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        properties = {name: self.values(each, depth) for name, each in schema.get("properties", {}).items()}
        needed = {name: properties[name] for name in schema.get("required", ())}
        more = sorted(set(properties) - set(needed))
        # All at once would only ever show the first refusal: some of them.
        chosen = st.lists(st.sampled_from(more), max_size=3, unique=True) if more else st.just([])
        named = chosen.flatmap(
            lambda names: st.fixed_dictionaries({**needed, **{name: properties[name] for name in names}})
        )
        extra = schema.get("additionalProperties", False)
        if properties or extra is False:
            return named
        others = self.values(extra, depth) if isinstance(extra, dict) else JSON
        return st.dictionaries(st.text(max_size=6), others, max_size=3)


@st.composite
def spoilt(draw: st.DrawFn, bodies: st.SearchStrategy[Any]) -> Any:
    """A body with something wrong somewhere: a value replaced, taken away or added."""
    body = copy.deepcopy(draw(bodies))  # what strategies share between examples must stay as it is
    place, steps = body, draw(st.integers(0, 3))
    while steps and isinstance(place, dict | list) and place:
        inner = place[draw(st.sampled_from(sorted(place)))] if isinstance(place, dict) else place[-1]
        if not isinstance(inner, dict | list) or not inner:
            break
        place, steps = inner, steps - 1
    if not isinstance(place, dict) or not place:
        return draw(JSON)
    name = draw(st.sampled_from(sorted(place)))
    match draw(st.integers(0, 2)):
        case 0:
            place[name] = draw(JSON | st.floats() | st.integers() | st.text())
        case 1:
            del place[name]
        case _:
            place[draw(st.text(max_size=8))] = draw(JSON)
    return body
