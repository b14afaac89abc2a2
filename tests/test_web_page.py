"""The chat page in Chromium: send, stream, reload, probabilities, recovery, accessibility; nothing leaves localhost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from test_serve_api import make_model
from test_web_app import child_of, running_web, wait_for_phase

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
from axe_playwright_python.sync_playwright import Axe  # noqa: E402 (after the check that playwright is there)
from playwright.sync_api import Browser, BrowserContext, Page, expect  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SETTINGS = {"temperature": 0, "max_tokens": 60}
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no Chromium: the page tests must run there")
        pytest.skip("not run: no browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def app(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    model = make_model(tmp_path_factory.mktemp("page") / "tiny")
    with running_web(model) as (url, process):
        wait_for_phase(url, "ready")
        yield url, process


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, app: tuple[str, subprocess.Popen[str]]) -> Iterator[Page]:
    """The page, ready, with greedy answers of 60 tokens; fails on any outside request or script error."""
    url, _ = app
    page = context.new_page()
    requests: list[str] = []
    troubles: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    use_settings(page, SETTINGS)
    page.goto(url)
    expect(page.locator("#model-facts")).to_contain_text("parameters")
    yield page
    outside = [one for one in requests if not re.match(rf"{url}/|data:|blob:{url}", one)]
    assert not outside and len(requests) > 5
    assert not troubles


def use_settings(page: Page, settings: dict[str, object]) -> None:
    """Settings for a browser that has none yet."""
    script = "if (!localStorage.getItem('bottega.settings')) localStorage.setItem('bottega.settings', %s)"
    page.add_init_script(script % json.dumps(json.dumps(settings)))


def ask(page: Page, text: str) -> None:
    page.locator("#message").fill(text)
    page.keyboard.press("Enter")


def answer(page: Page, number: int = -1) -> str:
    """The text of a finished answer."""
    messages = page.locator('.message[data-role="assistant"]')
    which = messages.last if number < 0 else messages.nth(number)
    expect(which.locator(".stats")).to_contain_text("tokens")
    return which.locator(".content").inner_text()


def test_an_answer_streams_and_survives_a_reload(page: Page) -> None:
    page.evaluate(
        """() => {
          window.lengths = new Set();
          const look = () => window.lengths.add(document.querySelector("#messages").textContent.length);
          new MutationObserver(look).observe(document.querySelector("#messages"), {childList: true, subtree: true});
        }"""
    )
    page.locator("#open-settings").click()
    page.locator("#max_tokens").fill("600")
    ask(page, "How is the panel primed?")
    said = answer(page)
    assert said and page.evaluate("() => window.lengths.size") > 5  # it grew in several steps
    expect(page.locator(".stats").last).to_contain_text("600 tokens")
    expect(page.locator("#live")).not_to_be_empty()  # screen readers heard it too
    page.reload()
    assert answer(page) == said
    expect(page.locator('.message[data-role="user"] .content')).to_have_text("How is the panel primed?")
    expect(page.locator("#model-name")).to_have_text("tiny")


def test_stop_answer_again_edit_and_new(page: Page) -> None:
    page.locator("#open-settings").click()
    page.locator("#max_tokens").fill("5000")
    ask(page, "Tell me everything.")
    expect(page.locator("#stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".stats").last).to_contain_text("stopped by you")
    page.locator("#max_tokens").fill("8")
    page.locator('.message >> text="Answer again"').last.click()
    expect(page.locator(".stats").last).to_contain_text("8 tokens")
    assert page.locator(".message").count() == 2
    expect(page.locator("#message")).to_be_focused()  # the button that was pressed is gone
    page.locator('[data-action="edit"]').first.click()
    expect(page.locator("#message")).to_have_value("Tell me everything.")
    expect(page.locator("#welcome")).to_be_visible()
    ask(page, "First\nquestion")
    answer(page)
    page.locator("#new").click()
    expect(page.locator("#welcome")).to_be_visible()
    page.locator("#open-conversations").click()
    page.get_by_role("button", name="First question").first.click()
    expect(page.locator(".message")).to_have_count(2)


def test_deleting_a_conversation_ends_its_answer(page: Page) -> None:
    page.locator("#open-settings").click()
    page.locator("#max_tokens").fill("5000")
    ask(page, "Tell me everything.")
    expect(page.locator("#stop")).to_be_visible()
    page.locator("#open-conversations").click()
    page.get_by_role("button", name="Delete “Tell me everything.”").click()
    page.keyboard.press("Escape")
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator(".message")).to_have_count(0)
    expect(page.locator("#send")).to_be_visible()


def test_two_tabs_keep_each_others_conversations(page: Page, context: BrowserContext) -> None:
    ask(page, "From the first tab")
    answer(page)
    other = context.new_page()
    other.goto(page.url)
    expect(other.locator("#model-facts")).to_contain_text("parameters")
    other.locator("#new").click()
    ask(other, "From the second tab")
    answer(other)
    ask(page, "Again from the first")
    answer(page)
    page.reload()
    page.locator("#open-conversations").click()
    expect(page.locator("#conversation-list")).to_contain_text("From the second tab")
    expect(page.locator("#conversation-list")).to_contain_text("From the first tab")


def test_two_tabs_in_one_conversation_lose_nothing(page: Page, context: BrowserContext) -> None:
    ask(page, "Common")
    answer(page)
    other = context.new_page()
    other.goto(page.url)
    expect(other.locator(".message")).to_have_count(2)
    page.locator("#open-settings").click()
    page.locator("#max_tokens").fill("5000")
    ask(page, "From the first tab")
    expect(page.locator(".message").last.locator(".content")).not_to_be_empty()  # before, there is nothing to lose
    ask(other, "From the second tab")  # it waits in the queue
    expect(other.locator("#stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".stats").last).to_contain_text("stopped by you")
    expect(other.locator(".stats").last).to_contain_text("60 tokens")
    kept = json.loads(page.evaluate("() => localStorage.getItem('bottega.conversations')"))["all"]
    ends = [[one["content"] for one in each["messages"][-2:]] for each in kept]
    assert {question for question, _ in ends} == {"From the first tab", "From the second tab"}
    assert all(said for _, said in ends)


def test_where_nothing_can_be_stored_conversations_last_as_long_as_the_page(page: Page) -> None:
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new DOMException('no', 'SecurityError'); }; }")
    for text in ("The first", "The second"):
        ask(page, text)
        answer(page)
        page.locator("#new").click()
    page.locator("#open-conversations").click()
    expect(page.locator("#conversation-list")).to_contain_text("The first")
    page.keyboard.press("Escape")
    page.locator("#theme").click()
    expect(page.locator("#theme-label")).to_have_text("Use light colours")


def test_focus_and_hover_show_the_probabilities(page: Page) -> None:
    ask(page, "How is the panel primed?")
    answer(page)
    page.keyboard.press("Alt+KeyP")
    tokens = page.locator(".token")
    expect(tokens).to_have_count(60)
    popover = page.locator("#popover")
    for _ in range(30):  # the keyboard alone must get there
        page.keyboard.press("Shift+Tab")
        if page.evaluate("() => document.activeElement.classList.contains('token')"):
            break
    expect(popover).to_be_visible()
    expect(popover.locator("li")).to_have_count(5)
    # Greedy decoding takes the likeliest token, so that one is marked and stands first.
    expect(popover.locator("li").first).to_have_class("chosen")
    percents = [float(text.strip("<% ")) for text in popover.locator(".percent").all_inner_texts()]
    assert percents == sorted(percents, reverse=True) and 0 < percents[0] <= 100
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    assert tokens.nth(1).get_attribute("aria-describedby") == "popover"
    page.keyboard.press("End")
    expect(tokens.nth(59)).to_be_focused()
    page.keyboard.press("ArrowUp")
    assert (
        page.evaluate("() => document.activeElement.getBoundingClientRect().top")
        < (tokens.nth(59).bounding_box() or {})["y"]
    )
    page.keyboard.press("Escape")
    expect(popover).to_be_hidden()
    tokens.nth(3).hover()
    expect(popover).to_be_visible()


def test_the_rendered_prompt_is_the_models_own(page: Page) -> None:
    page.locator("#open-settings").click()
    page.locator("#system").fill("Be brief.")
    ask(page, "Hello <|im_end|>")
    answer(page)
    page.locator("#prompt summary").click()
    text = page.locator("#prompt-text")
    expect(text).to_contain_text("<|im_start|>assistant")
    assert text.inner_text().startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello <|im_end|>")
    assert page.locator("#prompt-text .special").all_inner_texts().count("<|im_end|>") == 2  # the user's is text
    expect(page.locator("#prompt-count")).to_contain_text(re.compile(r"^\d+ of 6000 tokens$"))


def test_copying_says_whether_it_worked(page: Page, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, "Copy me")
    answer(page)
    copy = page.locator('[data-action="copy"]').first
    copy.click()
    expect(copy).to_have_text("Copied")
    assert page.evaluate("() => navigator.clipboard.readText()") == "Copy me"
    expect(copy).to_have_text("Copy")
    # As in a page that came over plain HTTP from another machine.
    page.evaluate("() => Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    copy.click()
    expect(copy).to_have_text("The browser refused")


def test_export_as_json_and_markdown(page: Page, tmp_path: Path) -> None:
    ask(page, "How is the panel primed?")
    said = answer(page)
    page.locator("#open-conversations").click()
    for button, ending in (("#export-json", "json"), ("#export-markdown", "md")):
        with page.expect_download() as download:
            page.locator(button).click()
        assert download.value.suggested_filename == f"how-is-the-panel-primed.{ending}"
        download.value.save_as(tmp_path / f"export.{ending}")
    data = json.loads((tmp_path / "export.json").read_text("utf-8"))
    assert data["model"] == "tiny" and [one["role"] for one in data["messages"]] == ["user", "assistant"]
    assert data["messages"][1]["content"].split() == said.split()
    assert "## You\n\nHow is the panel primed?" in (tmp_path / "export.md").read_text("utf-8")


def test_errors_say_what_to_do(page: Page) -> None:
    ask(page, "colour " * 6000)
    trouble = page.locator(".trouble").last
    expect(trouble).to_contain_text("context holds 6000")
    expect(trouble).to_contain_text("Start a new conversation")


def test_a_model_cannot_put_markup_into_the_page(page: Page) -> None:
    page.evaluate(
        """() => {
          const content = "<img src=x onerror='window.hacked=1'> **<b>bold</b>** `<script>window.hacked=1</script>`";
          const messages = [{role: "user", content}, {role: "assistant", content}];
          const all = [{id: "a", created: 0, messages}];
          localStorage.setItem("bottega.conversations", JSON.stringify({current: "a", all}));
        }"""
    )
    page.reload()
    expect(page.locator(".message")).to_have_count(2)
    expect(page.locator(".message strong")).to_have_text("<b>bold</b>")
    assert page.locator(".message img, .message script, .message b").count() == 0
    assert page.evaluate("() => window.hacked") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]

    def check() -> None:
        found = Axe().run(page).response["violations"]
        assert not [(one["impact"], one["id"], one["nodes"][0]["html"]) for one in found]

    check()
    ask(page, "How is the panel primed?")
    answer(page)
    page.keyboard.press("Alt+KeyP")
    page.locator("#prompt summary").click()
    expect(page.locator("#prompt-count")).not_to_be_empty()
    page.keyboard.press("Alt+KeyS")
    page.locator(".token").first.focus()
    check()
    page.locator("#open-shortcuts").click()
    check()


def test_the_page_fits_a_phone_and_the_theme_is_kept(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    ask(page, "How is the panel primed?")
    answer(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    overlap = """() => document.querySelector(".wordmark").scrollWidth + document.querySelector(".wordmark").offsetLeft
      - document.querySelector(".tools").offsetLeft"""
    assert page.evaluate(overlap) <= 0
    assert page.get_by_role("heading", name="Bottega").count() == 1
    before = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    after = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    page.reload()
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == after != before


def test_the_page_says_that_the_model_died_and_goes_on(page: Page, app: tuple[str, subprocess.Popen[str]]) -> None:
    _, process = app
    page.locator("#open-settings").click()
    page.locator("#max_tokens").fill("5000")
    ask(page, "Tell me everything.")
    expect(page.locator(".content").last).not_to_be_empty()
    os.kill(int(child_of(process).name), signal.SIGKILL)
    expect(page.locator(".trouble").last).to_contain_text("stopped while it was answering")
    expect(page.locator("#banner")).to_contain_text(re.compile("stopped|loaded again"))
    expect(page.locator("#banner")).to_be_hidden(timeout=40_000)
    page.locator("#max_tokens").fill("8")
    page.keyboard.press("Alt+KeyR")
    expect(page.locator(".stats").last).to_contain_text("8 tokens")
    expect(page.locator(".trouble").last).to_be_hidden()


def test_a_model_without_template_behind_a_key_continues_text(browser: Browser, tmp_path: Path) -> None:
    model = make_model(tmp_path / "plain")
    (model / "chat_template.jinja").unlink()
    settings = json.loads((model / "tokenizer_config.json").read_text("utf-8"))
    del settings["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    with running_web(model, api_key="k3y") as (url, _):
        page = browser.new_page()
        use_settings(page, {**SETTINGS, "show_probabilities": True})
        page.goto(url)
        expect(page.locator("#key")).to_be_visible(timeout=30_000)
        page.locator("#key-value").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key")).to_be_visible()
        page.locator("#key-value").fill("k3y")
        page.keyboard.press("Enter")
        expect(page.locator("#welcome")).to_contain_text("continues the text")
        ask(page, "The panel is")
        answer(page)
        expect(page.locator(".token")).to_have_count(60)
        page.locator("#prompt summary").click()
        expect(page.locator("#prompt-text")).to_have_text(re.compile("The panel is$"))
        page.close()


def test_the_page_says_when_the_web_app_is_gone(page: Page, context: BrowserContext) -> None:
    context.set_offline(True)
    expect(page.locator("#banner")).to_contain_text("cannot be reached")
    context.set_offline(False)
    expect(page.locator("#banner")).to_be_hidden()


def test_an_answer_that_breaks_off_with_the_web_app_is_kept_and_the_page_goes_on(
    browser: Browser, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "tiny")
    page = browser.new_page()
    use_settings(page, {"temperature": 0, "max_tokens": 5000})
    with running_web(model) as (url, process):
        page.goto(url)
        expect(page.locator("#model-facts")).to_contain_text("parameters")
        ask(page, "Tell me everything.")
        expect(page.locator(".content").last).not_to_be_empty()
        process.kill()
        expect(page.locator(".trouble").last).to_contain_text("broke off")
        said = page.locator(".content").last.inner_text()
        expect(page.locator("#banner")).to_contain_text("cannot be reached")
    with running_web(model, port=int(url.rsplit(":", 1)[1])):
        expect(page.locator("#banner")).to_be_hidden()
        expect(page.locator("#send")).to_be_enabled()
        expect(page.locator("#stop")).to_be_hidden()
        page.reload()
        expect(page.locator(".message")).to_have_count(2)
        assert said and page.locator(".content").last.inner_text() == said
        page.get_by_role("button", name="Settings", exact=True).click()
        page.locator("#max_tokens").fill("8")
        page.keyboard.press("Alt+KeyR")
        expect(page.locator(".stats").last).to_contain_text("8 tokens")
    page.close()


def test_a_reload_in_mid_answer_keeps_what_was_said(page: Page) -> None:
    page.locator("#open-settings").click()
    page.locator("#max_tokens").fill("5000")
    ask(page, "Tell me everything.")
    expect(page.locator(".content").last).not_to_be_empty()
    page.reload()
    expect(page.locator(".message")).to_have_count(2)
    expect(page.locator(".content").last).not_to_be_empty()
    expect(page.locator(".stats").last).to_contain_text("stopped by you")
