"""Random schemas that a grammar should hold, each with a source of valid instances in the order of its properties."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Made = tuple[dict[str, Any], Callable[[], Any]]
"""A schema, and what draws an instance of it."""

WORDS = ("alpha", "beta", "gamma", "delta", "é", "naïve", "日本", "a b", 'q"uote', "back\\slash", "tab\t", "🎉", "")
PATTERNS = {
    "^[a-z]{2,5}$": lambda draw: "".join(draw.choices("abcxyz", k=draw.randint(2, 5))),
    "^(foo|bar)-[0-9]+$": lambda draw: f"{draw.choice(['foo', 'bar'])}-{draw.randint(0, 999)}",
    "[0-9]": lambda draw: f"no {draw.randint(0, 9)} !",
    "^\\S+@\\S+\\.com$": lambda draw: f"u{draw.randint(0, 99)}@host.com",
}
FORMATS = {
    "date": "2024-02-28",
    "time": "12:30:00Z",
    "date-time": "2024-02-28T12:30:00Z",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "ipv4": "192.168.0.1",
    "email": "someone@example.com",
    "uri": "https://example.com/a?b=c",
    "hostname": "example.com",
    "duration": "P3DT4H",
}


def schema(seed: int) -> Made:
    """The schema of a seed; every keyword that a grammar holds occurs in some of them."""
    return _Maker(random.Random(seed)).document()


class _Maker:
    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.definitions: dict[str, Any] = {}
        self.named: list[tuple[str, Callable[[], Any]]] = []

    def document(self) -> Made:
        for index in range(self.draw.choice([0, 0, 1, 2])):
            made, sample = self.any(2)
            self.definitions[f"d{index}"] = made
            self.named.append((f"d{index}", sample))
        made, sample = self.any(0) if self.draw.random() < 0.3 else self.object(0)
        if self.definitions:
            made = {**made, "$defs": self.definitions}
        if self.draw.random() < 0.3:
            made = {"title": "t", "description": "d", **made}
        return made, sample

    def any(self, depth: int) -> Made:
        simple = [self.string, self.string, self.integer, self.number, self.enum, self.const, self.plain, self.types]
        nested = [
            self.object,
            self.object,
            self.array,
            self.array,
            self.tuple,
            self.any_of,
            self.all_of,
            self.one_of,
            self.map,
            self.tree,
        ]
        kind = self.draw.choice(simple if depth >= 3 else simple + nested)
        if self.named and self.draw.random() < 0.15:
            return self.reference()
        return kind(depth)

    def plain(self, depth: int) -> Made:
        kind = self.draw.choice(["boolean", "null", "string"])
        return {"type": kind}, {"boolean": lambda: self.draw.random() < 0.5, "null": lambda: None, "string": self.word}[
            kind
        ]

    def types(self, depth: int) -> Made:
        return {"type": ["integer", "null"]}, lambda: self.draw.choice([None, 0, -7, 123])

    def word(self) -> str:
        return self.draw.choice(WORDS)

    def string(self, depth: int) -> Made:
        kind = self.draw.choice(["pattern", "format", "length", "free"])
        if kind == "pattern":
            pattern = self.draw.choice(list(PATTERNS))
            return {"type": "string", "pattern": pattern}, lambda: PATTERNS[pattern](self.draw)
        if kind == "format":
            name = self.draw.choice(list(FORMATS))
            return {"type": "string", "format": name}, lambda: FORMATS[name]
        if kind == "length":
            low = self.draw.randint(0, 3)
            high = low + self.draw.randint(0, 5)
            limits = {"minLength": low, "maxLength": high} if self.draw.random() < 0.7 else {"minLength": low}
            return {"type": "string", **limits}, lambda: "xé\n日🎉abc"[:8][: self.draw.randint(low, high)]
        return {"type": "string"}, self.word

    def integer(self, depth: int) -> Made:
        low = self.draw.randint(-1000, 1000)
        high = low + self.draw.randint(3, 500)
        made: dict[str, Any] = {"type": "integer"}
        if self.draw.random() < 0.7:
            made["minimum"] = low
        else:
            made["exclusiveMinimum"] = low - 1
        if self.draw.random() < 0.7:
            made["maximum"] = high
        elif self.draw.random() < 0.5:
            made["exclusiveMaximum"] = high + 1
        step = self.draw.choice([1, 1, 1, 2, 3])
        if step > 1:
            made["multipleOf"] = step
        first = -(-low // step) * step
        return made, lambda: self.draw.randrange(first, high + 1, step)

    def number(self, depth: int) -> Made:
        low = self.draw.choice([-2.5, 0, 0.5, 10, -100])
        high = low + self.draw.choice([1, 2.25, 50])
        made = {"type": "number", "minimum": low, self.draw.choice(["maximum", "exclusiveMaximum"]): high}
        return made, lambda: low + (high - low) * self.draw.choice([0.25, 0.5, 0.125])

    def enum(self, depth: int) -> Made:
        pool = [*WORDS, 1, 2.5, -3, True, False, None, [1, "a"], {"k": [1]}]
        values = self.draw.sample(pool, self.draw.randint(1, 6))
        return {"enum": values}, lambda: self.draw.choice(values)

    def const(self, depth: int) -> Made:
        value = self.draw.choice([*WORDS, 42, {"a": 1, "b": [True, None]}, [[], {}]])
        return {"const": value}, lambda: value

    def object(self, depth: int) -> Made:
        names = self.draw.sample(["name", "age", "日", "a b", 'x"y', "tags", "z"], self.draw.randint(1, 5))
        parts = {name: self.any(depth + 1) for name in names}
        required = [name for name in names if self.draw.random() < 0.6]
        made: dict[str, Any] = {"type": "object", "properties": {name: part for name, (part, _) in parts.items()}}
        if required:
            made["required"] = required
        extra: Callable[[], Any] | None = None
        rest = self.draw.choice(["closed", "closed", "open", "typed"])
        if rest == "closed":
            made["additionalProperties"] = False
        elif rest == "typed":
            made["additionalProperties"], extra = self.any(depth + 2)

        def sample() -> dict[str, Any]:
            value = {name: draw() for name, (_, draw) in parts.items() if name in required or self.draw.random() < 0.5}
            if rest == "open" and self.draw.random() < 0.5:
                value["other"] = [1, {"deep": None}]
            if extra is not None and self.draw.random() < 0.5:
                value["more"] = extra()
            return value

        return made, sample

    def map(self, depth: int) -> Made:
        part, draw = self.any(depth + 1)
        made: dict[str, Any] = {"type": "object"}
        if self.draw.random() < 0.5:
            made.update({"patternProperties": {"^k[0-9]$": part}, "additionalProperties": False})
        else:
            made["additionalProperties"] = part
        low, high = self.draw.choice([(0, 9), (1, 9), (0, 3), (1, 1)])
        if (low, high) != (0, 9):
            made.update({"minProperties": low, "maxProperties": high})
        return made, lambda: {f"k{index}": draw() for index in range(self.draw.randint(low, min(high, 3)))}

    def array(self, depth: int) -> Made:
        part, draw = self.any(depth + 1)
        low = self.draw.randint(0, 2)
        high = low + self.draw.randint(0, 3)
        limits = self.draw.choice([{}, {"minItems": low}, {"minItems": low, "maxItems": high}, {"maxItems": high}])
        return {"type": "array", "items": part, **limits}, lambda: [draw() for _ in range(self.draw.randint(low, high))]

    def tuple(self, depth: int) -> Made:
        parts = [self.any(depth + 1) for _ in range(self.draw.randint(1, 3))]
        made: dict[str, Any] = {"type": "array", "prefixItems": [part for part, _ in parts], "items": False}
        if self.draw.random() < 0.5:
            made["minItems"] = len(parts)
        return made, lambda: [draw() for _, draw in parts]

    def any_of(self, depth: int) -> Made:
        parts = [self.any(depth + 1) for _ in range(self.draw.randint(2, 3))]
        return {"anyOf": [part for part, _ in parts]}, lambda: self.draw.choice(parts)[1]()

    def one_of(self, depth: int) -> Made:
        first, second = self.string(depth), self.integer(depth)
        return {"oneOf": [first[0], second[0]]}, lambda: self.draw.choice([first, second])[1]()

    def all_of(self, depth: int) -> Made:
        low = self.draw.randint(-50, 50)
        kind = self.draw.choice(["bounds", "length", "objects"])
        if kind == "bounds":
            made = {"allOf": [{"type": "integer", "minimum": low}, {"maximum": low + 20}]}
            return made, lambda: self.draw.randint(low, low + 20)
        if kind == "length":
            return {"type": "string", "allOf": [{"minLength": 1}, {"maxLength": 4}]}, lambda: self.draw.choice(
                ["a", "é日", "abcd"]
            )
        first, second = self.any(depth + 2), self.any(depth + 2)
        made = {
            "type": "object",
            "allOf": [
                {"properties": {"p": first[0]}, "required": ["p"]},
                {"properties": {"q": second[0]}, "required": ["q"]},
            ],
        }
        return made, lambda: {"p": first[1](), "q": second[1]()}

    def reference(self) -> Made:
        name, sample = self.draw.choice(self.named)
        return {"$ref": f"#/$defs/{name}"}, sample

    def tree(self, depth: int) -> Made:
        name = f"tree{len(self.definitions)}"
        part, draw = self.integer(depth)
        self.definitions[name] = {
            "type": "object",
            "properties": {"value": part, "children": {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}},
            "required": ["value"],
            "additionalProperties": False,
        }

        def grow(height: int) -> dict[str, Any]:
            value = {"value": draw()}
            if self.draw.random() < 0.6:
                value["children"] = [grow(height - 1) for _ in range(self.draw.randint(0, 2) if height else 0)]
            return value

        return {"$ref": f"#/$defs/{name}"}, lambda: grow(2)
