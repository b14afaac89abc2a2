"""The course's pages in Chromium: the whole way by keyboard, light and dark, wide and narrow, without JavaScript."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from bottega.course.learner.learner import Learner
from bottega.course.library import load_course
from bottega.serve.listen import make_server, open_socket
from bottega.web.app import HERE, create_app
from bottega.web.course.pages import CoursePages
from bottega.web.learn import Learn
from test_course_learner import right_answer
from test_web_page import ARGUMENTS, CHROMIUM, browser  # noqa: F401 (a fixture)

pytestmark = pytest.mark.browser
pytest.importorskip("playwright.sync_api")
from axe_playwright_python.sync_playwright import Axe  # noqa: E402 (after the check that playwright is there)
from playwright.sync_api import Browser, Error, Page, Route, expect  # noqa: E402

PAGES = (
    "/", "/roadmap/scientist", "/course/architecture", "/course/architecture/lab/merges",
    "/course/architecture/exercise/top-p", "/question/first-loss", "/question/lens", "/question/families",
    "/question/why-decoders", "/question/first-merge", "/question/merge-output", "/review", "/placement", "/progress",
    "/certificate", "/view/merges?merges=20",
)  # fmt: skip
del ARGUMENTS, CHROMIUM


class Served:
    """The course on a free port, with a clock that is set."""

    def __init__(self, folder: Path) -> None:
        self.ahead = timedelta()
        self.learner = Learner.open(load_course(), folder / "course", lambda: datetime.now().astimezone() + self.ahead)
        self.pages = CoursePages(self.learner, HERE / "templates", chat=False)
        self.listener = open_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        app = create_app(Learn(workspace=folder), None, self.pages)
        self.server = make_server(app, lambda: None, lambda _: self.pages.close())
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]}, daemon=True)

    def __enter__(self) -> Served:
        self.thread.start()
        for _ in range(100):
            if getattr(self.server, "started", False):
                return self
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BOTTEGA_WORKSPACE", str(tmp_path))
    with Served(tmp_path) as served:
        yield served


def opened(browser: Browser, served: Served, *, width: int = 1280, dark: bool = False, scripts: bool = True) -> Page:  # noqa: F811
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", java_script_enabled=scripts
    )
    context.set_default_timeout(20_000)
    outside: list[str] = []

    def refuse(route: Route) -> None:
        outside.append(route.request.url)
        route.abort()

    context.route(re.compile(r"^(?!http://127\.0\.0\.1)"), refuse)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.outside, page.errors = outside, errors  # type: ignore[attr-defined]
    page.goto(served.url)
    return page


def finish(page: Page) -> None:
    assert not page.outside and not page.errors, (page.outside, page.errors)  # type: ignore[attr-defined]
    page.context.close()


def press_to(page: Page, name: str | re.Pattern[str], most: int = 80) -> None:
    """Go to a link or button with the Tab key alone, and press it."""
    for _ in range(most):
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            page.keyboard.press("Escape")  # there Tab indents; the page says so
        page.keyboard.press("Tab")
        text = page.evaluate("document.activeElement.innerText || document.activeElement.value || ''").strip()
        if re.search(name, text):
            before = page.evaluate("performance.timeOrigin")
            page.keyboard.press("Enter")
            for _ in range(400):
                with contextlib.suppress(Error):  # between two pages nothing can be asked
                    now = page.evaluate("document.readyState === 'complete' && performance.timeOrigin")
                    if now not in (False, before):
                        return
                page.wait_for_timeout(25)
            raise AssertionError(f"{name!r} leads nowhere")
    raise AssertionError(f"the Tab key does not reach {name!r}")


def type_into(page: Page, selector: str, text: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            page.keyboard.press("Control+a")
            page.keyboard.insert_text(text)
            return
    raise AssertionError(f"the Tab key does not reach {selector}")


def give(page: Page, served: Served) -> None:
    """Answer the question on the page rightly, by keyboard."""
    action = page.locator("form.answer").get_attribute("action") or ""
    item = page.locator('[name="item"]').get_attribute("value") if action == "/placement" else action.rpartition("/")[2]
    seed = int(page.locator('[name="seed"]').get_attribute("value") or "0")
    chapter, found = served.learner.course.items[str(item)]
    given = right_answer(chapter, found, seed)
    if found.kind == "single":
        page.locator('[name="given"]').first.focus()
        page.keyboard.press("Space")
        for _ in range(int(given)):  # type: ignore[arg-type]
            page.keyboard.press("ArrowDown")
    elif found.kind == "multi":
        for place in given:
            page.locator('[name="given"]').nth(place).focus()
            page.keyboard.press("Space")
    elif found.kind in ("order", "match"):
        in_order = {line: place + 1 for place, line in enumerate(given)}
        for place, value in (in_order if found.kind == "order" else dict(enumerate(given))).items():
            page.locator(f'[name="given-{place}"]').select_option(str(value))
    elif found.kind == "cloze":
        for place, text in enumerate(given):
            page.locator(f'[name="given-{place}"]').fill(text)
    else:
        page.locator('[name="given"]').fill(str(given))
    press_to(page, "^Answer$")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (320, True)])
def test_the_whole_way_by_keyboard(browser: Browser, served: Served, width: int, dark: bool) -> None:  # noqa: F811
    page = opened(browser, served, width=width, dark=dark)
    press_to(page, "Placement")
    press_to(page, "^Begin$")
    for number in range(12):
        expect(page.locator(".crumbs")).to_contain_text(f"question {number + 1} of 12")
        press_to(page, "I do not know")
    press_to(page, "^Go on$")

    press_to(page, "Read: Vectors and matrices")
    expect(page).to_have_url(re.compile("/course/mathematics#vectors$"))
    press_to(page, "Open the lab", 120)
    type_into(page, "#s-steps", "20")
    press_to(page, "^Run$")
    expect(page.locator("#run-state")).to_have_text("Done.", timeout=90_000)
    assert page.locator("#run-figures figure").count() >= 1
    page.reload()
    expect(page.locator("#run-state")).to_have_text("Done.")

    page.goto(served.url + "/course/architecture/exercise/top-p")
    press_to(page, "Run the checks")
    expect(page.locator("#result")).to_contain_text("Not yet")
    press_to(page, "^Hint$")
    expect(page.locator("main")).to_contain_text("Hints (1 of")
    wrong = served.learner.course.exercise("architecture/top-p")
    page.locator("#code").fill(wrong.solution.replace(wrong.data.wrong[1].replace, wrong.data.wrong[1].by))
    page.keyboard.press("Control+Enter")
    expect(page.locator("#result")).to_contain_text("positions in the sorted list")
    page.locator("#code").fill(wrong.solution)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#result")).to_contain_text("All checks pass")

    page.goto(served.url + "/course/architecture/quiz?concept=next-token-prediction")
    for _ in range(4):
        give(page, served)
        expect(page.locator("h1")).to_have_text("✓ Right")
        press_to(page, "^Next$")
    page.goto(served.url + "/review")
    expect(page.locator("h1")).to_have_text("No review is due")
    served.ahead = timedelta(days=4)
    page.goto(served.url)
    press_to(page, "Review:")
    give(page, served)
    expect(page.locator("h1")).to_have_text("✓ Right")

    page.goto(served.url + "/progress")
    press_to(page, "^Certificate")
    page.locator("#name").fill("Ada")
    with page.expect_download() as download:
        page.locator("#name").press("Enter")
    file = download.value.path()
    page.locator("#certificate").set_input_files(file)
    press_to(page, "^Verify$")
    expect(page.locator("h1")).to_have_text("✓ It holds")
    expect(page.locator("main")).to_contain_text("Ada")
    forged = json.loads(Path(file).read_text("utf-8")) | {"name": "Bob"}
    buffer = {"name": "forged.json", "mimeType": "application/json", "buffer": json.dumps(forged).encode()}
    page.locator("#certificate").set_input_files(files=[buffer])  # type: ignore[arg-type]
    press_to(page, "^Verify$")
    expect(page.locator("main")).to_contain_text("changed after it was written")
    finish(page)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (320, False), (320, True)])
def test_nothing_serious_for_axe_and_nothing_wider_than_the_screen(
    browser: Browser, served: Served, width: int, dark: bool  # noqa: F811
) -> None:
    page = opened(browser, served, width=width, dark=dark)
    found = []
    for path in PAGES:
        page.goto(served.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        grave = [each for each in Axe().run(page).response["violations"] if each["impact"] in ("serious", "critical")]
        found += [(path, each["id"], each["nodes"][0]["html"][:150]) for each in grave]
    assert not found
    finish(page)


def test_lessons_quizzes_and_exercises_work_without_javascript(browser: Browser, served: Served) -> None:  # noqa: F811
    page = opened(browser, served, scripts=False)
    page.goto(served.url + "/course/architecture")
    assert page.locator("math").count() > 10
    page.goto(served.url + "/question/fourfold")
    page.locator('[name="given"]').fill("3")
    page.get_by_role("button", name="Answer").click()
    expect(page.locator("main")).to_contain_text("That is how the rest of the model grows.")
    page.goto(served.url + "/course/architecture/exercise/top-p")
    page.get_by_role("button", name="Run the checks").click()
    expect(page.locator("main")).to_contain_text("Not yet")
    finish(page)


def test_a_view_follows_its_settings(browser: Browser, served: Served) -> None:  # noqa: F811
    page = opened(browser, served)
    page.goto(served.url + "/view/merges")
    caption = page.locator("#view-figures figcaption").first
    expect(caption).to_contain_text("48 bytes in", timeout=60_000)
    page.locator("#s-merges").fill("0")
    expect(caption).to_contain_text("48 bytes in 48 tokens")
    page.locator("#s-text").fill("the fox")
    expect(caption).to_contain_text("7 bytes in 7 tokens")
    assert "text=the+fox" in page.url
    page.locator("#s-merges").fill("")
    page.locator("#s-text").press("Enter")
    expect(page.locator("#view-figures")).to_contain_text("merges is '', which is not a number")
    finish(page)
    page = opened(browser, served, scripts=False)
    page.goto(served.url + "/view/merges")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#view-figures figcaption").first).to_contain_text("48 bytes in")
    page.context.close()


def test_a_lab_can_be_stopped_and_followed_again(browser: Browser, served: Served) -> None:  # noqa: F811
    page = opened(browser, served)
    page.goto(served.url + "/course/architecture/lab/lab")
    page.locator("#s-steps").fill("2000")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#run-state")).to_contain_text("Running: ", timeout=60_000)
    page.reload()
    expect(page.locator("#run-figures polyline").first).to_be_attached()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#run-state")).to_have_text("Stopped.")
    page.goto(served.url + "/course/architecture/lab/lab")
    page.locator("#s-steps").fill("one")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("h1")).to_contain_text("is not a number")
    page.context.close()


def test_what_is_known_is_taken_along_and_brought_back(served: Served, tmp_path: Path) -> None:
    """Events and cards are files; a file that is none is a page that says so; a challenge ends with mastery."""
    with httpx.Client(base_url=served.url, follow_redirects=True) as client:
        own = {"token": served.pages.token}
        for _ in range(3):
            item = re.search(r"/question/([a-z0-9-]+)", str(client.get("/challenge/beam-search").url))
            assert item is not None
            given = right_answer(*served.learner.course.items[item[1]], 0)
            served.learner.answer(item[1], 0, given, "challenge")
        assert client.get("/challenge/beam-search").url.path == "/progress"
        assert served.learner.overview().concepts["beam-search"].status == "mastered"
        taken = client.get("/take/events")
        assert "bottega-course.jsonl" in taken.headers["content-disposition"]
        assert client.get("/take/anki").text.startswith("#separator:Comma")
        assert client.get("/take/all").status_code == 404
        with Served(tmp_path / "other") as other:
            files, theirs = {"file": ("e.jsonl", taken.content)}, {"token": other.pages.token}
            for said in ("3 events added", "0 events added"):
                assert said in httpx.post(other.url + "/import", data=theirs, files=files).text
            assert other.learner.overview().concepts["beam-search"].status == "mastered"
        for wrong in (b"[]", b"\xff\xfe", b"", b'{"format": "bottega-learner-1"}\n{"uuid": 1}'):
            for path in ("/import", "/verify"):
                assert client.post(path, data=own, files={"file": ("x", wrong)}).status_code == 400, (path, wrong)


def test_only_this_servers_own_pages_may_change_anything(served: Served) -> None:
    with httpx.Client(base_url=served.url) as client:
        assert client.post("/goal", data={"goal": "research"}).status_code == 403
        assert client.post("/goal", data={"goal": "research", "token": "guessed"}).status_code == 403
        right = {"goal": "research", "token": served.pages.token}
        assert client.post("/goal", data=right, headers={"Host": "evil.example"}).status_code == 403
        assert client.post("/goal", data=right).status_code == 303
        assert "evil" not in client.get("/question/first-loss?next=//evil.example/x").text
        policy = client.get("/").headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy
        for path in ("/course/nothing", "/course/new-trends", "/question/none", "/labs/../x", "/roadmap/x"):
            assert client.get(path).status_code == 404, path
    assert served.learner.goal().id == "research"


def test_the_server_is_small_and_quick_and_has_no_torch(tmp_path: Path) -> None:
    environment = {**os.environ, "BOTTEGA_WORKSPACE": str(tmp_path)}
    started = time.monotonic()
    command, pipe = [sys.executable, "-m", "bottega", "learn", "--port", "0"], subprocess.PIPE
    with subprocess.Popen(command, env=environment, stderr=pipe, stdout=pipe, text=True) as server:
        assert server.stderr is not None
        try:
            address = re.search(r"http://\S+", server.stderr.readline())
            assert address is not None
            assert time.monotonic() - started < 5  # 1 s on a machine that does nothing else
            with httpx.Client(base_url=address[0]) as client:
                client.get("/")
                begun = time.monotonic()
                assert client.get("/").status_code == 200
                assert time.monotonic() - begun < 1  # 0.2 s likewise
                for page in (*PAGES, "/ask?q=What does FlashAttention make linear?"):
                    assert client.get(page, follow_redirects=True).status_code == 200, page
            assert "libtorch" not in Path(f"/proc/{server.pid}/maps").read_text()
            memory = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())
            assert memory is not None and int(memory[1]) < 100_000  # kilobytes
        finally:
            server.terminate()
            server.wait(10)
