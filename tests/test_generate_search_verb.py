"""The verb's searches: what they answer, show and refuse."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from bottega.core.errors import UserError
from bottega.generate.search.vote import answer_in
from conftest import Workshop
from search_models import oracle_model

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with the workshop's tokenizer."""
    from bottega.tokenizer.files import write_tokenizer

    folder = tmp_path_factory.mktemp("models") / "random"
    oracle_model(384, 0.3).save_pretrained(folder)
    write_tokenizer(workshop.tokenizer, folder)
    return folder


def generate(model: Path, **settings: Any) -> dict[str, Any]:
    from bottega import verbs

    return verbs.generate(**{"model": str(model), "prompt": "The river", "max_new_tokens": 8, "threads": 1} | settings)


def test_the_verb_gives_the_best_and_all(model: Path) -> None:
    plain = generate(model, temperature=0.0)
    for search in ({"num_beams": 4, "num_return_sequences": 3}, {"best_of": 4, "num_return_sequences": 3, "seed": 1}):
        data = generate(model, **search)
        assert data.keys() == plain.keys() | {"sequences"}
        scores = [sequence["score"] for sequence in data["sequences"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
        assert data["text"] == data["sequences"][0]["text"] and data["token_ids"] == data["sequences"][0]["token_ids"]
        assert json.loads(json.dumps(data)) == data
    assert generate(model, temperature=0.0, guidance_scale=1.0) == plain
    guided = generate(model, temperature=0.0, guidance_scale=1.0 + 1e-9)
    assert guided["token_ids"] == plain["token_ids"] and "sequences" in guided
    assert generate(model, temperature=0.0, guidance_scale=3.0)["token_ids"] != plain["token_ids"]
    other = generate(model, temperature=0.0, guidance_scale=3.0, negative_prompt="A stone keeps")
    assert other["token_ids"] != generate(model, temperature=0.0, guidance_scale=3.0)["token_ids"]
    assert generate(model, temperature=0.0, dola_layers="high")["token_ids"] != plain["token_ids"]
    assert generate(model, penalty_alpha=0.5, top_k=4)["prompt_tokens"] == plain["prompt_tokens"]


def test_self_consistency_counts_what_the_samples_say(model: Path) -> None:
    data = generate(model, self_consistency=9, seed=3, answer_pattern="([aeiou])", max_new_tokens=20)
    said = [answer_in(sequence["text"], "([aeiou])") for sequence in data["sequences"]]
    assert said == [sequence["answer"] for sequence in data["sequences"]]
    assert sum(vote["count"] for vote in data["votes"]) == sum(answer is not None for answer in said) > 1
    assert data["answer"] == said[0] == data["votes"][0]["answer"]
    assert data["votes"][0]["count"] == max(said.count(answer) for answer in set(said) - {None})


def test_stop_strings_end_beams(model: Path) -> None:
    from bottega.tokenizer.tokenizer import Tokenizer

    stop, decode = ("a", "e", "o"), Tokenizer.load(model).decode
    data = generate(model, num_beams=4, num_return_sequences=4, early_stopping=True, max_new_tokens=20, stop=stop)
    assert {sequence["finish_reason"] for sequence in data["sequences"]} == {"stop"}
    for sequence in data["sequences"]:
        whole, ids = decode(sequence["token_ids"]), sequence["token_ids"]
        assert any(text in whole for text in stop) and not any(text in decode(ids[:-1]) for text in stop)
        assert sequence["text"] == whole[: min(whole.find(text) for text in stop if text in whole)]


def test_patterns_and_words_count_in_beams(model: Path) -> None:
    cut = generate(
        model, num_beams=4, early_stopping=True, max_new_tokens=20, stop_regex="[aeo].", include_stop_str=True
    )
    assert re.search("[aeo].$", cut["text"]) and not re.search("[aeo].", cut["text"][:-1])
    free = generate(model, num_beams=2)
    word = free["token_ids"][0]
    banned = generate(model, num_beams=2, logit_bias=(f"{word}=-1000",))
    assert word not in banned["token_ids"]


def test_the_trace_of_beams_is_their_tree(model: Path) -> None:
    data = generate(model, num_beams=3, trace=True)
    assert [step["step"] for step in data["tree"]] == list(range(1, len(data["tree"]) + 1))
    nodes = {node["id"]: node for step in data["tree"] for node in step["beams"]}
    best = max((node for node in nodes.values() if node["state"] == "finished"), key=lambda node: node["score"])
    path = []
    while best is not None:
        path.append(best["token"])
        best = nodes.get(best["parent"])
    assert path[::-1] == data["token_ids"]
    assert all(isinstance(node["text"], str) for node in nodes.values())
    assert json.loads(json.dumps(data)) == data


def test_the_terminal_shows_the_best_with_their_scores(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bottega.cli.main import main

    words = (
        f"bottega generate {model} --prompt The --num-beams 4 --num-return-sequences 2 --max-new-tokens 5 --threads 1"
    )
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", words.split())
        patch.setenv("COLUMNS", "200")
        main()
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    title = next(index for index, line in enumerate(lines) if line.startswith("The best 2 of 4 beams"))
    assert "score" in lines[title + 1]
    assert [line.split()[0] for line in lines[title + 2 : title + 4]] == ["1", "2"]


@pytest.mark.parametrize(
    ("settings", "both"),
    [
        ({"length_penalty": 2.0}, ("length_penalty", "num_beams")),
        ({"early_stopping": True}, ("early_stopping", "num_beams")),
        ({"num_beams": 2, "patience": 2.0}, ("patience", "early_stopping")),
        ({"num_beams": 4, "num_beam_groups": 3}, ("num_beam_groups", "num_beams")),
        ({"num_beams": 4, "num_beam_groups": 2}, ("num_beam_groups", "diversity_penalty")),
        ({"num_beams": 4, "diversity_penalty": 0.5}, ("num_beam_groups", "diversity_penalty")),
        ({"num_beams": 2, "num_return_sequences": 3}, ("num_return_sequences", "num_beams")),
        (
            {"num_beams": 4, "early_stopping": True, "patience": 0.5, "num_return_sequences": 3},
            ("num_return_sequences", "patience"),
        ),
        ({"num_beams": 2, "best_of": 2}, ("num_beams", "best_of")),
        ({"best_of": 2, "self_consistency": 2}, ("best_of", "self_consistency")),
        ({"num_beams": 2, "penalty_alpha": 0.5, "top_k": 4}, ("num_beams", "penalty_alpha")),
        ({"penalty_alpha": 0.5}, ("penalty_alpha", "top_k")),
        ({"penalty_alpha": 0.5, "top_k": 4, "dola_layers": "low"}, ("penalty_alpha", "dola_layers")),
        ({"guidance_scale": 2.0, "dola_layers": "low"}, ("guidance_scale", "dola_layers")),
        ({"negative_prompt": "x"}, ("negative_prompt", "guidance_scale")),
        ({"answer_pattern": "x"}, ("answer_pattern", "self_consistency")),
        ({"num_beams": 2, "top_p": 0.5}, ("num_beams", "top_p")),
        ({"num_beams": 2, "temperature": 0.5}, ("num_beams", "temperature")),
        ({"best_of": 2, "temperature": 0.0}, ("best_of", "temperature")),
        ({"best_of": 2, "trace": True}, ("best_of", "trace")),
        ({"num_beams": 2, "regex": "a"}, ("num_beams", "regex")),
        ({"dola_layers": "low", "speculate": "lookup"}, ("dola_layers", "speculate")),
        ({"guidance_scale": 2.0, "cache_dtype": "int8"}, ("guidance_scale", "cache_dtype")),
        ({"self_consistency": 2, "answer_pattern": "("}, ("answer_pattern", "regular expression")),
        ({"dola_layers": "0,x"}, ("dola_layers", "low")),
        ({"dola_layers": "4"}, ("dola_layers", "0 to 3")),
        ({"num_beams": 2, "length_penalty": math.nan}, ("length_penalty", "-10 to 10")),
    ],
)
def test_contradictions_are_refused_before_anything_is_loaded(
    model: Path, settings: dict[str, Any], both: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottega.generate.generator.Generator.load", pytest.fail)
    with pytest.raises(UserError) as refused:
        generate(model, **settings)
    assert all(name in str(refused.value) for name in both)
