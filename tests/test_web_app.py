"""The web app as a process: pages without torch, /v1 passed through, the model's server kept alive."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from test_serve_api import CONTEXT, HELLO, load, make_model, wait_for_load

START = "import sys, json; from bottega.web.config import Web; from bottega.web.command import web; "
RUN = START + "web(Web.parse(json.loads(sys.argv[1])))"


@contextmanager
def running_web(*models: Path, **settings: Any) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A web app on a free port, with a workspace of its own: its address and process."""
    with tempfile.TemporaryDirectory() as workspace:
        values = {"model": [str(model) for model in models], "port": 0, "threads": 1, "workspace": workspace}
        with _running(values | settings) as running:
            yield running


@contextmanager
def _running(values: dict[str, Any]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen([sys.executable, "-c", RUN, json.dumps(values)], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        line = process.stderr.readline()
        while "Open http" not in line:
            assert line, "the web app ended before it listened"
            line = process.stderr.readline()
        yield line.split()[1], process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def wait_for_phase(url: str, phase: str, seconds: float = 20) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while (state := httpx.get(f"{url}/status").json())["phase"] != phase:
        assert time.monotonic() < end, state
        time.sleep(0.05)
    return state


def child_of(process: subprocess.Popen[str]) -> Path:
    """The /proc folder of the model's server."""
    (pid,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return Path("/proc") / pid


def wait_for_end(child: Path) -> None:
    end = time.monotonic() + 10
    while child.exists() and ") Z " not in (child / "stat").read_text():
        assert time.monotonic() < end, "the model's server lives on"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("web") / "tiny")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text("<!doctype html><title>Report</title><style>p{color:red}</style><p>Loss fell.</p>", "utf-8")
    return path


@pytest.fixture(scope="module")
def app(model: Path, report: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with running_web(model, report=str(report), max_batch=1, max_queue=0) as (url, process):
        wait_for_phase(url, "ready")
        yield url, process


@pytest.fixture(scope="module")
def url(app: tuple[str, subprocess.Popen[str]]) -> str:
    return app[0]


def test_the_web_app_loads_no_torch(app: tuple[str, subprocess.Popen[str]]) -> None:
    url, process = app
    assert httpx.get(url).status_code == 200
    assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
    assert "libtorch" in (child_of(process) / "maps").read_text()


def test_planning_loads_no_torch(model: Path) -> None:
    code = (
        START + "from bottega.core.plan import Specs; from bottega.web.command import plan_web; "
        "plan = plan_web(Web.parse(json.loads(sys.argv[1])), Specs()); plan.require(); "
        "import bottega.serve.__main__, bottega.serve.app; "
        "print('torch' in sys.modules, plan.as_data()['config']['api_key'])"
    )
    settings = json.dumps({"model": str(model), "port": 0, "api_key": "secret"})
    run = subprocess.run([sys.executable, "-c", code, settings], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == ["False", "(set)"]


def test_a_plan_says_what_is_wrong(model: Path, tmp_path: Path) -> None:
    from bottega.core.errors import UserError
    from bottega.core.plan import Specs
    from bottega.serve.listen import open_socket
    from bottega.web.command import plan_web
    from bottega.web.config import Web

    with open_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        values = {"model": str(model), "port": port, "report": str(tmp_path / "none.html")}
        with pytest.raises(UserError, match=r"none\.html.*in use"):
            plan_web(Web.parse(values), Specs()).require()
    with pytest.raises(UserError, match="no model"):
        plan_web(Web.parse({"model": str(tmp_path / "none")}), Specs())


def test_the_openai_client_works_through_the_web_app(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    ask: dict[str, Any] = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 20}
    whole = client.chat.completions.create(**ask).choices[0].message.content
    chunks = list(client.chat.completions.create(**ask, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole != ""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ask, extra_body={"mirostatus": 2})
    assert caught.value.param == "mirostatus"


def test_streams_arrive_while_they_are_made(url: str) -> None:
    body = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 400, "stream": True}
    times = []
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        times = [time.monotonic() for _ in answer.iter_raw()]
    assert len(times) > 20 and times[len(times) // 2] < times[-1] - 0.02


def inner_address(process: subprocess.Popen[str]) -> str:
    """Where the model's server of `process` listens, from the kernel's table of sockets."""
    child = child_of(process)
    sockets = {str(link.readlink()) for link in (child / "fd").iterdir()}
    for row in (child / "net/tcp").read_text().splitlines()[1:]:
        fields = row.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:  # 0A: listening
            return f"http://127.0.0.1:{int(fields[1].split(':')[1], 16)}"
    raise AssertionError("the model's server listens nowhere")


@pytest.mark.parametrize("stream", [True, False])
def test_a_hang_up_reaches_the_model(app: tuple[str, subprocess.Popen[str]], stream: bool) -> None:
    url, process = app
    inside = inner_address(process)
    wait_for_load(inside, (0, 0))
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    body = {"model": "tiny", "messages": HELLO, "temperature": 0, "stream": stream}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    wait_for_load(inside, (1, 0))
    assert load(inside) == (1, 0)
    refused = httpx.post(f"{url}/v1/chat/completions", json={**body, "max_tokens": 1})
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
    connection.close()
    wait_for_load(inside, (0, 0))
    # Nobody but the web app may use the inner server.
    assert httpx.get(f"{inside}/v1/models").status_code == 401


def test_pages_are_protected(url: str) -> None:
    for path in ("/", "/static/main.js", "/nothing"):
        headers = httpx.get(url + path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in headers and "access-control-allow-origin" not in headers
    assert httpx.get(url, headers={"Host": "rebound.example"}).status_code == 403
    assert httpx.get(f"{url}/nothing").status_code == 404
    assert (
        httpx.get(f"{url}/static/../app.py").status_code == 404 == httpx.get(f"{url}/static/%2e%2e/app.py").status_code
    )


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(url: str) -> None:
    page = httpx.get(url).text
    assert "style=" not in page and "onclick" not in page and "<style" not in page
    assert page.count("<script") == page.count('<script src="/static/') + page.count(
        '<script type="module" src="/static/'
    )
    assert "http://" not in page and "https://" not in page


def test_pages_of_other_sites_may_not_use_the_api(url: str) -> None:
    def status(**headers: str) -> int:
        body = {"model": "tiny", "messages": HELLO, "max_tokens": 1}
        return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers).status_code

    assert status() == 200 == status(Origin=url)
    assert status(Origin="https://evil.example") == 403 == status(**{"Sec-Fetch-Site": "cross-site"})
    plain = httpx.post(f"{url}/v1/chat/completions", content=b"{}", headers={"Content-Type": "text/plain"})
    assert plain.status_code in (400, 415, 422)


def test_a_path_reaches_the_model_as_it_is(url: str) -> None:
    answer = httpx.get(f"{url}/v1/models/tiny%3Fx%2541").json()
    assert "'tiny?x%41'" in answer["error"]["message"]


def test_the_report_is_shown_under_its_own_policy(url: str) -> None:
    answer = httpx.get(f"{url}/report")
    assert "Loss fell." in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "style-src 'unsafe-inline'" in policy and "script" not in policy


def test_the_key_guards_the_api_and_not_the_pages(model: Path) -> None:
    with running_web(model, api_key="k3y-of-test") as (url, process):
        wait_for_phase(url, "ready")
        assert httpx.get(url).status_code == 200
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer k3y-of-test"}).status_code == 200
        assert httpx.get(f"{url}/report").status_code == 404
        child = child_of(process)
        # Keys go over a pipe: neither the process list nor the environment shows one.
        assert b"k3y-of-test" not in (child / "cmdline").read_bytes() + (child / "environ").read_bytes()
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        wait_for_end(child)


def test_a_dead_server_is_started_again_and_an_answer_under_way_says_so(model: Path) -> None:
    with running_web(model) as (url, process):
        wait_for_phase(url, "ready")
        body = {"model": "tiny", "messages": HELLO, "temperature": 0, "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            os.kill(int(child_of(process).name), signal.SIGKILL)
            rest = [line for line in lines if line]
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "model_stopped"
        assert wait_for_phase(url, "crashed")["restarts"] == 1
        waiting = httpx.get(f"{url}/v1/models")
        assert waiting.status_code == 503 and waiting.headers["retry-after"] == "1"
        assert waiting.json()["error"]["code"] == "model_not_ready"
        wait_for_phase(url, "ready")
        facts = httpx.get(f"{url}/v1/models").json()["data"][0]["bottega"]
        assert facts["context_length"] == CONTEXT
        child = child_of(process)
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.terminate()
            last = [line for line in lines if line][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "going_down"
        assert process.wait(15) == 0
        wait_for_end(child)
        assert process.stderr and "Traceback" not in process.stderr.read()


def test_the_models_server_ends_with_a_killed_web_app(model: Path) -> None:
    with running_web(model) as (url, process):
        wait_for_phase(url, "ready")
        child = child_of(process)
        process.kill()
        process.wait(15)
        wait_for_end(child)


def test_a_model_that_cannot_be_served_is_said_and_not_tried_for_ever(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1000)
    values = json.dumps({"model": str(broken), "port": 0, "threads": 1})
    code = START.replace("; ", "\n") + (
        "from bottega.core.errors import UserError\n"
        "try:\n    web(Web.parse(json.loads(sys.argv[1])))\n"
        "except UserError as error:\n    print('REFUSED', error); sys.exit(error.exit_status)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, values], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2, run.stderr
    assert "REFUSED" in run.stdout and "model.safetensors" in run.stdout
