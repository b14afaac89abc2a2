"""Rewards: each against values by hand, and against the ways in which a policy would cheat it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottega.clients.chat import Reply
from bottega.core.errors import BottegaError, UserError
from bottega.core.hashing import digest_tokenizer
from bottega.evaluate.judge.asking import Judge
from bottega.train.rewards import models
from bottega.train.rewards.answer import Answer
from bottega.train.rewards.config import RewardSettings, names_of
from bottega.train.rewards.extract import boxed, number_of
from bottega.train.rewards.models import conversation
from bottega.train.rewards.rewards import Rewards, check_rewards
from bottega.train.rewards.text import overlong
from chat_server import Refuse, chat_server
from conftest import Workshop


def reward(
    text: str, row: Mapping[str, Any] | None = None, *, finished: bool = True, tokens: int = 0, **how: Any
) -> float:
    settings = RewardSettings.parse(how)
    answer = Answer(text, row or {}, finished, (), range(tokens))
    return Rewards([settings], allow_code=True)([answer]).total[0]


GSM8K = {"question": "How many?", "answer": "There are 6 * 12 = 72 of them.\n#### 72"}


@pytest.mark.parametrize(
    ("text", "row", "how", "wanted"),
    [
        ("so it is 72\n#### 72", GSM8K, {"extract": "gsm8k"}, 1),
        ("#### 72", GSM8K, {"extract": "#### (.*)"}, 1),
        ("#### $72.00", GSM8K, {"extract": "gsm8k"}, 1),
        ("#### 72.", GSM8K, {"extract": "gsm8k"}, 1),
        ("#### -72", GSM8K, {"extract": "gsm8k"}, 0),
        ("#### 172", GSM8K, {"extract": "gsm8k"}, 0),
        ("72", GSM8K, {"extract": "gsm8k"}, 0),  # not said in the form that was asked for
        ("#### 72 or 73", GSM8K, {"extract": "gsm8k"}, 0),
        ("#### 72\n#### 73", GSM8K, {"extract": "gsm8k"}, 0),  # who lists everything has said the last
        ("#### 73\n#### 72", GSM8K, {"extract": "gsm8k"}, 1),
        ("####", GSM8K, {"extract": "gsm8k"}, 0),
        ("", {"answer": ""}, {}, 0),  # nothing is no answer
        ("1,234", {"answer": 1234}, {}, 1),
        ("1,23", {"answer": 123}, {}, 0),
        ("0.5", {"answer": "1/2"}, {}, 1),
        ("0.3333", {"answer": "1/3"}, {}, 0),
        ("1.0", {"answer": "1"}, {"numbers": False}, 0),
        ("  New\n york. ", {"answer": "New York"}, {}, 1),
        ("new york", {"answer": "New York"}, {"ignore_case": False}, 0),
        ("in New York", {"answer": "New York"}, {}, 0),
        ("b", {"answer": ["a", "b"]}, {}, 1),
        ("<answer> 7 </answer>", {"right": "7"}, {"field": "right", "extract": "answer_tag"}, 1),
        ("<answer>" * 20_000 + "7</answer>", {"right": "7"}, {"field": "right", "extract": "answer_tag"}, 1),
        (r"thus \boxed{\frac{1}{2}}.", {"answer": r"\boxed{\frac{1}{2}}"}, {"extract": "boxed"}, 1),
        ("first 3, then 8 in all.", {"answer": 8}, {"extract": "last_number"}, 1),
        ("it costs 1,008.50 euros", {"answer": "1008.5"}, {"extract": "last_number"}, 1),
    ],
)  # fmt: skip
def test_exact(text: str, row: dict[str, Any], how: dict[str, Any], wanted: float) -> None:
    assert reward(text, row, type="exact", **how) == wanted


@given(st.fractions(max_denominator=1000), st.sampled_from(["", "$", "€"]), st.sampled_from(["", "%", "."]))
def test_numbers_are_exact(value: Any, before: str, behind: str) -> None:
    sign, size = ("-" if value < 0 else ""), abs(value)
    assert number_of(f"{sign}{before}{size}{behind}") == value
    assert number_of(f" {value.numerator:,} ") == value.numerator


@pytest.mark.parametrize("text", ["", ".", "-", "one", "1 2", "1,23,4", "1/0", "0x10", "1e5", "٣", "9" * 500, "--1"])
def test_what_is_no_number(text: str) -> None:
    assert number_of(text) is None


def test_boxes_are_balanced() -> None:
    assert boxed(r"\boxed{1} and \boxed{{a}{b{c}}} end") == "{a}{b{c}}"
    assert boxed(r"\boxed{1} and \boxed{2") is None and boxed("none") is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<think>hm</think>\n<answer>4</answer>", 1),
        (" <think>hm</think><answer>4</answer>\n", 1),
        ("<think>hm</think><answer> </answer>", 0),
        ("<think>hm</think>so<answer>4</answer>", 0),
        ("<think>hm</think><answer>4</answer> bye", 0),
        ("<answer>4</answer><think>hm</think>", 0),
        ("<think>a</think><answer>4</answer><think>b</think><answer>5</answer>", 0),
        ("<think>a<think>b</think><answer>5</answer>", 0),
        ("<think>a</think><answer>4", 0),
    ],
)
def test_tags(text: str, wanted: float) -> None:
    assert reward(text, type="format", tags=["think", "answer"]) == wanted


def test_pattern_matches_the_whole() -> None:
    assert reward("a: 12\nb", type="format", pattern=r"a: \d+.*") == 1
    assert reward("so a: 12", type="format", pattern=r"a: \d+") == 0
    assert reward("a: 12.", type="format", pattern=r"a: \d+") == 0


def test_contains() -> None:
    wanted = ["river", "stone", "moon", "moon"]
    assert reward("The River and the stone", type="contains", texts=wanted) == pytest.approx(2 / 3)
    assert reward("rivers", type="contains", texts="river") == 0
    assert reward("a\nb", {"answer": ["a b"]}, type="contains") == 1
    assert reward("River", type="contains", texts="river", ignore_case=False) == 0
    with pytest.raises(UserError, match="no text"):
        reward("x", {"answer": []}, type="contains")


def test_overlong_is_dapos() -> None:
    """Equation 13 at its corners; between them it is linear."""
    assert [overlong(n, 20, 4) for n in (0, 16, 17, 18, 20, 21, 99)] == [0, 0, -0.25, -0.5, -1, -1, -1]
    assert [overlong(n, 20, 0) for n in (19, 20, 21)] == [0, 0, -1]
    assert reward("", type="length", max=20, buffer=4, tokens=18, finished=False) == -0.5


def test_length_to_a_target() -> None:
    assert [reward("", type="length", target=10, tokens=n) for n in (10, 5, 15, 20, 40)] == [1, 0.5, 0.5, 0, 0]
    assert reward("one two three", type="length", target=4, tolerance=2, unit="words") == 0.5
    assert reward("abcd", type="length", target=4, unit="characters") == 1


def test_json() -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    assert reward('{"n": 1}', type="json") == 1
    assert reward('{"n": 1} or so', type="json") == 0
    assert reward('{"n": "1"}', type="json", json_schema=schema) == 0
    assert reward('{"n": 1}', type="json", json_schema=schema) == 1
    fenced = 'Here:\n```json\n{"n": 1}\n```\n'
    assert reward(fenced, {"schema": schema}, type="json", field="schema", extract="code") == 1
    assert reward(fenced, {"schema": {"type": "array"}}, type="json", field="schema", extract="code") == 0
    assert reward("", type="json") == 0


PROGRAM = "Here it is:\n```python\ndef double(x):\n    return {}\n```\n"
TESTS = ["assert double(2) == 4", "assert double(3) == 6"]


@pytest.mark.parametrize(
    ("text", "how", "wanted"),
    [
        (PROGRAM.format("2 * x"), {}, 1),
        (PROGRAM.format("4"), {}, 0),
        (PROGRAM.format("4"), {"partial": True}, 0.5),
        (PROGRAM.format("2 * x").replace("```", ""), {}, 0),  # no block of code
        ("```\nimport sys\nsys.exit(0)\n```", {}, 0),
        ("```\nimport os\nos._exit(0)\n```", {}, 0),
        ("```\nwhile True: pass\n```", {"timeout": 0.5}, 0),
        ("```\nraise SystemExit\n```", {"partial": True}, 0),
    ],
)  # fmt: skip
def test_unit_tests(text: str, how: dict[str, Any], wanted: float) -> None:
    assert reward(text, {"tests": TESTS}, type="tests", **how) == wanted


def test_a_program_without_tests_is_an_error() -> None:
    with pytest.raises(UserError, match="no tests"):
        reward(PROGRAM, {"tests": "  "}, type="tests")


def test_own_function(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def reward(text, row, finished):\n    return len(text) * row['k']\n\n"
        "def bad(text, row, finished):\n    return float('nan')\n\n"
        "def worse(text, row, finished):\n    return row['absent']\n"
    )
    assert reward("abc", {"k": 2}, type="python", path=str(file)) == 6
    for name, said in (("bad", "nan"), ("worse", "KeyError"), ("rewarb", "Did you mean")):
        with pytest.raises(UserError, match=said):
            reward("abc", {"k": 2}, type="python", path=str(file), function=name)
    settings = [RewardSettings(type="python", path=str(file))]
    with pytest.raises(UserError, match="allow_code"):
        Rewards(settings)
    assert not check_rewards(settings, [], allow_code=False)[0].passed


def test_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTTEGA_WORKSPACE", str(tmp_path))
    replies = {"good": "Well.\nRating: [[10]]", "poor": "Rating: [[1]]", "odd": "no idea", "fair": "Rating: [[5.5]]"}

    def answer(body: dict[str, Any]) -> str:
        said = body["messages"][-1]["content"]
        return next(reply for word, reply in replies.items() if f"<assistant>\n{word}\n" in said)

    with chat_server(answer) as server:
        rewards = Rewards([RewardSettings(type="judge", path=server.url, field="answer")])
        rows = [{"prompt": "What is it?", "answer": "this"}] * 5
        answers = [Answer(text, row) for text, row in zip(("good", "poor", "odd", "fair", "good"), rows, strict=True)]
        assert rewards(answers).total == [1, 0, 0, 0.5, 1]
        assert len(server.requests) == 4, "equal answers are judged once"
        said = server.requests[0][1]["messages"][-1]["content"]
        assert "What is it?" in said and "this" in said
        assert rewards(answers).total == [1, 0, 0, 0.5, 1] and len(server.requests) == 4, "judged again"


def test_a_local_judge_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTTEGA_WORKSPACE", str(tmp_path))
    monkeypatch.setattr(models, "judge_of", lambda _: Judge("judge", "identity", {}))
    made: list[object] = []
    monkeypatch.setattr(models, "judge_generator", lambda config: made.append(config) or config)

    def says(_: object, conversations: list[Any], __: object) -> Iterator[tuple[int, Reply]]:
        return ((place, Reply("Rating: [[4]]", "stop", 1, 1)) for place in range(len(conversations)))

    monkeypatch.setattr(models, "ask_generator", says)
    rewards = Rewards([RewardSettings(type="judge", path=str(tmp_path))])
    for text in ("one", "two", "two"):
        assert rewards([Answer(text, {"prompt": "?"})]).total == [pytest.approx(1 / 3)]
    assert len(made) == 1


def test_a_silent_judge_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTTEGA_WORKSPACE", str(tmp_path))

    def refuses(_: dict[str, Any]) -> str:
        raise Refuse(400)

    with chat_server(refuses) as server:
        rewards = Rewards([RewardSettings(type="judge", path=server.url)])
        with pytest.raises(BottegaError, match="answered none"):
            rewards([Answer("a", {"prompt": "?"})])


def test_reward_model(tmp_path: Path, workshop: Workshop) -> None:
    """Scores of prompt and answer, as transformers computes them of the same folder; also of what was cut off.

    Behind an answer that has ended stands what the chat template writes there, as in training.
    """
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=1024, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_labels=1, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    oracle = transformers.LlamaForSequenceClassification(config).eval()
    oracle.save_pretrained(tmp_path / "model")
    for file in workshop.tokenizer.iterdir():
        if file.name.startswith(("tokenizer", "special", "chat")):
            (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    chat = theirs.apply_chat_template([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    chat = list(chat if isinstance(chat, list) else chat["input_ids"])
    behind = chat[len(chat) - chat[::-1].index(theirs.eos_token_id) :]
    rewards = Rewards([RewardSettings(type="model", path=str(tmp_path / "model"), weight=0.5)])
    texts = [([5, 6, 7], [8, 9]), ([5, 6], [11]), ([20], [30, 31, 32, 33])]
    answers = [Answer("", {}, at != 1, prompt, completion) for at, (prompt, completion) in enumerate(texts)]
    with torch.no_grad():
        ids = [[*prompt, *completion, *(behind if at != 1 else [])] for at, (prompt, completion) in enumerate(texts)]
        wanted = [float(oracle(torch.tensor([each])).logits) for each in ids]
    assert rewards(answers).components["model"] == pytest.approx(wanted, abs=1e-5)
    assert rewards(answers).total == pytest.approx([score / 2 for score in wanted], abs=1e-5)


def test_a_reward_model_of_other_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}, "padding": 1}')
    settings = [RewardSettings(type="model", path=str(tmp_path))]
    same, other = (digest_tokenizer({"model": {"vocab": {letter: 0}}}) for letter in "ab")
    found = [check_rewards(settings, [], allow_code=False, tokenizer_hash=own)[0] for own in (same, other, "")]
    assert [check.passed for check in found] == [True, False, True] and "tokenizer" in found[1].detail


def test_judge_sees_the_whole_conversation() -> None:
    messages = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user")]
    shown = conversation(Answer("mine", {"messages": messages, "right": "yours"}), "right")
    assert shown.system == "s" and [(turn.question, turn.answer) for turn in shown.turns] == [("u", "a"), ("u", "mine")]
    assert shown.references == ("", "yours")
    assert conversation(Answer("mine", {"instruction": "do"}), None).turns[0].question == "do"
    roles = ("assistant", "user", "user", "assistant", "assistant", "user")
    uneven = {"messages": [{"role": role, "content": f"{role[0]}{at}"} for at, role in enumerate(roles)]}
    turns = conversation(Answer("mine", uneven), None).turns
    assert [(turn.question, turn.answer) for turn in turns] == [("u1\n\nu2", "a3\n\na4"), ("u5", "mine")]
    with pytest.raises(UserError, match="what was asked"):
        conversation(Answer("mine", {"label": "?"}), None)


def test_cut_off_answers_earn_nothing_unless_asked() -> None:
    row = {"answer": "a"}
    assert reward("a", row, type="exact", finished=False) == 0
    assert reward("a", row, type="exact", finished=False, unfinished="score") == 1
    assert reward("a", row, type="exact", finished=False, unfinished=-1) == -1
    assert reward("abc", row, type="exact", unfinished=-1) == 0


def test_components_are_weighed_and_told_apart() -> None:
    rewards = Rewards([
        RewardSettings(type="exact", weight=2.0),
        RewardSettings(type="length", target=4, unit="characters", weight=-0.5, name="near"),
    ])  # fmt: skip
    told = (("abcd", True), ("ab", True), ("abcd", False))
    answers = [Answer(text, {"answer": "abcd"}, finished) for text, finished in told]
    scores = rewards(answers)
    assert scores.components == {"exact": [1, 0, 0], "near": [1, 0.5, 1]}
    assert scores.total == [1.5, -0.25, -0.5]
    figures = scores.figures()
    assert figures["reward"] == pytest.approx(0.25) and figures["reward/near"] == pytest.approx(2.5 / 3)
    assert figures["reward_std"] == pytest.approx(statistics.pstdev([1.5, -0.25, -0.5]))
    assert set(figures) == {f"reward{part}{end}" for part in ("", "/exact", "/near") for end in ("", "_std")}
    assert rewards([]).total == [] and rewards([]).figures() == {}


def test_names() -> None:
    two = tuple(RewardSettings(type="exact", name=name) for name in (None, "exact", None))
    assert names_of(two) == ["exact2", "exact", "exact3"]
    with pytest.raises(ValueError, match="called"):
        names_of((two[1], two[1]))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"type": "exakt"}, "type"),
        ({"type": "exact", "pattern": "a"}, "'pattern' is no setting of exact"),
        ({"type": "exact", "extract": "("}, "regular expression"),
        ({"type": "exact", "extract": "(a)(b)"}, "2 groups"),
        ({"type": "format"}, "pattern or tags"),
        ({"type": "format", "pattern": "a", "tags": ["b"]}, "not both"),
        ({"type": "length", "max": 4, "buffer": 4}, "below max"),
        ({"type": "model"}, "path"),
        ({"type": "exact", "weight": math.inf}, "weight"),
        ({"type": "exact", "name": "a b"}, "name"),
    ],
)
def test_wrong_settings_are_refused(how: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        RewardSettings.parse(how)


def test_checks_before_the_run(tmp_path: Path) -> None:
    settings = [RewardSettings(type="exact"), RewardSettings(type="model", path=str(tmp_path / "none"))]
    checks = check_rewards(settings, [{"answer": "1"}, {"question": "?"}], allow_code=False)
    assert [check.passed for check in checks] == [False, False]
    assert "1 of 2" in checks[0].detail and "none" in checks[1].detail
    assert check_rewards(settings[:1], [{"answer": "1"}], allow_code=False)[0].passed
    with pytest.raises(UserError, match="no field 'answer'"):
        reward("x", {"question": "?"}, type="exact")
    with pytest.raises(UserError, match="no reward"):
        Rewards([])
    assert json.loads(json.dumps(settings[0].as_data()))["type"] == "exact"
    assert issubclass(UserError, BottegaError)
