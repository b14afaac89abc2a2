"""Every sampler under the name that clients send: over the wire the answer is the generator's with the same setting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from bottega.generate.generator import Generator
from bottega.generate.sampling import Sampling
from bottega.generate.words import DRY_BREAKERS, banned_words, dry_breakers
from test_serve_api import make_app, make_model

PROMPT = "The master shows the apprentice how the"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("samplers") / "tiny")


@pytest.fixture(scope="module")
def generator(model: Path) -> Generator:
    return Generator.load(model, threads=1)


@pytest.fixture(scope="module")
def inside(model: Path) -> Iterator[TestClient]:
    with TestClient(make_app(model), base_url="http://localhost") as client:
        yield client


def told(client: TestClient, **fields: Any) -> str:
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 30, "seed": 5, **fields}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({"temperature": 0.4}, {"temperature": 0.4}),
        ({"top_k": 3}, {"top_k": 3}),
        ({"top_k": -1}, {}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"min_p": 0.2}, {"min_p": 0.2}),
        ({"typical_p": 0.3}, {"typical_p": 0.3}),
        ({"epsilon_cutoff": 0.02}, {"epsilon_cutoff": 0.02}),
        ({"eta_cutoff": 0.05}, {"eta_cutoff": 0.05}),
        ({"top_n_sigma": 0.5}, {"top_n_sigma": 0.5}),
        ({"top_a": 0.5}, {"top_a": 0.5}),
        ({"top_h": 0.4}, {"top_h": 0.4}),
        ({"tfs": 0.4}, {"tail_free": 0.4}),
        ({"xtc_probability": 1.0, "xtc_threshold": 0.05}, {"xtc_probability": 1.0, "xtc_threshold": 0.05}),
        ({"mirostat": 2, "mirostat_tau": 2.0, "mirostat_eta": 0.3},
         {"mirostat": 2, "mirostat_tau": 2.0, "mirostat_eta": 0.3}),
        ({"dynatemp_range": 0.9, "dynatemp_exponent": 2.0}, {"dynatemp_range": 0.9, "dynatemp_exponent": 2.0}),
        ({"repetition_penalty": 1.8}, {"repetition_penalty": 1.8}),
        ({"repetition_penalty": 1.8, "repetition_penalty_range": 2}, {"repetition_penalty": 1.8, "penalty_range": 2}),
        ({"presence_penalty": 2.0}, {"presence_penalty": 2.0}),
        ({"frequency_penalty": 2.0}, {"frequency_penalty": 2.0}),
        ({"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 1}),
        ({"allowed_token_ids": [300, 301, 302]}, {"allowed_tokens": (300, 301, 302)}),
        ({"logit_bias": {"300": 50}}, {"logit_bias": ((300, 50.0),)}),
        ({"top_k": 3, "temperature": 2.0, "samplers": ["temperature", "top_k"]},
         {"top_k": 3, "temperature": 2.0, "samplers": ("temperature", "top_k")}),
        ({"stop_regex": "[a-e]"}, {"stop_regex": "[a-e]"}),
        ({"stop": ["a", "e"], "include_stop_str_in_output": True}, {"stop": ("a", "e"), "include_stop_str": True}),
        ({"min_tokens": 4, "logit_bias": {"0": 100}}, {"min_new_tokens": 4, "logit_bias": ((0, 100.0),)}),
        ({"ignore_eos": True, "logit_bias": {"0": 100}}, {"ignore_eos": True, "logit_bias": ((0, 100.0),)}),
    ],
)  # fmt: skip
def test_a_field_is_the_setting(inside: TestClient, generator: Generator, fields: Any, settings: Any) -> None:
    prompt = generator.prompt_ids(PROMPT, chat=False)
    plain = Sampling(max_new_tokens=30, seed=5)
    expected = generator.complete(prompt, Sampling(**{"max_new_tokens": 30, "seed": 5, **settings})).text
    assert told(inside, **fields) == expected
    if settings:
        assert expected != generator.complete(prompt, plain).text  # it changes something


def test_words_are_found_as_the_tokenizer_writes_them(inside: TestClient, generator: Generator) -> None:
    tokenizer, prompt = generator.tokenizer, generator.prompt_ids(PROMPT, chat=False)
    plain = told(inside)
    word = next(character for character in plain if character.isalpha() and character.isascii())
    settings: dict[str, Any] = {"max_new_tokens": 30, "seed": 5}
    banned = Sampling(**settings, banned_words=banned_words(tokenizer, [word]))
    assert told(inside, bad_words=[word]) == generator.complete(prompt, banned).text != plain
    for given, breakers in ((None, DRY_BREAKERS), (["e"], ["e"])):
        dry = Sampling(
            **settings, dry_multiplier=50.0, dry_allowed_length=1, dry_breakers=dry_breakers(tokenizer, breakers)
        )
        fields = {} if given is None else {"dry_sequence_breakers": given}
        assert told(inside, dry_multiplier=50.0, dry_allowed_length=1, **fields) == generator.complete(prompt, dry).text


def test_a_stop_token_ends_the_answer_and_is_not_in_it(inside: TestClient, generator: Generator) -> None:
    prompt = generator.prompt_ids(PROMPT, chat=False)
    pieces = generator.complete(prompt, Sampling(max_new_tokens=30, seed=5)).pieces
    at = next(index for index, piece in enumerate(pieces) if index > 3 and piece.text)
    first = next(index for index, piece in enumerate(pieces) if piece.token_id == pieces[at].token_id)
    assert told(inside, stop_token_ids=[pieces[at].token_id]) == "".join(piece.text for piece in pieces[:first])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"allowed_token_ids": [10**6]}, "allowed_token_ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"bad_words": [""]}, "bad_words"),
        ({"stop_regex": "("}, "stop_regex"),
        ({"min_tokens": 40}, "min_tokens"),
        ({"dry_base": 0.5, "dry_multiplier": 1.0}, "dry_base"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_the_name_that_was_sent(
    inside: TestClient, fields: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 30, "stream": stream, **fields}
        answer = inside.post("/v1/completions", json=body)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == param, answer.text
