"""What is asked: the rows of a file in turn, or random words of a wanted number of tokens.

A word costs what the server's /tokenize says, minus the special tokens around it; as
tokenizers cut at spaces before anything else, a text costs the sum of its words. So a prompt
of n tokens takes no request of its own, after one for each word of the list.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bottega.core.errors import UserError
from bottega.serve.bench.config import INPUT_TOKENS, BenchServe
from bottega.serve.bench.target import Endpoint, Target, TokenCounter

# Frequent English words, which are one token each in most vocabularies.
_TEXT = (
    "the and for are but not you all any can had her was one our out day get has him his how man new now old see two "
    "way who did its let put say she too use that with have this will your from they know want been good much some "
    "time very when come here just like long make many over such take than them well were"
)
WORDS = _TEXT.split()


@dataclass(frozen=True)
class Prompt:
    """One request's content: `body` is "prompt" or "messages", `output_tokens` the most tokens of its answer."""

    body: dict[str, Any]
    output_tokens: int


@dataclass(frozen=True)
class Prompts:
    """`of(i)` is the prompt of request i (warm-up: below 0), the same for a seed; `note` says how long they are."""

    of: Callable[[int], Prompt]
    note: str


def make_prompts(config: BenchServe, target: Target) -> Prompts:
    """The prompts that the settings describe; raises UserError for a file that holds none."""
    if config.dataset is not None:
        return from_file(config.dataset, target.endpoint, config)
    with httpx.Client(timeout=config.timeout, **target.client_settings()) as client:
        return synthetic(config, target.endpoint, TokenCounter(target, client))


def from_file(path: Path, endpoint: Endpoint, config: BenchServe) -> Prompts:
    """The rows of `path`, from the beginning again when there are fewer than requests."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8") from None
    rows = [_row(line, f"{path}, line {n}", endpoint, config) for n, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UserError(f"{path} holds no prompt", hint='Each row is {"prompt": "…"} or {"messages": […]}.')
    return Prompts(lambda index: rows[index % len(rows)], f"{len(rows)} prompts of {path.name}, in turn")


def _row(line: str, where: str, endpoint: Endpoint, config: BenchServe) -> Prompt:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    if not isinstance(row, dict) or ("prompt" in row) == ("messages" in row):
        raise UserError(f'{where} has not exactly one of "prompt" and "messages"')
    tokens = row.get("output_tokens", config.output_tokens)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise UserError(f'{where}: "output_tokens" is a whole number from 1, not {tokens!r}')
    if "messages" in row:
        if not isinstance(row["messages"], list) or not row["messages"]:
            raise UserError(f'{where}: "messages" is a list of {{"role", "content"}}')
        if endpoint == "completions":
            raise UserError(f"{where} is a conversation", hint="The completions endpoint takes none: --endpoint chat.")
        return Prompt({"messages": row["messages"]}, tokens)
    if not isinstance(row["prompt"], str) or not row["prompt"]:
        raise UserError(f'{where}: "prompt" is a text')
    return Prompt(_body(row["prompt"], endpoint), tokens)


def _body(text: str, endpoint: Endpoint) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]} if endpoint == "chat" else {"prompt": text}


def synthetic(config: BenchServe, endpoint: Endpoint, counter: TokenCounter) -> Prompts:
    """Random words; a prompt's first `shared_prefix` tokens are the same words in all."""
    length = config.input_tokens or INPUT_TOKENS
    costs, around, note = _word_costs(endpoint, counter)
    prefix = _fill(config.shared_prefix - around, costs, np.random.default_rng(config.seed))
    rest = around + sum(costs[word] for word in prefix)

    def of(index: int) -> Prompt:
        source = np.random.default_rng([config.seed, index % 2**32])
        wanted = _varied(length, config.spread, source)
        words = [*prefix, *_fill(wanted - rest, costs, source)] or [min(costs, key=lambda word: costs[word])]
        return Prompt(_body(" ".join(words), endpoint), _varied(config.output_tokens, config.spread, source))

    about = f"random words, {length} tokens" + (f" ± {config.spread:.0%}" if config.spread else "")
    about += f", the first {config.shared_prefix} the same in all" if config.shared_prefix else ""
    return Prompts(of, f"{about}, {note}")


def _word_costs(endpoint: Endpoint, counter: TokenCounter) -> tuple[dict[str, int], int, str]:
    """Tokens of each word with the space before it, tokens around a text, and how that is known."""
    first = WORDS[0]
    once, twice = counter.count(f" {first}"), counter.count(f" {first} {first}")
    if once is None or twice is None:
        return dict.fromkeys(WORDS, 1), 0, "estimated at one token a word (the server has no /tokenize)"
    around = once - (twice - once)
    costs = {word: (counter.count(f" {word}") or once) - around for word in WORDS}
    note = "counted by the server's /tokenize"
    if endpoint == "chat":
        chat = counter.count_chat(f" {first}")
        if chat is None:
            return costs, 0, f"{note} without those of its chat template"
        around = chat - costs[first]
    return costs, around, note


def _fill(tokens: int, costs: dict[str, int], source: np.random.Generator) -> list[str]:
    """Random words that cost `tokens` together, or as much of it as words of these costs can."""
    each = np.array([max(1, costs[word]) for word in WORDS])
    drawn = source.integers(len(WORDS), size=max(0, tokens))
    drawn = drawn[np.cumsum(each[drawn]) <= tokens]
    left = tokens - int(each[drawn].sum())
    words = [WORDS[index] for index in drawn]
    while fitting := [word for word, cost in zip(WORDS, each, strict=True) if cost <= left]:
        words.append(str(source.choice(fitting)))
        left -= max(1, costs[words[-1]])
    return words


def _varied(length: int, spread: float, source: np.random.Generator) -> int:
    """A length within ±`spread` of itself, at least 1."""
    if not spread:
        return length
    return max(1, int(source.integers(round(length * (1 - spread)), round(length * (1 + spread)) + 1)))
