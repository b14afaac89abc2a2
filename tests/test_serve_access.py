"""Who may come in: keys, limits for each key, hosts, origins, and a server that others could reach."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.serve.access import Limits, keys_of
from bottega.serve.command import plan_serve
from bottega.serve.config import Serve
from bottega.serve.failures import ApiError
from bottega.serve.guard import HostRule
from test_serve_api import HELLO, make_app, make_model, start_and_fail

BASE = "http://127.0.0.1:8000"
ASK = {"model": "tiny", "messages": HELLO, "max_tokens": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("access") / "tiny")


def test_key_host_and_origin(model: Path) -> None:
    app = make_app(model, name="own-name", api_key="s3cret", trusted_hosts=["workshop.example"])
    keyed = {"Authorization": "Bearer s3cret"}
    with TestClient(app, base_url=BASE) as inside:

        def status(headers: dict[str, str], path: str = "/v1/models") -> int:
            return inside.get(path, headers=headers).status_code

        assert status({}) == 401 == status({"Authorization": "Bearer s3creT"}) == status({"Authorization": "s3cret"})
        assert status(keyed) == 200 == status({}, "/health") == status({}, "/metrics") == status({}, "/ready")
        assert inside.post("/tokenize", json={"prompt": "a"}).status_code == 401
        for host in ("localhost:8000", "[::1]:8000", "LOCALHOST", "workshop.example"):
            assert status({**keyed, "Host": host}) == 200
        for host in ("evil.example", "", "localhost.evil.example", "10.0.0.1", "[::1", "127.0.0.1@evil.example",
                     "evil@localhost", "localhost/v1", "localhost?", "localhost#"):  # fmt: skip
            assert status({**keyed, "Host": host}) == 403, host
        for origin in (
            "https://evil.example",
            "null",
            "http://[::1",
            "http://127.0.0.1:9999",
            "http://127.0.0.1:8000.evil.example",
        ):
            assert status({**keyed, "Origin": origin}) == 403, origin
        assert status({**keyed, "Origin": BASE}) == 200
        answer = inside.get("/v1/models", headers=keyed)
        assert answer.json()["data"][0]["id"] == "own-name"
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_body_needs_no_type_to_be_json(model: Path) -> None:
    """`curl URL -d '{…}'` calls it a form; other types are what they say."""
    content = b'{"model": "tiny", "prompt": "a", "max_tokens": 1}'
    with TestClient(make_app(model), base_url=BASE) as inside:

        def status(headers: dict[str, str]) -> int:
            return inside.post("/v1/completions", content=content, headers=headers).status_code

        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert status({}) == status(form) == status({"Content-Type": "application/json"}) == 200
        assert status({"Content-Type": "text/plain"}) == 400
        assert status({**form, "Origin": "https://evil.example"}) == status({"Origin": "null"}) == 403


def test_several_keys_each_with_its_own_limits(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the class\nk-two\n\n  k-three  \n")
    app = make_app(model, api_key="k-one", api_key_file=str(file), requests_per_minute=2)
    with TestClient(app, base_url=BASE) as inside:

        def ask(key: str) -> int:
            answer = inside.post("/v1/chat/completions", json=ASK, headers={"Authorization": f"Bearer {key}"})
            if answer.status_code == 429:
                assert answer.json()["error"]["code"] == "rate_limit_exceeded"
                assert 55 <= int(answer.headers["retry-after"]) <= 60
            return answer.status_code

        assert [ask("k-one") for _ in range(3)] == [200, 200, 429]
        assert [ask("k-three"), ask("k-two"), ask("k-four")] == [200, 200, 401]
        # What only looks is not counted.
        assert inside.get("/v1/models", headers={"Authorization": "Bearer k-one"}).status_code == 200


def test_limits_over_time_and_at_a_time() -> None:
    now = 0.0
    limits = Limits(2, 1, clock=lambda: now)
    limits.enter(b"a")
    with pytest.raises(ApiError, match="at a time"):
        limits.enter(b"a")
    limits.enter(b"b")
    limits.leave(b"a")
    now = 30.0
    limits.enter(b"a")
    limits.leave(b"a")
    with pytest.raises(ApiError) as caught:
        limits.enter(b"a")
    assert caught.value.headers["Retry-After"] == "30"
    now = 60.0
    limits.enter(b"a")


def test_only_named_origins_may_read(model: Path) -> None:
    app = make_app(model, api_key="k", cors_origin="https://app.example")
    friend = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-lib"}
    with TestClient(app, base_url=BASE) as inside:
        asked = inside.options("/v1/chat/completions", headers={**friend, **preflight})
        assert asked.status_code == 204 and asked.headers["access-control-allow-headers"] == "authorization,x-lib"
        assert asked.headers["access-control-allow-origin"] == "https://app.example"
        answer = inside.post("/v1/chat/completions", json=ASK, headers={**friend, "Authorization": "Bearer k"})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://app.example"
        # An error must be readable too, and a key is still needed.
        refused = inside.post("/v1/chat/completions", json=ASK, headers=friend)
        assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://app.example"
        stranger = {"Origin": "https://evil.example", "Authorization": "Bearer k"}
        for answer in (
            inside.options("/v1/chat/completions", headers={**stranger, **preflight}),
            inside.post("/v1/chat/completions", json=ASK, headers=stranger),
        ):
            assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


def test_a_server_that_others_reach_needs_a_key(model: Path, tmp_path: Path) -> None:
    status, said = start_and_fail({"model": str(model), "port": 0, "host": "0.0.0.0"})
    assert status == 2 and "--api-key" in said and "--allow-anonymous" in said
    for settings, passes in (
        ({}, False), ({"api_key": "k"}, True), ({"allow_anonymous": True}, True), ({"host": "127.0.0.1"}, True)
    ):  # fmt: skip
        config = Serve.parse({"model": str(model), "port": 0, "host": "0.0.0.0", **settings})
        (check,) = (check for check in plan_serve(config, Specs()).checks if check.name == "access")
        assert check.passed is passes
    (tmp_path / "empty").write_text("# none\n")
    for file in ("empty", "missing"):
        with pytest.raises(UserError, match="api_key_file"):
            keys_of(Serve.parse({"model": "x", "api_key_file": str(tmp_path / file)}))
    for wrong in ({"api_key": [""]}, {"cors_origin": "*"}, {"cors_origin": "https://a.example/path"}):
        with pytest.raises(UserError):
            Serve.parse({"model": "x", **wrong})


def test_a_wildcard_address_takes_any_number_and_no_strange_name() -> None:
    rule = HostRule("0.0.0.0")
    assert (
        rule.allows("192.168.1.7:8000") and rule.allows(f"{socket.gethostname()}:8000") and rule.allows("[fe80::1]:80")
    )
    assert not rule.allows("evil.example:8000") and not HostRule("127.0.0.1").allows("192.168.1.7:8000")
    assert HostRule("192.168.1.7").allows("192.168.1.7:8000")
