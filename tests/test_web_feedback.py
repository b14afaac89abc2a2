"""Blind comparisons and verdicts, asked of a real web app: what is told before a vote, and what is kept after it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottega.evaluate.arena.votes import Vote, append_vote, read_votes
from bottega.evaluate.statistics import wilson
from bottega.web.duels import Side, _Pace
from bottega.web.feedback import FEWEST_VOTES
from bottega.web.verdicts import rates, read_verdicts
from test_serve_api import HELLO, make_model, wait_for_load
from test_web_app import inner_address, running_web, wait_for_phase

SHORT = {"messages": HELLO, "temperature": 0, "max_tokens": 12}
VERDICT = {"conversation": "c", "index": 1, "model": "vermilion", "messages": HELLO, "answer": "With glue."}
App = tuple[str, subprocess.Popen[str], Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return make_model(folder / "vermilion"), make_model(folder / "azure", head_dim=8)


@pytest.fixture(scope="module")
def app(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    workspace = tmp_path_factory.mktemp("web") / "workspace"
    with running_web(*models, workspace=str(workspace)) as (url, process):
        wait_for_phase(url, "ready")
        yield url, process, workspace / "feedback"


def duel(url: str, **settings: Any) -> tuple[str, dict[str, str], str]:
    """A whole comparison: its id, the answers by side, and everything that was sent to the page."""
    answer = httpx.post(f"{url}/feedback/duels", json={**SHORT, **settings}, timeout=30)
    assert answer.status_code == 200, answer.text
    sent = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert not any("error" in piece for piece in sent), sent
    assert {piece["side"] for piece in sent if "finish" in piece} == {"left", "right"}
    said = {"left": "", "right": ""}
    for piece in sent:
        if "text" in piece:
            said[piece["side"]] += piece["text"]
    headers = " ".join(f"{name}: {value}" for name, value in answer.headers.items())
    return sent[0]["id"], said, headers + answer.text


def vote(url: str, name: str, winner: str) -> httpx.Response:
    return httpx.post(f"{url}/feedback/duels/{name}/vote", json={"winner": winner})


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_nothing_tells_the_models_before_the_vote_and_the_vote_is_kept(app: App) -> None:
    url, _, folder = app
    page = httpx.get(f"{url}/arena").text
    name, said, sent = duel(url)
    assert not any(word in text for text in (page, sent) for word in ("vermilion", "azure", "tokens/s"))
    assert "usage" not in sent and "model" not in sent
    told = vote(url, name, "right").json()
    assert {told["left"], told["right"]} == {"vermilion", "azure"} and told["winner"] == "right"
    kept = read_votes([folder / "votes.jsonl"])[-1]
    assert (kept.model_a, kept.model_b, kept.winner) == (told["left"], told["right"], "b")
    assert (kept.answer_a, kept.answer_b) == (said["left"], said["right"])
    assert kept.messages == HELLO and kept.judge == "person" and kept.blind and kept.id == name
    # The answers are the models' own: greedily, the API gives the same.
    for side in ("left", "right"):
        body = {"model": told[side], **SHORT}
        whole = httpx.post(f"{url}/v1/chat/completions", json=body).json()
        assert said[side] == whole["choices"][0]["message"]["content"] != ""
    rows = httpx.get(f"{url}/feedback/preferences.jsonl")
    assert 'filename="preferences.jsonl"' in rows.headers["content-disposition"]
    assert json.loads(rows.text.splitlines()[-1]) == {
        "prompt": HELLO,
        "chosen": [{"role": "assistant", "content": said["right"]}],
        "rejected": [{"role": "assistant", "content": said["left"]}],
    }


def test_sides_are_drawn_anew_and_every_vote_has_its_word(app: App) -> None:
    url, _, folder = app

    def lefts(number: int) -> str:
        name, *_ = duel(url, max_tokens=1)
        return vote(url, name, ("left", "right", "tie", "both_bad")[number % 4]).json()["left"]

    before = httpx.get(f"{url}/feedback/results").json()["votes"]
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lefts, range(32)))
    assert {"vermilion", "azure"} == set(drawn)  # all 32 the same: one in two billion
    votes = read_votes([folder / "votes.jsonl"])[before:]
    assert sorted(each.winner for each in votes) == sorted(["a", "b", "tie", "both_bad"] * 8)
    results = httpx.get(f"{url}/feedback/results").json()
    assert results["votes"] == before + 32 and results["needed"] == 0
    assert {row["model"] for row in results["ratings"]["models"]} == {"vermilion", "azure"}
    assert results["recent"][0]["prompt"] == HELLO[0]["content"]


def test_a_vote_counts_once_and_only_for_two_whole_answers(app: App) -> None:
    url, process, folder = app
    assert refusal(vote(url, "none", "tie")) == (404, "unknown_comparison")
    with httpx.stream("POST", f"{url}/feedback/duels", json={**SHORT, "max_tokens": 5000}) as answer:
        lines = answer.iter_lines()
        name = json.loads(next(lines).removeprefix("data: "))["id"]
        wait_for_load(inner_address(process), (2, 0))
        assert refusal(vote(url, name, "tie")) == (409, "not_answered")
    wait_for_load(inner_address(process), (0, 0))  # the hang-up reached both models
    assert refusal(vote(url, name, "tie")) == (409, "not_answered")
    name, *_ = duel(url)
    before = httpx.get(f"{url}/feedback/results").json()["votes"]
    assert refusal(vote(url, name, "model_a")) == (400, "invalid_value")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: vote(url, name, "left").status_code, range(8)))
    assert sorted(found) == [200] + [409] * 7
    assert len(read_votes([folder / "votes.jsonl"])) == before + 1


def test_what_goes_wrong_is_said_without_names(app: App) -> None:
    url, *_ = app
    long = [{"role": "user", "content": "colour " * 6000}]
    answer = httpx.post(f"{url}/feedback/duels", json={"messages": long}, timeout=30).text
    assert json.loads(answer.splitlines()[-2].removeprefix("data: "))["error"]["message"] == (
        "The conversation is longer than one of the models can read."
    )
    assert "vermilion" not in answer and "azure" not in answer and "6000" not in answer


def test_verdicts_are_kept_and_counted_by_answer(app: App) -> None:
    url, _, folder = app
    thumbs = folder / "thumbs.jsonl"

    def tell(verdict: str, **more: Any) -> int:
        return httpx.post(f"{url}/feedback/verdicts", json={**VERDICT, "verdict": verdict, **more}).status_code

    assert tell("copied") == tell("regenerated") == tell("up") == tell("down") == 204  # the last sign of each stands
    assert tell("copied", conversation="d") == tell("edited", conversation="e", edited="With chalk.") == 204
    assert tell("up", conversation="d") == tell("none", conversation="d") == 204
    assert tell("up", model="azure") == 204
    rows = read_verdicts(thumbs)
    assert len(rows) == 9 and rows[5]["edited"] == "With chalk." and "edited" not in rows[0]
    assert rows[0] == {"time": rows[0]["time"], **VERDICT, "verdict": "copied"}
    azure, vermilion = httpx.get(f"{url}/feedback/results").json()["answers"]
    used, thumb = wilson(2, 3), wilson(0, 1)
    assert vermilion["model"] == "vermilion" and vermilion["accepted"] == {**used.as_data(), "successes": 2}
    assert (vermilion["thumbs"]["low"], vermilion["thumbs"]["high"]) == (thumb.low, thumb.high)
    assert azure["accepted"] is None and azure["thumbs"]["value"] == 1.0
    # A writer that was killed in mid-line loses that line only, and the next writer mends the file.
    with thumbs.open("ab") as file:
        file.write(b'{"time": 1, "conv')
    assert len(read_verdicts(thumbs)) == 9
    assert tell("down", conversation="ü") == 204 and len(read_verdicts(thumbs)) == 10
    with thumbs.open("ab") as file:
        file.write(b'{"time": 1}\n')
    broken = httpx.get(f"{url}/feedback/results")
    assert broken.status_code == 500 and "thumbs.jsonl, line 11 is no verdict" in broken.json()["error"]["message"]
    thumbs.unlink()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"verdict": "liked"}, (400, "invalid_value")),
        ({"index": -1}, (400, "invalid_value")),
        ({"messages": []}, (400, "invalid_value")),
        ({"model": ""}, (400, "invalid_value")),
        ({"rating": 5}, (400, "unknown_parameter")),
        ({"answer": "x" * 2**20}, (413, "request_too_large")),
        ({"conversation": "x" * 101}, (400, "invalid_value")),
    ],
)
def test_verdicts_that_are_none_are_refused(app: App, change: dict[str, Any], expected: tuple[int, str]) -> None:
    url, _, folder = app
    body = {**VERDICT, "verdict": "up", **change}
    assert refusal(httpx.post(f"{url}/feedback/verdicts", json=body)) == expected
    assert not (folder / "thumbs.jsonl").exists()


def test_pages_of_other_sites_may_neither_vote_nor_read(app: App) -> None:
    url, _, folder = app
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        for path in ("duels", "duels/x/vote", "verdicts"):
            assert httpx.post(f"{url}/feedback/{path}", json={}, headers=headers).status_code == 403
        for path in ("results", "preferences.jsonl"):
            assert httpx.get(f"{url}/feedback/{path}", headers=headers).status_code == 403
    assert httpx.get(f"{url}/feedback/results", headers={"Host": "rebound.example"}).status_code == 403
    body = json.dumps({**VERDICT, "verdict": "up"})
    plain = httpx.post(f"{url}/feedback/verdicts", content=body, headers={"Content-Type": "text/plain"})
    assert refusal(plain) == (415, "unsupported_media_type")
    assert not (folder / "thumbs.jsonl").exists()
    page = httpx.get(f"{url}/arena")
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "style=" not in page.text and "onclick" not in page.text and "http://" not in page.text


def test_a_key_guards_what_was_said_and_one_model_is_not_compared(models: tuple[Path, Path]) -> None:
    with running_web(models[0], api_key="k3y") as (url, _):
        wait_for_phase(url, "ready")
        assert httpx.get(f"{url}/arena").status_code == 200
        for path in ("results", "preferences.jsonl"):
            assert httpx.get(f"{url}/feedback/{path}").status_code == 401
        assert httpx.post(f"{url}/feedback/verdicts", json={**VERDICT, "verdict": "up"}).status_code == 401
        key = {"Authorization": "Bearer k3y"}
        assert httpx.get(f"{url}/feedback/results", headers=key).json()["needed"] == FEWEST_VOTES
        alone = httpx.post(f"{url}/feedback/duels", json=SHORT, headers=key)
        assert refusal(alone) == (409, "too_few_models")


def test_two_models_of_which_one_fits_answer_one_after_the_other(models: tuple[Path, Path], tmp_path: Path) -> None:
    texts = []
    for model in models:  # without a chat template they continue a text, and the vote keeps a text
        folder = tmp_path / model.name
        folder.mkdir()
        for file in model.iterdir():
            if file.name != "chat_template.jinja":
                (folder / file.name).write_bytes(file.read_bytes())
        settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        del settings["chat_template"]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
        texts.append(folder)
    votes = tmp_path / "workspace" / "feedback" / "votes.jsonl"
    with running_web(*texts, max_loaded=1, workspace=str(tmp_path / "workspace")) as (url, _):
        wait_for_phase(url, "ready")
        name, said, _ = duel(url)
        assert said["left"] and said["right"] and vote(url, name, "left").status_code == 200
        (kept,) = read_votes([votes])
        assert kept.prompt == HELLO[0]["content"] and not kept.messages
        # What another program writes counts at once, and what is wrong with the file is said.
        for number in range(FEWEST_VOTES - 1):
            append_vote(votes, Vote("vermilion", "azure", "tie", id=str(number), time=float(number)))
        whole = votes.read_bytes()
        votes.write_bytes(whole + b'{"model_a": "vermilion"}\n')
        broken = httpx.get(f"{url}/feedback/results")
        assert broken.status_code == 500 and f"line {FEWEST_VOTES + 1}" in broken.json()["error"]["message"]
        votes.write_bytes(whole)
        assert httpx.get(f"{url}/feedback/results").json()["ratings"]["ties"] == FEWEST_VOTES - 1


def test_a_workspace_that_cannot_be_written_is_said(models: tuple[Path, Path], tmp_path: Path) -> None:
    from bottega.core.errors import UserError
    from bottega.core.plan import Specs
    from bottega.web.command import plan_web
    from bottega.web.config import Web

    (tmp_path / "file").write_text("", "utf-8")
    values = {"model": [str(model) for model in models], "port": 0, "workspace": str(tmp_path / "file")}
    with pytest.raises(UserError, match="is a file"):
        plan_web(Web.parse(values), Specs()).require()


def test_rates_without_any_sign() -> None:
    assert rates([]) == []
    assert rates([{**VERDICT, "verdict": "none"}]) == [{"model": "vermilion", "thumbs": None, "accepted": None}]


steps = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=30)


@given(steps, st.integers(0, 30), st.integers(0, 30))
def test_the_page_sees_no_more_of_the_faster_answer(growth: list[tuple[int, int]], left: int, right: int) -> None:
    """`left` and `right` are the steps at which the answers end; shown text is a function of the slower one alone."""
    sides, pace, now = (Side("a", True), Side("b", True)), _Pace(), 100.0
    shown = {"left": "", "right": ""}
    for number in range(1000):
        now += 0.04
        for side, end, place in zip(sides, (left, right), (0, 1), strict=True):
            if side.finish is None:
                side.answer += "x" * growth[number % len(growth)][place]
                side.finish = "stop" if number >= end else None
        before = [side.shown for side in sides]
        for piece in pace.show(sides, now):
            shown[piece["side"]] += piece.get("text", "")
        if all(side.finish is None for side in sides):
            assert sides[0].shown == sides[1].shown == min(len(side.answer) for side in sides)
        for side, earlier in zip(sides, before, strict=True):
            assert earlier <= side.shown <= len(side.answer)
        # While one is still to come, the other is ahead of it only if that one has nothing more to show.
        for one, other in (sides, sides[::-1]):
            if one.finish is None and one.shown < other.shown:
                raise AssertionError("ahead of an answer that is under way")
        if all(side.is_ended for side in sides):
            break
    if sum(map(len, shown.values())) and all(side.is_ended for side in sides):
        assert [shown["left"], shown["right"]] == [side.answer for side in sides]
