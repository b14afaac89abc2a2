"""Bodies with odd values in any place, on every route: a refusal that says why, never a failure of the server."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from test_serve_api import make_app, make_model
from test_serve_tools import COLOUR, GRIND, MIX, TEMPLATE

CALL = {"id": "a", "type": "function", "function": {"name": "mix", "arguments": "{}"}}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "tiny",
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
        ],
        "tools": [MIX],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "stream": False,
        "stream_options": None,
        "max_tokens": 3,
        "temperature": 1,
        "top_p": 0.9,
        "top_k": 5,
        "logprobs": True,
        "top_logprobs": 2,
        "n": 2,
        "stop": ["x"],
        "seed": 1,
        "logit_bias": {"3": 1},
        "dry_multiplier": 1.0,
        "samplers": ["llama.cpp"],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": COLOUR}},
    },
    "/v1/completions": {
        "model": "tiny",
        "prompt": ["a", [300]],
        "max_tokens": 3,
        "echo": True,
        "logprobs": 1,
        "best_of": 2,
        "n": 1,
        "stop_token_ids": [3],
        "bad_words": ["x"],
        "allowed_token_ids": [300, 301],
        "min_tokens": 1,
        "guided_grammar": None,
        "presence_penalty": 1,
        "suffix": None,
        "stop_regex": "a+",
    },
    "/v1/embeddings": {"model": "tiny", "input": ["a", [300]], "encoding_format": "float", "dimensions": None},
    "/v1/score": {"model": "tiny", "context": "a", "continuations": ["b", [300]]},
    "/tokenize": {"model": "tiny", "prompt": "a", "messages": None, "tools": None, "add_special_tokens": True},
    "/detokenize": {"model": "tiny", "tokens": [1, 2]},
    "/v1/render": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "tools": [GRIND]},
}
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 3.5, 2**31, 2**63, -(2**63), 10**30, 1e308, -0.0, 1e-320),
    *("", "a", "\ud800", "\0", "<|im_end|>", "[", "(a+)+$", "日本" * 50, [], [[]], {}, [None], ["a"], [1], [-1]),
    *([10**12], ["\ud800"], {"a": 1}, {"\ud800": 1}, {"type": "object"}, {"$ref": "#"}, {"pattern": "("}),
]


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    model: Path = make_model(tmp_path_factory.mktemp("hostile") / "tiny")
    (model / "chat_template.jinja").write_text(TEMPLATE)
    with TestClient(make_app(model), base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*place, key))


def mutated(body: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """One to three odd values, missing fields or unknown ones."""
    body = copy.deepcopy(body)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if not (found := list(places(body))):
            break
        *path, last = draw.choice(found)
        owner: Any = body
        for key in path:
            owner = owner[key]
        kind = draw.random()
        if kind < 0.2 and isinstance(owner, dict):
            del owner[last]
        elif kind < 0.3 and isinstance(owner, dict):
            owner[draw.choice(("x", "$id", "é", "model "))] = draw.choice(ODD)
        else:
            owner[last] = copy.deepcopy(draw.choice(ODD))
    return body


@pytest.mark.parametrize("count", [400, pytest.param(8_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_odd_values_in_any_place_are_refused_or_obeyed(inside: TestClient, count: int) -> None:
    draw = random.Random(count)
    statuses: Counter[int] = Counter()
    for _ in range(count):
        path = draw.choice(list(BODIES))
        content = json.dumps(mutated(BODIES[path], draw))
        answer = inside.post(path, content=content, headers={"Content-Type": "application/json"})
        statuses[answer.status_code] += 1
        assert answer.status_code in (200, 400, 404) and "server_error" not in answer.text, (path, content, answer.text)
        if answer.status_code != 200:
            assert answer.json()["error"]["message"]
    assert statuses[200] > count // 50 and statuses[400] > count // 2
    assert inside.get("/health").json() == {"status": "ok", "running": 0, "waiting": 0}
