"""`bottega judge` against scripted judges behind a real server: what is wrong with a judge is found out."""

from __future__ import annotations

import io
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bottega import verbs
from bottega.cli.render import show
from bottega.core.errors import BottegaError, UserError
from bottega.evaluate.arena.votes import read_votes
from bottega.evaluate.items import Item, items_text
from bottega.evaluate.judge.view import judge_blocks, judge_report
from chat_server import ChatServer, Refuse, chat_server
from test_serve_api import make_model

QUESTIONS = 60
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTTEGA_WORKSPACE", str(tmp_path / "workspace"))


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(folder: Path, **strength: float) -> list[Path]:
    """A file for each model; an answer tells its quality, and its length has nothing to do with that."""
    draw, paths = random.Random(7), []
    for model, level in strength.items():
        rows = [
            {
                "id": f"q{number}",
                "model": model,
                "category": "math" if number % 3 == 0 else "writing",
                "prompt": f"Question {number}?",
                "answer": f"quality={draw.gauss(level, 1.0):.3f} {'word ' * draw.randint(1, 120)}",
            }
            for number in range(QUESTIONS)
        ]
        paths.append(write(folder / f"{model}.jsonl", rows))
    return paths


def shown_answers(body: dict[str, Any]) -> list[str]:
    """The last answer of each conversation in a prompt of ours."""
    text = body["messages"][-1]["content"]
    conversations = re.findall(r"<conversation\w*>\n(.*?)\n</conversation", text, re.DOTALL)
    return [re.findall(r"<assistant>\n(.*?)\n</assistant>", each, re.DOTALL)[-1] for each in conversations]


def quality(answer: str) -> float:
    return float(answer.partition("quality=")[2].split()[0])


def better(first: float, second: float) -> str:
    return "Because. [[A]]" if first > second else "Because. [[B]]" if second > first else "[[C]]"


def fair(body: dict[str, Any]) -> str:
    first, second = map(quality, shown_answers(body))
    return better(first, second)


def loves_length(body: dict[str, Any]) -> str:
    first, second = map(len, shown_answers(body))
    return better(first, second)


def grade(body: dict[str, Any]) -> str:
    return f"Rating: [[{min(10, max(1, round(5 + quality(shown_answers(body)[0]))))}]]"


def judge(server: ChatServer, paths: list[Path], **settings: Any) -> dict[str, Any]:
    return verbs.judge(answers=[str(path) for path in paths], judge=server.url, **settings)


def shown(data: dict[str, Any]) -> str:
    written = io.StringIO()
    show(judge_blocks(data), Console(width=240, file=written))
    return written.getvalue()


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return answers(tmp_path, strong=1.0, weak=0.0)


def test_a_judge_that_always_says_a_is_found_out(two: list[Path]) -> None:
    with chat_server(lambda body: "[[A]]") as server:
        data = judge(server, two, mode="pairwise")
    match, position = data["matches"][0], data["position"]
    assert len(server.requests) == data["calls"]["total"] == 2 * QUESTIONS
    assert match["ties"] == QUESTIONS and match["wins"] == match["losses"] == 0 and not match["shown"]
    assert position["bias"]["value"] == 1 and position["bias"]["low"] > 0.8
    assert position["consistent"]["value"] == 0 and position["favours_first"]["value"] == 1
    assert position["kappa"]["value"] <= 0 and data["models"][0]["points"]["value"] == 0.5
    assert "prefers what is shown first" in shown(data) and "no difference shown" in shown(data)


def test_a_judge_that_loves_length_is_found_out(two: list[Path]) -> None:
    with chat_server(loves_length) as server:
        data = judge(server, two, mode="pairwise")
    assert data["style"]["length"]["value"] > data["style"]["length"]["low"] > 0
    assert data["position"]["consistent"]["value"] == 1 and abs(data["position"]["bias"]["value"]) == 0
    assert "It prefers the longer answer." in shown(data)


