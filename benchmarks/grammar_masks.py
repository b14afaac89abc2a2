"""What a grammar costs: set-up of a vocabulary, compiling, and microseconds per mask and per accepted token.

    python benchmarks/grammar_masks.py TOKENIZER_FOLDER...

The text that is followed is an instance of each schema, in the tokenizer's own tokens; the time is the processor's.
A mask is hidden behind the forward pass of the same step (`MaskFiller`), as long as it takes less time. The last row of
a tokenizer is the course's automaton: compiling a regular expression, and the first visit of each of its states.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import alternate
from bottega.generate.constraint import Constraint, mask_words
from bottega.generate.structure.automaton import compile_regex
from bottega.generate.structure.grammar import regex
from bottega.generate.structure.schema import json_schema
from bottega.generate.structure.trie import AutomatonConstraint, TokenTrie
from bottega.generate.structure.vocabulary import vocabulary_of
from bottega.tokenizer.tokenizer import Tokenizer

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {
                "value": {"type": "number"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/tree",
}
WORDS = "The quick brown fox jumps over the lazy dog, and then over 1,234 more of them. "
CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "flat person": (PERSON, {"name": WORDS, "age": 42}),
    "list of people, an e-mail each": (
        {
            "type": "array",
            "items": {
                **PERSON,
                "properties": {**PERSON["properties"], "mail": {"type": "string", "format": "email"}},
            },
            "minItems": 1,
            "maxItems": 50,
        },
        [{"name": "Ada", "age": 36, "mail": "ada@example.com"}] * 4,
    ),
    "recursive tree": (TREE, {"value": 1.5, "children": [{"value": 2, "children": [{"value": 3}]}] * 6}),
    "any object": ({"type": "object"}, {"a": [1, {"b": WORDS}], "c": None}),
    "one of 2,000 texts": ({"enum": [f"choice number {number}" for number in range(2000)]}, "choice number 1234"),
    "string of 10 to 2,000": ({"type": "string", "minLength": 10, "maxLength": 2000}, WORDS * 8),
}
PATTERN, MATCH = (
    r'\{"name": "[^"\\]*", "born": "[0-9]{4}-[0-9]{2}-[0-9]{2}"\}',
    '{"name": "Ada L.", "born": "1815-12-10"}',
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path, nargs="+", help="folder of a tokenizer (or of a model)")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="each grammar once")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repeat = 1 if arguments.quick else arguments.repeat
    rows = [row for folder in arguments.tokenizer for row in of_tokenizer(folder, repeat)]
    header = ("tokenizer", "grammar", "compile, ms", "mask, µs", "p99", "most", "accept, µs")
    alternate.print_table(header, rows)


def of_tokenizer(folder: Path, repeat: int) -> list[list[str]]:
    """The rows of one tokenizer."""
    tokenizer = Tokenizer.load(folder)
    start = time.thread_time()
    vocabulary = vocabulary_of(tokenizer)
    setup = time.thread_time() - start
    print(f"{folder.name}: {tokenizer.vocab_size} tokens, made ready in {setup:.2f} s, once per tokenizer")
    trie = TokenTrie(vocabulary)
    made: dict[str, tuple[Callable[[], Constraint], str]] = {
        name: (partial(json_schema, tokenizer, schema), json.dumps(value)) for name, (schema, value) in CASES.items()
    }
    made["regular expression"] = (partial(regex, tokenizer, PATTERN), MATCH)
    made["the same, by our automaton"] = (lambda: AutomatonConstraint(trie, compile_regex(PATTERN)), MATCH)
    return [[folder.name, name, *measured(make, tokenizer, text, repeat)] for name, (make, text) in made.items()]


def measured(make: Callable[[], Constraint], tokenizer: Tokenizer, text: str, repeat: int) -> list[str]:
    """The figures of one row: compile, mean, 99th percentile and maximum of the masks, accept."""
    compiling, masks, accepting = [], [], []
    for _ in range(repeat):
        start = time.thread_time()
        constraint = make()
        compiling.append(time.thread_time() - start)
        for filled, accepted in followed(constraint, tokenizer, text):
            masks.append(filled)
            accepting.append(accepted)
    masks.sort()
    figures = (statistics.mean(masks), masks[int(0.99 * (len(masks) - 1))], masks[-1], statistics.mean(accepting))
    return [f"{1e3 * statistics.median(compiling):.1f}", *(f"{1e6 * figure:.0f}" for figure in figures)]


def followed(constraint: Constraint, tokenizer: Tokenizer, text: str) -> Iterator[tuple[float, float]]:
    """Seconds to fill the mask before each token of `text`, and to accept the token."""
    mask = torch.empty(mask_words(tokenizer.vocab_size), dtype=torch.int32)
    for token in tokenizer.encode(text):
        start = time.thread_time()
        constraint.fill(mask)
        filled = time.thread_time()
        constraint.accept(token)
        yield filled - start, time.thread_time() - filled


if __name__ == "__main__":
    main()
