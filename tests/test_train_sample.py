"""The verb `sample`: what it keeps, that it goes on where it was killed, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bottega import verbs
from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.core.view import Bars, Chart, Table
from bottega.data.formats.detect import examples_of
from bottega.data.formats.kinds import Conversation, Pair, Prompt
from bottega.tokenizer.files import write_tokenizer
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train.rewards.answer import Answer
from bottega.train.rewards.rewards import Rewards
from bottega.train.sample.config import SampleAnswers, parse_keep
from bottega.train.sample.figures import figures, sample_report
from bottega.train.sample.prompts import encode, prompts_of
from bottega.train.sample.samples import Sample, SampleFile, chosen, pair_row, pairs, sft_row
from bottega.train.sample.verb import plan_sample
from conftest import Workshop

transformers = pytest.importorskip("transformers")
ASKED = "Where is the river?"


def sample(text: str, score: float, *, prompt: int = 0, at: int = 0, finished: bool = True) -> Sample:
    return Sample(prompt, at, text, finished, len(text), -1.0, score, {"exact": score})


GROUP = [sample("a", 0.0, at=0), sample("b", 1.0, at=1), sample("c", 1.0, at=2), sample("b", 1.0, at=3),
         sample("d", 2.0, at=4, finished=False), sample("e", 0.5, at=5), sample(" ", 3.0, at=6)]  # fmt: skip
SAME = [sample("x", 1.0, prompt=1, at=0), sample("y", 1.0, prompt=1, at=1)]


def test_what_is_kept() -> None:
    assert [each.text for each in chosen([GROUP, SAME], "best", None)] == ["b", "x"]
    assert [each.text for each in chosen([GROUP, SAME], "best", 1.5)] == []
    assert [each.text for each in chosen([GROUP], "above", 0.5)] == ["b", "c", "e"]
    assert [each.text for each in chosen([GROUP], "all", None)] == ["a", "b", "c", "e"]
    assert [(one.text, other.text) for one, other in pairs([GROUP, SAME], 0.0)] == [("b", "a")]
    assert list(pairs([GROUP], 1.1)) == [] and len(list(pairs([GROUP], 1.0))) == 1


def test_rows_to_train_on() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": ASKED}]
    prompt, text = Prompt(messages, {}), Prompt(ASKED, {})
    best, worst = GROUP[1], GROUP[0]
    answer = {"role": "assistant", "content": "b"}
    assert sft_row(prompt, best, plain=False) == {"messages": [*messages, answer]}
    assert sft_row(text, best, plain=True) == {"prompt": ASKED, "completion": "b"}
    scores = {"score_chosen": 1.0, "score_rejected": 0.0}
    assert pair_row(text, best, worst, plain=True) == {"prompt": ASKED, "chosen": "b", "rejected": "a", **scores}
    pair = pair_row(text, best, worst, plain=False)
    assert pair["prompt"] == messages[1:] and pair["chosen"] == [answer] and pair["rejected"][0]["content"] == "a"


def test_figures_are_counted() -> None:
    """By hand: three of eight answers pass, at most two to a prompt."""
    scores = [[1, 0, 1, 0], [0, 0, 0, 0]]
    groups = [[sample(str(at), score, prompt=p, at=at) for at, score in enumerate(row)] for p, row in enumerate(scores)]
    data = figures(groups, 1.0)
    assert data["pass"] == {"1": pytest.approx(0.25), "2": pytest.approx((1 - 1 / 6) / 2), "4": 0.5}
    assert data["reward"]["mean"] == 0.25 and data["reward"]["best_of_n"] == 0.5 and data["zero_variance"] == 0.5
    assert data["scores"] == {"0": 6, "1": 2}
    many = [[sample(str(at), float(at), at=at) for at in range(40)]]
    spread = figures(many, None)
    assert spread["pass"] == {} and sum(spread["scores"].values()) == 40 and set(spread["scores"].values()) == {4}


def test_an_interrupted_file_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    file = SampleFile(path, 2)
    file.add(SAME)
    file.close()
    whole = path.read_bytes()
    half = json.dumps({**json.loads(whole.splitlines()[0]), "prompt": 7}).encode()
    path.write_bytes(whole + half + b"\n" + half[:30])
    again = SampleFile(path, 2)
    again.close()
    assert list(again.samples) == [1] and again.samples[1] == SAME and path.read_bytes() == whole


@pytest.fixture(scope="module")
def model(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny chat model, which says its stop token now and then."""
    folder = tmp_path_factory.mktemp("models") / "random"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=384, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    decoder = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        decoder.model.embed_tokens.weight[sorted(Tokenizer.load(workshop.tokenizer).stop_ids)] *= 1.7
    decoder.save_pretrained(folder)
    write_tokenizer(workshop.tokenizer, folder)
    return folder


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Any]:
    """Settings of a run over five prompts."""
    rows = [{"question": f"{ASKED} {number}", "answer": "here"} for number in range(5)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "data": tmp_path / "prompts.jsonl", "n": 4, "max_new_tokens": 60, "max_batch": 16, "seed": 3, "threads": 1,
        "reward": [{"type": "length", "target": 80, "unit": "characters"}, {"type": "exact", "weight": 2.0}],
    }  # fmt: skip


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_best_are_kept(model: Path, asked: dict[str, Any], tmp_path: Path) -> None:
    data = verbs.sample(model=str(model), out=tmp_path / "out", **asked)
    samples = rows_of(tmp_path / "out" / "samples.jsonl")
    assert [(row["prompt"], row["sample"]) for row in samples] == [(p, s) for p in range(5) for s in range(4)]
    kept = {row["messages"][0]["content"]: row["messages"][1] for row in rows_of(tmp_path / "out" / "data.jsonl")}
    assert 2 < len(kept) == data["kept"] <= 5 and 0.2 < data["finished"] < 1
    for number in range(5):
        own = [row for row in samples if row["prompt"] == number and row["finished"] and row["text"].strip()]
        best = max(own, key=lambda row: row["score"], default=None)
        said = kept.get(f"{ASKED} {number}")
        assert said == (None if best is None else {"role": "assistant", "content": best["text"]})
    for row in samples:
        length = max(0.0, 1 - abs(len(row["text"]) - 80) / 80)
        assert row["rewards"] == {"length": pytest.approx(length), "exact": 0} and row["score"] == pytest.approx(length)
    assert data["reward"]["mean"] == pytest.approx(sum(row["score"] for row in samples) / 20)
    blocks = sample_report(tmp_path / "out")
    assert [type(block) for block in blocks] == [Table, Bars, Chart]
    assert "pass@4" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert (tmp_path / "out" / "record.json").is_file()