def test_a_fair_judge_is_not_accused(two: list[Path], tmp_path: Path) -> None:
    with chat_server(fair) as server:
        data = judge(server, two, mode="pairwise", out=str(tmp_path / "out"))
    length, match = data["style"]["length"], data["matches"][0]
    assert length["low"] < 0 < length["high"] and data["position"]["bias"]["low"] < 0 < data["position"]["bias"]["high"]
    assert data["models"][0]["model"] == "strong" and match["shown"] and match["wins"] > match["losses"]
    assert set(data["models"][0]["categories"]) == {"math", "writing"} and data["own"] is None
    assert "No bias of the judge is shown" in shown(data)
    out = tmp_path / "out"
    assert json.loads((out / "judge.json").read_text()) == data
    assert [type(block) for block in judge_report(out)] == [type(block) for block in judge_blocks(data)]
    votes = read_votes([out / "votes.jsonl"])
    assert len(votes) == QUESTIONS and {vote.judge for vote in votes} == {"judge"}
    assert sum(vote.winner == "a" for vote in votes) == match["wins"] and {vote.order for vote in votes} == {"ab", "ba"}
    rated = verbs.arena(votes=[str(out / "votes.jsonl")], resamples=100)
    assert rated["models"][0]["model"] == "strong" and votes[0].prompt == "Question 0?"
    assert "Who beat whom" in (out / "report.html").read_text()
    assert len((out / "judgements.jsonl").read_text().splitlines()) == 2 * QUESTIONS


def test_many_models_and_a_baseline(tmp_path: Path) -> None:
    paths = answers(tmp_path, a=0.0, b=1.0, c=2.0)
    with chat_server(fair) as server:
        every = judge(server, paths, mode="pairwise", limit=20)
        first = len(server.requests)
        against = judge(server, paths, mode="pairwise", limit=20, baseline="a")
    assert first == len(server.requests) == 3 * 20 * 2 and against["calls"] | {"asked": 0} == against["calls"]
    assert [row["model"] for row in every["models"]] == ["c", "b", "a"] and len(every["matches"]) == 3
    assert [(row["first"], row["second"]) for row in against["matches"]] == [("b", "a"), ("c", "a")]
    assert every["models"][0]["points"]["count"] == 20


def test_scores_with_their_intervals(two: list[Path]) -> None:
    with chat_server(grade) as server:
        data = judge(server, two)
    strong, weak = data["models"]
    assert strong["model"] == "strong" and strong["score"]["low"] < strong["score"]["value"] < strong["score"]["high"]
    assert strong["score"]["count"] == QUESTIONS and strong["without_score"] == 0
    difference = data["differences"][0]
    assert difference["shown"] and difference["difference"]["low"] > 0
    expected = strong["score"]["value"] - weak["score"]["value"]
    assert difference["difference"]["value"] == pytest.approx(expected)
    assert data["length_correlation"]["low"] < 0 < data["length_correlation"]["high"]
    with chat_server(lambda body: f"[[{min(10, 1 + len(shown_answers(body)[0]) // 60)}]]") as server:
        biased = judge(server, two)
    assert biased["length_correlation"]["low"] > 0.5 and biased["style"]["length"]["low"] > 0
    assert "Longer answers of a model get higher scores" in shown(biased)
    same = answers(two[0].parent, x=0.0, y=0.0)
    with chat_server(grade) as server:
        data = judge(server, same)
    assert not data["differences"][0]["shown"] and "no difference shown" in shown(data)


def test_what_cannot_be_read_is_counted_and_no_score(two: list[Path]) -> None:
    said = ["[[11]]", "no idea", "[[3]] or [[4]]", "<think>[[9]]", "", "[[7]]", "[8]"]

    def answer(body: dict[str, Any]) -> str:
        number = int(body["messages"][-1]["content"].partition("Question ")[2].partition("?")[0])
        if number == 7:
            raise Refuse(400, {"error": {"message": "too long"}})
        return said[number] if number < 7 else "[[5]]"

    with chat_server(answer) as server:
        data = judge(server, two)
    calls = data["calls"]
    assert (calls["failed"], calls["unusable"], calls["total"]) == (2, 10, 2 * QUESTIONS)
    assert data["models"][0]["score"]["count"] == QUESTIONS - 6 and data["models"][0]["without_score"] == 6
    assert data["models"][0]["score"]["value"] == pytest.approx((7 + 8 + 5 * (QUESTIONS - 8)) / (QUESTIONS - 6))
    assert list(data["failures"].values()) == [2] and "too long" in shown(data)


