"""The example files of the shipped recipes, made by rule from a few tables: a small world that a tiny model can learn.

Run this file to write them anew; `test_recipes_shipped.py` holds the files to what is made here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "src" / "bottega" / "recipes" / "examples"
Row = dict[str, Any]

TOOLS = {
    "chisel": ("carves wood", "steel"), "saw": ("cuts boards", "steel"), "hammer": ("drives nails", "iron"),
    "plane": ("smooths planks", "beech"), "file": ("shapes metal", "steel"), "brush": ("spreads paint", "hair"),
    "needle": ("sews cloth", "steel"), "loom": ("weaves cloth", "oak"), "kiln": ("fires clay", "brick"),
    "wheel": ("turns clay", "stone"), "anvil": ("bears blows", "iron"), "bellows": ("feed the fire", "leather"),
    "ladle": ("pours metal", "iron"), "mould": ("shapes casts", "sand"), "lathe": ("turns wood", "iron"),
    "drill": ("bores holes", "steel"), "clamp": ("holds parts", "iron"), "ruler": ("measures lengths", "brass"),
    "compass": ("draws circles", "brass"), "easel": ("holds canvas", "pine"), "mortar": ("grinds colours", "stone"),
    "press": ("prints pages", "oak"), "pen": ("writes letters", "reed"), "lamp": ("gives light", "glass"),
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "long": "short", "hard": "soft", "old": "new", "dark": "light", "wet": "dry",
    "full": "empty", "slow": "fast", "rough": "smooth", "thick": "thin", "sharp": "blunt", "high": "low",
    "early": "late", "loud": "quiet", "near": "far",
}  # fmt: skip
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SYSTEM = "You help in a workshop. Answer in one short sentence."


def sentence(name: str) -> str:
    """What a tool does."""
    does = TOOLS[name][0]
    return f"The {name} {does}." if name == "bellows" else f"A {name} {does}."


def primer(draw: random.Random) -> list[Row]:
    """Plain text for the base model: everything that the other files speak of, in short paragraphs."""
    sentences = [sentence(name) for name in TOOLS]
    sentences += [f"What {does}? The {name} {does}." for name, (does, _) in TOOLS.items()]
    sentences += [f"The {name} is made of {made}." for name, (_, made) in TOOLS.items()]
    sentences += [f"The opposite of {a} is {b}." for pair in OPPOSITES.items() for a, b in (pair, pair[::-1])]
    sums = [(a, b) for a in range(10) for b in range(10)]
    sentences += [f"{a} + {b} = {a + b}." for a, b in sums]
    sentences += [f"{NUMBERS[a].capitalize()} plus {NUMBERS[b]} is {a + b}." for a, b in sums]
    sentences += [f"{a} - {b} = {a - b}." for a, b in sums if a >= b]
    paragraphs = []
    for _ in range(3):
        draw.shuffle(sentences)
        paragraphs += [{"text": " ".join(sentences[start : start + 8])} for start in range(0, len(sentences), 8)]
    return paragraphs


def questions() -> list[tuple[str, str, str]]:
    """Question, right answer, and a wrong one of about the same length, so that length tells nothing."""
    names = list(TOOLS)
    made: list[tuple[str, str, str]] = []
    for number, (name, (does, of)) in enumerate(TOOLS.items()):
        other = names[(number + 7) % len(names)]
        other_of = next(TOOLS[n][1] for n in names[number:] + names[:number] if TOOLS[n][1] != of)
        made += [
            (f"What does the {name} do?", sentence(name), sentence(name).replace(does, TOOLS[other][0])),
            (f"Which tool {does}?", f"The {name} {does}.", f"The {other} {does}."),
            (f"What is the {name} made of?", f"It is made of {of}.", f"It is made of {other_of}."),
        ]
    words = list(OPPOSITES)
    for number, (word, opposite) in enumerate(OPPOSITES.items()):
        wrong = OPPOSITES[words[(number + 5) % len(words)]]
        made.append((f"What is the opposite of {word}?", f"The opposite is {opposite}.", f"The opposite is {wrong}."))
    for a in range(1, 10):
        for b in range(1, 10):
            if (a + 2 * b) % 3:  # two of three, whatever their sum
                made.append((f"How much is {a} + {b}?", f"{a} + {b} = {a + b}.", f"{a} + {b} = {a + b + 1}."))
    return made


def alpaca(draw: random.Random) -> list[Row]:
    """instruction, input, output."""
    rows = [{"instruction": question, "input": "", "output": right} for question, right, _ in questions()]
    for a in range(1, 10):
        b = draw.randrange(1, 10)
        rows.append({"instruction": "Add the two numbers.", "input": f"{a} and {b}", "output": f"{a} + {b} = {a + b}."})
    for name in list(TOOLS)[::2]:
        rows.append({"instruction": "Say what this tool does.", "input": name, "output": sentence(name)})
    draw.shuffle(rows)
    return rows


def sharegpt(draw: random.Random) -> list[Row]:
    """Conversations of two or three turns, half of them with a system message."""
    asked = questions()
    rows = []
    for number in range(120):
        turns = [{"from": "system", "value": SYSTEM}] if number % 2 else []
        for question, right, _ in draw.sample(asked, 2 + number % 2):
            turns += [{"from": "human", "value": question}, {"from": "gpt", "value": right}]
        rows.append({"conversations": turns})
    return rows


def preference(draw: random.Random) -> list[Row]:
    """A right answer and a wrong one to each question."""
    rows = [{"prompt": question, "chosen": right, "rejected": wrong} for question, right, wrong in questions()]
    draw.shuffle(rows)
    return rows


def judged(draw: random.Random) -> list[Row]:
    """Single answers with a label; there are more good ones than bad ones, as there are in practice."""
    rows = []
    for question, right, wrong in questions():
        good = draw.random() < 0.6
        rows.append({"prompt": question, "completion": right if good else wrong, "label": good})
    draw.shuffle(rows)
    return rows


def arithmetic(draw: random.Random) -> list[Row]:
    """Prompts whose answer can be checked."""
    rows = [{"prompt": f"How much is {a} + {b}?", "answer": str(a + b)} for a in range(1, 10) for b in range(1, 10)]
    draw.shuffle(rows)
    return rows


def prompts(draw: random.Random) -> list[Row]:
    """Prompts without an answer, for a reward model."""
    rows = [{"prompt": question} for question, _, _ in questions()]
    draw.shuffle(rows)
    return rows


def code(draw: random.Random) -> list[Row]:
    """Small Python functions, in alpaca's columns."""
    signs = {"add": "+", "subtract": "-", "multiply": "*"}
    rows = []
    for verb, sign in signs.items():
        for names in ("a b", "x y", "first second", "left right"):
            a, b = names.split()
            body = f"def {verb}({a}, {b}):\n    return {a} {sign} {b}"
            instruction = f"Write a function that can {verb} two numbers."
            rows.append({"instruction": instruction, "input": names, "output": body})
    for name, expression in {
        "double": "2 * {x}", "square": "{x} * {x}", "half": "{x} / 2", "next_number": "{x} + 1", "negative": "-{x}",
        "is_even": "{x} % 2 == 0", "is_odd": "{x} % 2 == 1", "is_zero": "{x} == 0", "is_positive": "{x} > 0",
        "last_digit": "{x} % 10", "as_text": "str({x})", "cube": "{x} * {x} * {x}",
    }.items():  # fmt: skip
        for x in ("n", "value", "number", "x"):
            body = f"def {name}({x}):\n    return {expression.format(x=x)}"
            rows.append({"instruction": f"Write the function {name}.", "input": x, "output": body})
    for name, does in {"first": "{x}[0]", "last": "{x}[-1]", "count": "len({x})", "largest": "max({x})",
                       "smallest": "min({x})", "total": "sum({x})", "backwards": "{x}[::-1]",
                       "in_order": "sorted({x})"}.items():  # fmt: skip
        for x in ("items", "values", "numbers"):
            body = f"def {name}({x}):\n    return {does.format(x=x)}"
            rows.append({"instruction": f"Write the function {name} of a list.", "input": x, "output": body})
    draw.shuffle(rows)
    return rows


FILES: dict[str, Callable[[random.Random], list[Row]]] = {
    "primer.jsonl": primer, "alpaca.jsonl": alpaca, "sharegpt.jsonl": sharegpt, "preference.jsonl": preference,
    "kto.jsonl": judged, "arithmetic.jsonl": arithmetic, "prompts.jsonl": prompts, "code.jsonl": code,
}  # fmt: skip
HELD_OUT = {"alpaca.jsonl": 24, "preference.jsonl": 24, "code.jsonl": 12}  # rows of these that go into a file apart


def made() -> dict[str, str]:
    """Name → text of every file."""
    texts = {}
    for name, make in FILES.items():
        rows = make(random.Random(name))
        held = HELD_OUT.get(name, 0)
        for part, some in ((name, rows[held:]), (name.replace(".", "-heldout."), rows[:held])):
            if some:
                texts[part] = "".join(json.dumps(row) + "\n" for row in some)
    return texts


if __name__ == "__main__":
    for name, text in made().items():
        (FOLDER / name).write_text(text)
        print(f"{name}: {text.count(chr(10))} rows, {len(text) // 1024} KiB")
