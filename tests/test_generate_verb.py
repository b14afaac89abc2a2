"""The verb `generate` with everything that can be asked of it, on a random tiny model, as a user would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bottega import verbs
from bottega.core.errors import UserError
from bottega.tokenizer.tokenizer import Tokenizer
from test_evaluate_choice import make_model

QUICK: dict[str, Any] = {"threads": 1, "prompt": "The master", "max_new_tokens": 40, "seed": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("verb") / "tiny"))


def test_an_answer_of_a_given_form_has_it_or_says_that_it_does_not(model: str, tmp_path: Path) -> None:
    properties = {"a": {"enum": [1, 22]}, "b": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": ["a", "b"], "additionalProperties": False}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    found = verbs.generate(model=model, json_schema=tmp_path / "schema.json", **QUICK)
    assert found["valid"] and found["finish_reason"] == "stop"
    jsonschema.validate(json.loads(found["text"]), schema)
    cut = verbs.generate(model=model, regex="[a-z]{30,}x", **{**QUICK, "max_new_tokens": 3})
    assert not cut["valid"] and cut["invalid_because"] and cut["finish_reason"] == "length"
    assert verbs.generate(model=model, choice=("red", "green"), **QUICK)["text"] in ("red", "green")


def test_a_trace_explains_every_token(model: str) -> None:
    found = verbs.generate(model=model, trace=True, top_k=5, top_p=0.9, **QUICK)
    assert [step["token"] for step in found["trace"]] == found["token_ids"]
    for step in found["trace"]:
        alive = [each for each in step["candidates"] if each["cut_by"] is None]
        assert sum(each["probability"] for each in alive) == pytest.approx(1, abs=1e-4)
        assert {each["cut_by"] for each in step["candidates"]} <= {None, "top_k", "top_p"}
        assert len(alive) <= 5 and step["share"][0] <= step["uniform"] < step["share"][1]
    assert found["token_ids"] == verbs.generate(model=model, top_k=5, top_p=0.9, **QUICK)["token_ids"]


@pytest.mark.parametrize("how", [{"speculate": "lookup"}, {"speculate": "early-exit"}, {"speculate": "draft"}])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guessing_ahead_changes_no_answer(model: str, how: dict[str, Any], temperature: float) -> None:
    how = {**how, "draft_model": model} if how["speculate"] == "draft" else how
    plain = verbs.generate(model=model, temperature=temperature, **QUICK)
    guessed = verbs.generate(model=model, temperature=temperature, **how, **QUICK)
    assert guessed["token_ids"] == plain["token_ids"]
    assert guessed["speculation"]["accepted"] <= guessed["speculation"]["proposed"]


def test_a_healed_prompt_may_finish_its_word(model: str) -> None:
    plain = {**QUICK, "prompt": "the apprent", "temperature": 0}
    healed = verbs.generate(model=model, heal=True, **plain)
    assert healed["prompt_tokens"] == verbs.generate(model=model, **plain)["prompt_tokens"]
    text = Tokenizer.load(Path(model)).decode(healed["token_ids"])
    assert text.endswith(healed["text"]) and "the apprent".endswith(text.removesuffix(healed["text"]))
    assert len(text) > len(healed["text"]), "nothing was taken back"
    with pytest.raises(UserError, match="--heal and a form"):
        verbs.generate(model=model, heal=True, regex="a", **plain)


def test_narrow_weights_and_caches_are_obeyed(model: str) -> None:
    exact = verbs.generate(model=model, temperature=0, **QUICK)["token_ids"]
    for how in ({"cache_dtype": "int8"}, {"weights": "bfloat16", "cache_dtype": "bfloat16"}):
        assert verbs.generate(model=model, temperature=0, **how, **QUICK)["token_ids"][:2] == exact[:2]
    with pytest.raises(UserError, match="room for 16"):
        verbs.generate(model=model, cache_tokens=16, **{**QUICK, "prompt": "The master shows the apprentice " * 4})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"speculate": "draft"}, "--draft-model"),
        ({"draft_layers": 1}, "--speculate early-exit"),
        ({"regex": "a", "choice": ("b",)}, "contradict"),
        ({"regex": "a", "num_beams": 3}, "exclude each other"),
        ({"speculate": "lookup", "best_of": 3}, "exclude each other"),
        ({"regex": "(a"}, "regex"),
        ({"mirostat": 2, "top_p": 0.5}, "mirostat"),
        ({"logit_bias": ("nonsense-token=1",)}, "'nonsense-token' is"),
        ({"weights": "int8"}, "rows of 48"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(model: str, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        verbs.generate(model=model, **wrong, **QUICK)