def test_a_judge_that_is_never_understood_gives_no_number(two: list[Path]) -> None:
    for mode in ("single", "pairwise"):
        with chat_server(lambda body: "hm") as server:
            data = judge(server, two, mode=mode)
        assert data["calls"]["unusable"] == 2 * QUESTIONS
        assert "none" in shown(data) and "nan" not in shown(data) and data["style"]["length"] is None
    with (
        chat_server(lambda body: (_ for _ in ()).throw(Refuse(400))) as server,
        pytest.raises(BottegaError, match="none of"),
    ):
        judge(server, two)


def test_retries_lead_to_the_same(two: list[Path]) -> None:
    refused: set[str] = set()

    def sometimes(body: dict[str, Any]) -> str:
        key = json.dumps(body["messages"])
        if len(refused) < 5 and key not in refused:
            refused.add(key)
            raise Refuse(429, Retry_After="0.05")
        return fair(body)

    with chat_server(sometimes) as server:
        data = judge(server, two, mode="pairwise", limit=10)
    assert data["calls"]["failed"] == 0 and len(server.requests) == 25


def test_killed_and_run_again_asks_only_what_is_missing(two: list[Path], tmp_path: Path) -> None:
    def slow(body: dict[str, Any]) -> str:
        time.sleep(0.02)
        return fair(body)

    with chat_server(slow) as server:
        settings = {"mode": "pairwise", "concurrency": 2, "limit": 30}
        words = [sys.executable, "-m", "bottega", "judge", *map(str, two), "--judge", server.url, "--mode", "pairwise"]
        child = subprocess.Popen(
            [*words, "--concurrency", "2", "--limit", "30", "--out", str(tmp_path / "out")], stderr=subprocess.PIPE
        )
        while len(server.requests) < 14:
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert not (tmp_path / "out").exists()
        time.sleep(0.2)
        before = len(server.requests)
        store = next((tmp_path / "workspace" / "judgements").iterdir())
        kept = len(store.read_text().splitlines())
        assert 8 < kept <= before < 50
        with store.open("a") as file:
            file.write('{"key": "torn')
        plan = verbs.plan("judge", answers=[str(path) for path in two], judge=server.url, **settings)
        assert f"{kept} of them were made before, {60 - kept} are" in " ".join(plan["work"])
        data = judge(server, two, **settings, out=str(tmp_path / "out"))
        assert data["calls"]["known"] == kept and len(server.requests) == before + 60 - kept
        again = judge(server, two, **settings)
        fresh = judge(server, two, **settings, reuse=False)
        assert len(server.requests) == before + 120 - kept
    for other in (again, fresh):
        assert {**other, "calls": 0} == {**data, "calls": 0}
    assert again["calls"]["asked"] == 0


def test_an_endpoint_that_goes_away_loses_nothing(two: list[Path]) -> None:
    count = iter(range(1000))

    def answer(body: dict[str, Any]) -> str:
        if next(count) >= 30:
            raise Refuse(401)
        return fair(body)

    with chat_server(answer) as server:
        with pytest.raises(BottegaError, match="401") as caught:
            judge(server, two, mode="pairwise", concurrency=1)
        assert "goes on from there" in str(caught.value)
        server.answer = fair
        assert judge(server, two, mode="pairwise")["calls"]["known"] == 30


def test_mt_bench_judges_every_turn_with_its_reference(tmp_path: Path) -> None:
    questions = [
        {"question_id": 81, "category": "writing", "turns": ["Write.", "Write again."]},
        {"question_id": 101, "category": "math", "turns": ["1+1?", "And 2+2?"], "reference": ["TWO", "FOUR"]},
    ]

    def rows(model: str) -> Rows:
        return [
            {
                "question_id": id_,
                "model_id": model,
                "choices": [{"index": 0, "turns": [f"{model} one", f"{model} two"]}],
            }
            for id_ in (81, 101)
        ]

    def answer(body: dict[str, Any]) -> str:
        return "[[8]]" if shown_answers(body)[0].endswith("one") else "[[5]]"

    paths = [write(tmp_path / f"{model}.jsonl", rows(model)) for model in ("m", "n")]
    asked = write(tmp_path / "question.jsonl", questions)
    with chat_server(answer) as server:
        data = judge(server, paths, mode="mt-bench", questions=str(asked))
        texts = [body["messages"][-1]["content"] for _, body in server.requests]
        right = [{"question_id": 101, "model_id": "g", "choices": [{"turns": [{"content": "Zwei"}, "Vier"]}]}]
        judge(server, paths, mode="mt-bench", questions=str(asked), reference=str(write(tmp_path / "r.jsonl", right)))
        more = [body["messages"][-1]["content"] for _, body in server.requests[8:]]
    assert len(texts) == 8 and len(more) == 4 and all("Zwei" in text for text in more)
    assert sum("TWO" in text for text in texts) == 4 and sum("FOUR" in text for text in texts) == 2
    assert all(("TWO" in text) == ("1+1" in text) for text in texts)
    model = data["models"][0]
    assert model["score"]["value"] == 6.5 and model["score"]["count"] == 2
    assert (model["turns"]["1"]["value"], model["turns"]["2"]["value"]) == (8, 5)
    del questions[1]["reference"]
    with chat_server(answer) as server, pytest.raises(UserError, match=r"101.*math.*no right answer for turn 1"):
        judge(server, paths, mode="mt-bench", questions=str(write(asked, questions)))