def test_pairs_differ(model: Path, asked: dict[str, Any], tmp_path: Path) -> None:
    data = verbs.sample(model=str(model), out=tmp_path / "out", keep="pairs", gap=0.01, **{**asked, "n": 8})
    rows = rows_of(tmp_path / "out" / "data.jsonl")
    assert len(rows) == data["kept"] > 0
    for row in rows:
        assert row["score_chosen"] - row["score_rejected"] >= 0.01
        assert row["chosen"][0]["content"] != row["rejected"][0]["content"]
        assert row["prompt"][0]["content"].startswith(ASKED)


def test_a_killed_run_goes_on(
    model: Path, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends as if it had not been: the answers that come later are the same, and none is scored twice."""
    asked |= {"max_batch": 1, "max_new_tokens": 24}
    verbs.sample(model=str(model), out=tmp_path / "whole", **asked)
    scored: list[int] = []
    score = Rewards.__call__

    def dies(self: Rewards, answers: Sequence[Answer]) -> Any:
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(len(answers))
        return score(self, answers)

    monkeypatch.setattr(Rewards, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        verbs.sample(model=str(model), out=tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()
    scored.append(0)  # it lives on
    verbs.sample(model=str(model), out=tmp_path / "out", **asked)
    assert scored == [4, 4, 0, 4, 4, 4]
    for name in ("samples.jsonl", "data.jsonl", "sample.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_plain_prompts(model: Path, asked: dict[str, Any], tmp_path: Path) -> None:
    verbs.sample(model=str(model), out=tmp_path / "out", plain=True, keep="all", limit=2, **asked)
    assert len(rows_of(tmp_path / "out" / "samples.jsonl")) == 8
    assert all(set(row) == {"prompt", "completion"} for row in rows_of(tmp_path / "out" / "data.jsonl"))
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "?"}]}))
    settings = {**asked, "reward": asked["reward"][:1]}
    with pytest.raises(UserError, match="plain text"):
        verbs.sample(model=str(model), out=tmp_path / "none", plain=True, **settings)


def test_what_is_refused_before_the_run(model: Path, asked: dict[str, Any], tmp_path: Path) -> None:
    def failed(**changes: Any) -> str:
        config = SampleAnswers.parse({"model": str(model), "out": tmp_path / "out", **asked, **changes})
        return " ".join(check.detail for check in plan_sample(config, Specs()).checks if not check.passed)

    assert failed() == ""
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    (bare / "chat_template.jinja").unlink()
    settings = json.loads((bare / "tokenizer_config.json").read_text())
    (bare / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": None}))
    assert "--plain" in failed(model=str(bare)) and failed(model=str(bare), plain=True) == ""
    assert "no field 'right'" in failed(reward=[{"type": "exact", "field": "right"}])
    assert "allow_code" in failed(reward=[{"type": "python", "path": "x.py"}])
    assert "there is no" in failed(reward_model=str(tmp_path / "absent"))
    empty = tmp_path / "empty.jsonl"
    for content in ("\n", '{"label": 1}'):
        empty.write_text(content)
        with pytest.raises(UserError, match="no prompts"):
            failed(data=empty)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reward": []}, "give --reward"),
        ({"keep": "above"}, "above:SCORE"),
        ({"keep": "pairs:1"}, "above:SCORE"),
        ({"keep": "pairs", "n": 1}, "raise n"),
        ({"gap": 0.5}, "gap is for"),
        ({"temperature": 0.0}, "all answers are the same"),
        ({"judge_model": "m"}, "--judge"),
        ({"reward": [{"type": "exact", "name": "a"}, {"type": "json", "name": "a"}]}, "two rewards"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], said: str) -> None:
    given = {"model": "m", "data": "d", "out": "o", "reward": [{"type": "exact"}]}
    with pytest.raises(UserError, match=said):
        SampleAnswers.parse({**given, **changes})


def test_what_passes() -> None:
    def least(**changes: Any) -> float | None:
        return SampleAnswers.parse({"model": "m", "data": "d", "out": "o", **changes}).pass_score

    exact = {"type": "exact", "weight": 2.0}
    assert least(reward=[exact, {"type": "length", "max": 9}, {"type": "json", "weight": -1.0}]) == 2
    assert least(reward=[exact], keep="above:0.5") == 0.5 and least(reward=[exact], passes=0.1) == 0.1
    tenths = [{"type": "exact", "weight": 0.1, "name": name} for name in "abc"]
    assert least(reward=tenths) == math.fsum([0.1] * 3)  # as an answer that has all three earns them
    assert least(reward_model="r") is None and least(judge="http://127.0.0.1:1") == 1
    assert parse_keep("best:-0.5") == ("best", -0.5)


def test_prompts(tmp_path: Path, model: Path) -> None:
    """What is none is counted; tokens are those of the chat template, by transformers."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    rows = [
        {"prompt": ASKED},
        {"label": "?"},
        {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "b"}]},
        {"question": ASKED, "answer": "b", "tools": tools},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts, skipped = prompts_of(tmp_path / "p.jsonl")
    assert [each.row for each in prompts] == [rows[0], *rows[2:]] and sum(skipped.counts.values()) == 1
    assert prompts_of(tmp_path / "p.jsonl", 2)[0] == prompts[:2]
    oracle = transformers.AutoTokenizer.from_pretrained(model)
    text = oracle.apply_chat_template([{"role": "user", "content": ASKED}], add_generation_prompt=True, tokenize=False)
    ids = oracle(text, add_special_tokens=False)["input_ids"]
    assert encode(Tokenizer.load(model), prompts[:2], plain=False) == [ids, ids]
    assert sft_row(prompts[2], GROUP[1], plain=False)["tools"] == tools


def test_rows_are_read_by_training(asked: dict[str, Any]) -> None:
    """Nothing that `sample` writes is lost on those who read it."""
    prompt = prompts_of(asked["data"])[0][0]
    _, (kept,) = examples_of(sft_row(prompt, GROUP[1], plain=False), "chat")
    assert isinstance(kept, Conversation) and [each["content"] for each in kept.messages] == [f"{ASKED} 0", "b"]
    for plain in (False, True):
        _, (pair,) = examples_of(pair_row(prompt, GROUP[1], GROUP[0], plain=plain), "pairs")
        assert isinstance(pair, Pair) and pair.scores == (1.0, 0.0)
        said = [pair.prompt, pair.chosen, pair.rejected]
        texts = [each if isinstance(each, str) else each[-1]["content"] for each in said]
        assert texts == [f"{ASKED} 0", "b", "a"]
