"""The OpenAPI document: complete, true to the answers, and requests made from it meet no failure of the server's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bottega.serve.openapi import ROUTES
from documented_requests import Documented, spoilt
from test_serve_api import HELLO, make_model, post, running_server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("openapi") / "tiny", context=96)


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with running_server(model) as (port, child):
        yield f"http://127.0.0.1:{port}"
        child.terminate()
        assert child.wait(10) == 0 and child.stderr
        said = child.stderr.read().decode()
        assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    return httpx.get(f"{url}/openapi.json").json()


def test_every_route_is_described(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == set(ROUTES) and document["openapi"].startswith("3.1")
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "cdn" not in json.dumps(document)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"] and "200" in operation["responses"]
            guarded = path.startswith(("/v1", "/api", "/tokenize", "/detokenize"))
            assert ("security" in operation) == guarded == ("401" in operation["responses"]), path
    # Every reference leads somewhere, and every schema is one.
    names = set(document["components"]["schemas"])
    assert set(_references(document)) <= {f"#/components/schemas/{name}" for name in names}
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_with_keys_the_document_says_so(model: Path) -> None:
    with running_server(model, api_key=["secret"]) as (port, _):
        url = f"http://127.0.0.1:{port}"
        document = httpx.get(f"{url}/openapi.json").json()
        assert document["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
        assert "security" not in document["paths"]["/health"]["get"]
        for path in ("/v1/models", "/api/tags"):
            answer = httpx.get(url + path)
            assert answer.status_code == 401
            validate(document, path, "get", answer)


def validate(document: dict[str, Any], path: str, method: str, answer: httpx.Response) -> None:
    """The answer is one that the document allows."""
    response = document["paths"][path][method]["responses"][str(answer.status_code)]
    schema = response["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), {**schema, "components": document["components"]})


RICH: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 9, "logprobs": True, "top_logprobs": 2, "n": 2}),
    ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 3, "guided_json": {"type": "object"}}),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 9, "logprobs": 2, "echo": True, "n": 2}),
    ("/v1/completions", {"prompt": [5, 6], "max_tokens": 9, "guided_choice": ["panel", "oil"]}),
    ("/v1/responses", {"input": "Hi.", "max_output_tokens": 5, "include": ["message.output_text.logprobs"]}),
    ("/v1/responses", {"input": "Hi.", "text": {"format": {"type": "json_object"}}, "max_output_tokens": 5}),
    ("/v1/embeddings", {"input": ["a", "b"]}),
    ("/v1/embeddings", {"input": [4, 5], "encoding_format": "base64"}),
    ("/v1/score", {"context": "a", "continuations": [" panel", [7]]}),
    ("/v1/render", {"messages": HELLO}),
    ("/tokenize", {"prompt": "a panel"}),
    ("/detokenize", {"tokens": [5, 6, 7]}),
    ("/api/chat", {"messages": HELLO, "stream": False, "options": {"num_predict": 5}, "logprobs": True}),
    ("/api/chat", {"messages": [], "keep_alive": "5m"}),
    ("/api/generate", {"prompt": "Hi.", "stream": False, "format": "json", "options": {"num_predict": 5}}),
    ("/api/embed", {"input": "a"}),
    ("/api/embeddings", {"prompt": "a"}),
    ("/api/show", {}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), RICH)
def test_full_answers_are_as_described(url: str, document: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    answer = httpx.post(url + path, json={"model": "tiny", **body}, timeout=30)
    assert answer.status_code == 200, answer.text
    validate(document, path, "post", answer)
    # The request is one that the document allows, too, and a wrong field is not.
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": document["components"]}
    jsonschema.validate({"model": "tiny", **body}, whole)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model": "tiny", **body, "temprature": 1}, whole)
    status, refused = post(url, path, {"model": "tiny", **body, "temprature": 1})
    assert status == 400 and refused.get("param", refused["error"]) and "temprature" in json.dumps(refused)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny", "/api/tags", "/api/ps", "/api/version", "/health",
                                  "/live", "/ready"])  # fmt: skip
def test_what_only_looks_is_as_described(url: str, document: dict[str, Any], path: str) -> None:
    validate(document, path.replace("/tiny", "/{model}"), "get", httpx.get(url + path))


def fuzz(url: str, document: dict[str, Any], spoil: bool, examples: int) -> Counter[int]:
    """Requests made from the document, `examples` in all; how many had which status."""
    documented, statuses = Documented(document), Counter[int]()
    posts = {path: operations["post"] for path, operations in document["paths"].items() if "post" in operations}

    def bodies(path: str) -> st.SearchStrategy[tuple[str, Any]]:
        made = documented.values(posts[path]["requestBody"]["content"]["application/json"]["schema"])
        named = made.map(lambda body: {**body, "model": "tiny"})  # else every request ends at the name
        return st.tuples(st.just(path), spoilt(named) if spoil else named)

    with httpx.Client(base_url=url, timeout=30) as client:

        @given(case=st.sampled_from(sorted(posts)).flatmap(bodies))
        @settings(max_examples=examples, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        def ask(case: tuple[str, Any]) -> None:
            path, body = case
            content = json.dumps(body).encode("utf-8", "surrogatepass")
            answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
            statuses[answer.status_code] += 1
            assert answer.status_code < 500, (path, body, answer.text)
            if "application/json" in answer.headers["content-type"]:
                validate(document, path, "post", answer)
            else:
                allowed = posts[path]["responses"]["200"]["content"]
                assert answer.status_code == 200 and answer.headers["content-type"].partition(";")[0] in allowed
                assert "internal_error" not in answer.text

        ask()
    return statuses


@pytest.mark.parametrize("spoil", [False, True])
def test_requests_from_the_document_meet_no_failure(url: str, document: dict[str, Any], spoil: bool) -> None:
    statuses = fuzz(url, document, spoil, 150)
    assert statuses[200] > 10 and statuses[400] > 10


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [False, True])
def test_many_requests_from_the_document_meet_no_failure(url: str, document: dict[str, Any], spoil: bool) -> None:
    statuses = fuzz(url, document, spoil, 2000)
    assert statuses[200] > 150 and statuses[400] > 150