def test_prompts_in_fastchat_s_form(tmp_path: Path) -> None:
    pair = "{question}|{answer_a}|{answer_b}"
    prompts = [
        {"name": "p", "type": "pairwise", "system_prompt": "S", "prompt_template": pair, "output_format": "[[A]]"},
        {"name": "q", "type": "pairwise", "system_prompt": "", "prompt_template": "{ref_answer_1}!" + pair},
    ]
    path = write(tmp_path / "prompts.jsonl", prompts)
    one = write(tmp_path / "one.jsonl", [{"id": 1, "question": "Q", "answer": "{answer_b} {x}"}])
    other = write(tmp_path / "other.jsonl", [{"id": 1, "question": "Q", "answer": "two", "reference": "R"}])
    with chat_server(lambda body: "[[C]]") as server:
        data = judge(server, [one, other], mode="pairwise", prompts=str(path))
        assert data["matches"][0]["first"] == "one" and data["matches"][0]["ties"] == 1
        asked = {body["messages"][-1]["content"]: body["messages"] for _, body in server.requests}  # in any order
        assert asked.keys() == {"Q|{answer_b} {x}|two", "R!Q|two|{answer_b} {x}"}
        assert asked["Q|{answer_b} {x}|two"][0] == {"role": "system", "content": "S"}
        with pytest.raises(UserError, match="none for a score, without a reference, of one turn"):
            judge(server, [one], prompts=str(path))
        write(path, [*prompts, prompts[0]])
        with pytest.raises(UserError, match=r"line 3: a prompt for a comparison.* is there already"):
            judge(server, [one, other], mode="pairwise", prompts=str(path))
        write(path, [{**prompts[0], "prompt_template": "{question} {wrong}"}])
        with pytest.raises(UserError, match=r"wants \{wrong\}"):
            judge(server, [one, other], mode="pairwise", prompts=str(path))


def test_an_evaluation_s_answers_are_judged(tmp_path: Path) -> None:
    items = [
        Item("m", "gsm8k", number, {}, f"Question {number}?", "h", target="42", responses=[f"quality={number}"])
        for number in range(4)
    ]
    folder = tmp_path / "run"
    folder.mkdir()
    choice = Item("m", "arc", 0, {}, "Which?", "h", choices=["a", "b"], loglikelihoods=[-1.0, -2.0])
    (folder / "items.jsonl").write_text(items_text([*items, choice]))
    with chat_server(grade) as server:
        data = judge(server, [folder])
    assert data["models"][0]["model"] == "m" and data["models"][0]["categories"]["gsm8k"]["value"] == 6.5
    assert all("42" in body["messages"][-1]["content"] for _, body in server.requests)
    (folder / "items.jsonl").write_text(items_text([choice]))
    with chat_server(grade) as server, pytest.raises(UserError, match="no answer to judge"):
        judge(server, [folder])


