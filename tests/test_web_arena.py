"""The arena and the verdicts in Chromium: blind until the vote, by keyboard alone, accessible, on a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bottega.evaluate.arena.votes import Vote, append_vote, read_votes
from bottega.web.verdicts import read_verdicts
from test_serve_api import make_model
from test_web_app import running_web, wait_for_phase

pytestmark = pytest.mark.browser
pytest.importorskip("playwright.sync_api")
from axe_playwright_python.sync_playwright import Axe  # noqa: E402 (after the check that playwright is there)
from playwright.sync_api import Browser, BrowserContext, Page, expect  # noqa: E402

from test_web_page import ask, browser, use_settings  # noqa: E402, F401 (a fixture)

NAMES = ("vermilion", "azure")
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def app(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:  # noqa: F811
    folder = tmp_path_factory.mktemp("arena")
    models = make_model(folder / "vermilion"), make_model(folder / "azure", head_dim=8)
    with running_web(*models, workspace=str(folder / "workspace")) as (url, _):
        wait_for_phase(url, "ready")
        yield url, folder / "workspace" / "feedback"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:  # noqa: F811
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, app: tuple[str, Path]) -> Iterator[Page]:
    """The arena, ready, for answers of 40 tokens; fails on any outside request or script error."""
    url, _ = app
    page = context.new_page()
    requests: list[str] = []
    troubles: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(f"{url}/arena")
    expect(page.locator("#send")).to_be_enabled()
    limit_answers(page, 40)
    yield page
    assert not [one for one in requests if not re.match(rf"{url}/|data:|blob:{url}", one)]
    assert not troubles


def limit_answers(page: Page, tokens: int) -> None:
    page.locator("#open-sampling").click()
    page.locator("#max_tokens").fill(str(tokens))
    page.locator("#temperature").fill("0")
    page.keyboard.press("Enter")


def side(page: Page, name: str, part: str = ".content") -> str:
    return page.locator(f'.answer[data-side="{name}"] {part}').inner_text()


def ballot_opens(page: Page) -> None:
    expect(page.locator("#ballot button").first).to_be_enabled()


def test_a_comparison_by_keyboard_is_blind_until_the_vote(page: Page, app: tuple[str, Path]) -> None:
    page.evaluate(
        """() => {
          const real = window.fetch;
          window.fetch = async (...how) => {
            const answer = await real(...how);
            if (how[0] !== "/feedback/duels") return answer;
            const [kept, read] = answer.body.tee();
            new Response(kept).text().then((text) => (window.received = text));
            return new Response(read, answer);
          };
          window.lengths = new Set();
          const look = () => window.lengths.add(document.querySelector("#pair").textContent.length);
          new MutationObserver(look).observe(document.querySelector("#pair"), {childList: true, subtree: true});
        }"""
    )
    page.keyboard.press("/")
    page.keyboard.type("How is the panel primed?")
    page.keyboard.press("Enter")
    expect(page.locator("#ballot")).to_be_visible()
    page.keyboard.press("a")  # too early: the answers are under way
    ballot_opens(page)
    said = {name: side(page, name) for name in ("left", "right")}
    assert said["left"] and said["right"] and page.evaluate("() => window.lengths.size") > 1
    expect(page.locator("#said")).to_contain_text("Which is better?")
    # The names stand in the header, of both; nothing near the answers, and nothing received, says which is which.
    assert not any(name in page.locator("#duel").inner_html() for name in NAMES)
    received = page.evaluate("() => window.received")
    assert '"side":"left"' in received and not any(name in received for name in NAMES)
    page.keyboard.press("b")
    expect(page.locator("#new")).to_be_focused()
    told = {name: side(page, name, ".name") for name in ("left", "right")}
    assert set(told.values()) == set(NAMES)
    expect(page.locator("#said")).to_have_text(f"B is better. A was {told['left']}, B was {told['right']}.")
    expect(page.locator('.answer[data-side="right"]')).to_have_attribute("data-outcome", "won")
    kept = read_votes([app[1] / "votes.jsonl"])[-1]
    assert (kept.winner, kept.model_a, kept.model_b) == ("b", told["left"], told["right"])
    assert kept.answer_b.split() == said["right"].split()
    expect(page.locator("#history .outcome").first).to_have_text(f"{told['right']} over {told['left']}")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_be_focused()
    expect(page.locator("#message")).to_have_value("")
    expect(page.locator("#pair")).to_be_hidden()


@pytest.mark.parametrize(("key", "winner"), [("a", "a"), ("t", "tie"), ("x", "both_bad")])
def test_every_key_is_a_vote_and_every_button(page: Page, app: tuple[str, Path], key: str, winner: str) -> None:
    ask(page, f"By key, {key}")
    ballot_opens(page)
    page.keyboard.press(key)
    expect(page.locator("#new")).to_be_focused()
    page.keyboard.press("Enter")
    ask(page, f"By button, {key}")
    ballot_opens(page)
    page.locator("#ballot button", has=page.locator(f'kbd:text-is("{key.upper()}")')).click()
    expect(page.locator("#next")).to_be_visible()
    votes = read_votes([app[1] / "votes.jsonl"])[-2:]
    assert [vote.winner for vote in votes] == [winner, winner]
    assert [vote.messages[-1]["content"] for vote in votes] == [f"By key, {key}", f"By button, {key}"]


def test_a_follow_up_goes_on_from_the_better_answer(page: Page, app: tuple[str, Path]) -> None:
    page.locator("#open-sampling").click()
    page.locator("#system").fill("Be brief.")
    page.locator("#sampling-form button").click()
    ask(page, "First")
    ballot_opens(page)
    page.keyboard.press("a")
    page.locator("#follow").click()
    expect(page.locator("#message")).to_be_focused()
    ask(page, "Second")
    ballot_opens(page)
    page.keyboard.press("t")
    expect(page.locator("#new")).to_be_focused()
    first, second = read_votes([app[1] / "votes.jsonl"])[-2:]
    assert first.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "First"}]
    answer = {"role": "assistant", "content": first.answer_a}
    assert second.messages == [*first.messages, answer, {"role": "user", "content": "Second"}]
    page.locator("#new").click()
    expect(page.locator("#messages")).to_be_empty()


def test_what_is_stopped_is_no_comparison(page: Page) -> None:
    limit_answers(page, 5000)
    ask(page, "Tell me everything.")
    expect(page.locator('.answer[data-side="left"] .content')).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(page.locator("#said")).to_contain_text("Stopped")
    expect(page.locator("#message")).to_have_value("Tell me everything.")
    expect(page.locator("#ballot")).to_be_hidden()
    page.locator("#message").fill("colour " * 6000)
    page.keyboard.press("Enter")
    expect(page.locator("#trouble")).to_contain_text("longer than one of the models can read")
    expect(page.locator("#message")).to_be_focused()


def test_ratings_history_and_the_download(page: Page, app: tuple[str, Path], tmp_path: Path) -> None:
    votes = app[1] / "votes.jsonl"
    for number in range(12):
        vote = Vote(
            *NAMES, "a" if number % 3 else "b", id=f"more-{number}", time=1e9, answer_a="<b>x</b>", answer_b="y"
        )
        append_vote(votes, vote)
    page.reload()
    expect(page.locator("#ratings li")).to_have_count(2)
    expect(page.locator("#ratings .words").first).to_have_text(re.compile(r"\d+ \[(−∞|\d+), (∞|\d+)\] · \d+ votes"))
    expect(page.locator("#ratings-note")).to_contain_text("95 % intervals")
    expect(page.locator("#history li:visible")).to_have_count(6)
    page.locator("#more").click()
    page.locator("#history summary").nth(0).click()
    expect(page.locator("#history .said").nth(0)).to_have_text("<b>x</b>")
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "preferences.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "preferences.jsonl").read_text("utf-8").splitlines()]
    decided = [vote for vote in read_votes([votes]) if vote.winner in "ab" and vote.messages]
    assert len(rows) == len(decided) and all(row.keys() == {"prompt", "chosen", "rejected"} for row in rows)


def chat(page: Page, url: str, **settings: Any) -> None:
    """The chat page with one answer."""
    use_settings(page, {"temperature": 0, "max_tokens": 20, **settings})
    page.goto(url)
    expect(page.locator("#model-facts")).to_contain_text("parameters")
    ask(page, "How is the panel primed?")
    expect(page.locator(".stats").last).to_contain_text("20 tokens")


def test_what_becomes_of_answers_is_kept(page: Page, context: BrowserContext, app: tuple[str, Path]) -> None:
    url, folder = app
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat(page, url, system="Be brief.", model="azure")
    answer = page.locator(".message").last
    expect(answer.locator(".who")).to_have_text("azure")
    up, down = (answer.locator(f'[data-action="{name}"]') for name in ("up", "down"))
    up.click()
    expect(up).to_have_attribute("aria-pressed", "true")
    down.click()
    expect(up).to_have_attribute("aria-pressed", "false")
    page.reload()
    expect(down).to_have_attribute("aria-pressed", "true")
    down.click()
    expect(down).to_have_attribute("aria-pressed", "false")
    answer.locator('[data-action="copy"]').click()
    expect(answer.locator('[data-action="copy"]')).to_have_text("Copied")
    answer.locator('[data-action="edit"]').click()
    expect(page.get_by_label("The answer as it should be")).to_be_focused()
    page.keyboard.press("Escape")
    expect(answer.locator('[data-action="edit"]')).to_be_focused()
    answer.locator('[data-action="edit"]').click()
    page.get_by_label("The answer as it should be").fill("With glue and chalk.")
    page.keyboard.press("Control+Enter")
    expect(answer.locator(".content")).to_have_text("With glue and chalk.")
    expect(answer.locator(".stats")).to_contain_text("corrected by you")
    page.keyboard.press("Alt+KeyR")
    expect(page.locator(".stats").last).not_to_contain_text("corrected")
    expect(page.locator(".stats").last).to_contain_text("20 tokens")
    rows = read_verdicts(folder / "thumbs.jsonl")
    assert [row["verdict"] for row in rows] == ["up", "down", "none", "copied", "edited", "regenerated"]
    assert len({(row["conversation"], row["index"], row["model"], row["answer"]) for row in rows}) == 1
    assert rows[4]["edited"] == "With glue and chalk." != rows[5]["answer"] and rows[0]["model"] == "azure"
    expected = [("system", "Be brief."), ("user", "How is the panel primed?")]
    assert [(turn["role"], turn["content"]) for turn in rows[0]["messages"]] == expected
    page.goto(f"{url}/arena#answers")
    expect(page.locator("#rates .words").first).to_have_text("0 % [0 %, 79 %] · 0 of 1")
    expect(page.locator("#answers")).to_contain_text("Goodhart")


def test_nothing_is_kept_where_the_settings_say_so(page: Page, app: tuple[str, Path]) -> None:
    url, folder = app
    before = (folder / "thumbs.jsonl").read_bytes() if (folder / "thumbs.jsonl").exists() else b""
    chat(page, url, keep_verdicts=False)
    expect(page.locator(".thumb:visible")).to_have_count(0)
    page.locator('[data-action="retry"]').last.click()
    expect(page.locator(".stats").last).to_contain_text("20 tokens")
    assert ((folder / "thumbs.jsonl").read_bytes() if before else b"") == before
    page.locator("#open-settings").click()
    page.get_by_label("Keep what becomes of answers").check()
    expect(page.locator(".thumb:visible")).to_have_count(2)
    page.route("**/feedback/verdicts", lambda route: route.abort())
    page.locator('[data-action="up"]').last.click()
    expect(page.locator(".stats").last).to_have_text("It could not be kept.")
    expect(page.locator('[data-action="up"]').last).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, app: tuple[str, Path], scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]

    def check() -> None:
        found = Axe().run(page).response["violations"]
        assert not [(one["impact"], one["id"], one["nodes"][0]["html"]) for one in found]

    check()
    page.locator("#open-sampling").click()
    check()
    page.keyboard.press("Escape")
    ask(page, "How is the panel primed?")
    ballot_opens(page)
    check()
    page.keyboard.press("a")
    expect(page.locator("#new")).to_be_focused()
    page.locator("#history summary").first.click()
    check()
    chat(page, app[0])
    page.locator('[data-action="edit"]').last.click()
    check()


def test_it_fits_a_phone(page: Page, app: tuple[str, Path]) -> None:
    fits = "() => document.documentElement.scrollWidth <= window.innerWidth"
    page.set_viewport_size({"width": 360, "height": 640})
    assert page.evaluate(fits)
    ask(page, "How is the panel primed?")
    ballot_opens(page)
    boxes = [page.locator(f'.answer[data-side="{name}"]').bounding_box() or {} for name in ("left", "right")]
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]  # one above the other
    for button in page.locator("#ballot button").all():
        box = button.bounding_box() or {}
        assert box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= 360
    assert page.evaluate(fits)
    chat(page, app[0])
    overlap = """() => document.querySelector(".wordmark").scrollWidth + document.querySelector(".wordmark").offsetLeft
      - document.querySelector(".tools").offsetLeft"""
    assert page.evaluate(fits) and page.evaluate(overlap) <= 0