def test_the_judge_is_held_against_people(two: list[Path], tmp_path: Path) -> None:
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in two]
    votes = []
    for first, second in zip(*rows, strict=True):
        winner = "a" if quality(second["answer"]) > quality(first["answer"]) else "b"
        vote = {"model_a": "weak", "model_b": "strong", "winner": winner, "prompt": first["prompt"]}
        votes += [{**vote, "answer_a": second["answer"], "answer_b": first["answer"]}] * 2
    votes += [{**votes[0], "winner": "b" if votes[0]["winner"] == "a" else "a"}]  # outvoted
    votes += [{**votes[0], "answer_a": "another answer"}, {**votes[0], "prompt": "another question"}]
    path = write(tmp_path / "votes.jsonl", votes)
    with chat_server(fair) as server:
        data = judge(server, two, mode="pairwise", votes=[str(path)])
        people = data["people"]
        assert people["items"] == QUESTIONS and people["agreement"]["value"] == people["kappa"]["value"] == 1
        scored = verbs.plan("judge", answers=[str(each) for each in two], judge=server.url, votes=[str(path)])
        assert f"{len(votes)} votes are about {QUESTIONS} of" in json.dumps(scored["checks"])
        write(path, votes[-1:])
        with pytest.raises(UserError, match="1 votes are about 0 of the comparisons"):
            judge(server, two, mode="pairwise", votes=[str(path)])
        write(path, votes)
    with chat_server(lambda body: "[[A]]") as server:
        people = judge(server, two, mode="pairwise", votes=[str(path)])["people"]
        assert people["kappa"]["value"] == 0 and people["agreement_on_winners"]["count"] == 0


def test_a_judge_that_favours_itself_is_found_out_against_people(two: list[Path], tmp_path: Path) -> None:
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in two]
    own = {row["answer"] for row in rows[1]}
    votes = [
        {"model_a": "strong", "model_b": "weak", "id": first["id"], "winner": "a"}
        for first, _ in zip(*rows, strict=True)
    ]
    path = write(tmp_path / "votes.jsonl", votes)

    def vain(body: dict[str, Any]) -> str:
        first, _ = shown_answers(body)
        return "[[A]]" if first.strip() in {each.strip() for each in own} else "[[B]]"

    with chat_server(vain, models=("weak",)) as server:
        alone = judge(server, two, mode="pairwise")
        held = judge(server, two, mode="pairwise", votes=[str(path)])
    assert alone["judge"] == "weak" and alone["own"]["points"]["value"] == 1 and alone["own"]["over_people"] is None
    assert "shows only against people's votes" in shown(alone)
    assert held["own"]["over_people"]["value"] == 1 and held["own"]["over_people"]["low"] > 0.8
    assert "gives its own answers more than people do" in shown(held)


def test_a_local_model_judges(tmp_path: Path, two: list[Path]) -> None:
    model = make_model(tmp_path / "tiny", context=2048)
    settings = {"answers": [str(path) for path in two], "judge": str(model), "max_tokens": 4, "threads": 1, "limit": 3}
    data = verbs.judge(**settings, out=str(tmp_path / "out"))
    assert data["judge"] == "tiny" and data["calls"]["asked"] == 6 and data["endpoint"] is None
    assert data["calls"]["cut_off"] + data["calls"]["failed"] == 6 and data["calls"]["cut_off"] > 0
    again = verbs.judge(**settings)
    assert again["calls"]["known"] == data["calls"]["cut_off"]
    plan = verbs.plan("judge", **settings)
    assert plan["cost"]["seconds"] > 0 and all(check["passed"] for check in plan["checks"])


def test_half_characters_are_judged_as_their_escapes(tmp_path: Path) -> None:
    row = {"id": "x\ud800", "model": "m\ud800", "category": "c\ud800", "prompt": "q\ud800", "answer": "a\udfff"}
    path = write(tmp_path / "a.jsonl", [row])
    with chat_server(lambda body: "[[5]] \ud800") as server:
        data = judge(server, [path], out=str(tmp_path / "out"))
    assert data["models"][0]["model"] == r"m\ud800" and data["models"][0]["score"]["value"] == 5
    assert r"a\udfff" in server.requests[0][1]["messages"][-1]["content"]
    assert json.loads((tmp_path / "out" / "judgements.jsonl").read_text())["score"] == 5
    local = verbs.judge(answers=[str(path)], judge=str(make_model(tmp_path / "tiny", 2048)), max_tokens=2, threads=1)
    assert local["calls"]["cut_off"] == 1


def test_planning_asks_nothing(two: list[Path]) -> None:
    with chat_server(fair) as server:
        plan = verbs.plan("judge", answers=[str(path) for path in two], judge=server.url, mode="pairwise", limit=10)
        assert not server.requests
    assert plan["work"][0].startswith("20 judgements: about ") and "20 are to be asked for" in plan["work"][1]


def test_the_key_stays_secret(two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "very-secret")
    for number, settings in enumerate(({"api_key": "very-secret"}, {"api_key_env": "MY_KEY"})):
        out = tmp_path / f"out{number}"
        with chat_server(grade) as server:
            judge(server, two, limit=2, out=str(out), reuse=False, **settings)
        assert server.requests[0][0]["authorization"] == "Bearer very-secret"
        assert not [path for path in out.rglob("*") if path.is_file() and "very-secret" in path.read_text()]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"judge": "folder", "api_key": "k"}, "api_key is for an endpoint"),
        ({"judge": "folder", "judge_model": "m"}, "judge_model is for an endpoint"),
        ({"threads": 2}, "threads is for a model folder"),
        ({"judge": "http://h:0"}, "a port that can be reached"),
        ({"baseline": "strong"}, "baseline is for mode pairwise"),
        ({"mode": "pairwise", "baseline": "stron"}, "no answers are of the baseline"),
        ({"mode": "pairwise", "answers": ["strong.jsonl"]}, "a comparison needs two models"),
        ({"answers": ["strong.jsonl", "strong.jsonl"]}, "two answers with the id 'q0'"),
        ({"answers": ["none.jsonl"]}, "cannot read none.jsonl"),
        ({"answers": ["bad.jsonl"]}, "bad.jsonl, line 2 is not JSON"),
        ({"answers": ["lost.jsonl"]}, "lost.jsonl, line 1: the question 'x' is not known"),
        ({"answers": ["short.jsonl"]}, "2 questions have 1 answers"),
        ({"answers": ["roles.jsonl"]}, "message 1 is of 'user', and it is the turn of 'assistant'"),
        ({"mode": "pairwise", "answers": ["strong.jsonl", "other.jsonl"]}, "asked different things under the id 'q0'"),
        ({"extra": '{"model": "x"}'}, "set by the judge itself"),
        ({"api_key_env": "NOT_SET_AT_ALL"}, "NOT_SET_AT_ALL is not set"),
        ({"reference": "strong.jsonl", "answers": ["lone.jsonl"]}, "0 of 1 judgements have a right answer"),
        ({"reuse": False, "store": "s"}, "store is for judgements to be reused"),
    ],
)
def test_mistakes_are_refused(
    tmp_path: Path, two: list[Path], settings: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text('{"id": 1, "prompt": "q", "answer": "a"}\n{')
    write(Path("lost.jsonl"), [{"id": "x", "answer": "a"}])
    write(Path("short.jsonl"), [{"id": "x", "turns": ["p", "q"], "answer": "a"}])
    write(Path("roles.jsonl"), [{"id": "x", "messages": [{"role": "user", "content": "p"}] * 2}])
    write(Path("other.jsonl"), [{"id": "q0", "prompt": "another", "answer": "a"}])
    write(Path("lone.jsonl"), [{"id": "alone", "prompt": "q", "answer": "a"}])
    given = {"answers": ["strong.jsonl", "weak.jsonl"], "judge": "http://127.0.0.1:9", "judge_model": "m", **settings}
    if given["judge"] == "folder" and "judge_model" not in settings:
        del given["judge_model"]
    with pytest.raises(UserError, match=re.escape(said)):
        verbs.judge(**given)


def test_conversations_in_messages(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Q"},
    ]
    one = write(tmp_path / "one.jsonl", [{"id": 1, "messages": [system, *turns], "answer": "quality=1"}])
    end = {"role": "assistant", "content": "quality=2"}
    other = write(tmp_path / "other.jsonl", [{"id": 1, "messages": [system, *turns, end]}])
    out = tmp_path / "out"
    with chat_server(fair) as server:
        data = judge(server, [one, other], mode="pairwise", out=str(out))
    assert data["models"][0]["model"] == "other"
    vote = read_votes([out / "votes.jsonl"])[0]
    assert vote.messages == [system, *turns] and (vote.answer_a, vote.answer_b) == ("quality=1", "quality=2")
    text = server.requests[0][1]["messages"][-1]["content"]
    assert "Be brief." in text and "Hello" in text and "last answer" in text
