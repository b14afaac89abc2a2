"""Log-likelihoods over the wire (echo, /v1/score), embeddings and tokens, against the decoder's own log-softmax."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from torch import Tensor

from bottega.checkpoint.folder import ModelFolder
from bottega.model.decoder import Decoder
from bottega.model.load import load_decoder
from bottega.tokenizer.tokenizer import Tokenizer
from test_serve_api import CONTEXT, make_model, post, running_server

PANEL = "The master shows the apprentice how the panel is primed, größe."


@dataclass(frozen=True)
class Oracle:
    """The decoder itself, without an engine around it."""

    decoder: Decoder
    tokenizer: Tokenizer

    def ids(self, text: str) -> list[int]:
        return [*self.tokenizer.document_prefix(), *self.tokenizer.encode(text)]

    @torch.inference_mode()
    def rows(self, ids: list[int]) -> Tensor:
        """Log-probabilities (T, V) of what follows each token."""
        return self.decoder.logits(self.decoder.hidden(torch.tensor([ids]))[0]).float().log_softmax(-1)

    def logprobs(self, ids: list[int]) -> list[float]:
        """log p of each token but the first."""
        return self.rows(ids)[:-1].gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1).tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("score") / "tiny")


@pytest.fixture(scope="module")
def oracle(model: Path) -> Oracle:
    return Oracle(load_decoder(ModelFolder.open(model)), Tokenizer.load(model))


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with running_server(model) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30)


@pytest.mark.parametrize("as_ids", [True, False])
def test_echo_gives_the_prompts_log_probabilities(client: openai.OpenAI, oracle: Oracle, as_ids: bool) -> None:
    ids = oracle.ids(PANEL)
    answer = client.completions.create(
        model="tiny", prompt=ids if as_ids else PANEL, echo=True, max_tokens=0, logprobs=2, temperature=0
    )
    (choice,) = answer.choices
    assert choice.text == PANEL and choice.finish_reason == "length"
    assert answer.usage and answer.usage.completion_tokens == 0 and answer.usage.prompt_tokens == len(ids)
    found = choice.logprobs
    assert found and found.tokens and found.token_logprobs and found.top_logprobs and found.text_offset
    assert found.tokens == [oracle.tokenizer.token_text(id_) for id_ in ids]
    assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
    assert found.token_logprobs[1:] == pytest.approx(oracle.logprobs(ids), abs=1e-4)
    # Where the text offset points, the token's text begins (whole characters only).
    for token, offset in zip(found.tokens, found.text_offset, strict=True):
        assert "\\x" in token or token in oracle.tokenizer.control_tokens or PANEL[offset:].startswith(token)
    rows = oracle.rows(ids)
    for row, token, logprob, top in zip(
        rows, found.tokens[1:], found.token_logprobs[1:], found.top_logprobs[1:], strict=False
    ):
        assert top[token] == logprob  # the very number: so lm-eval can tell greedy tokens by comparing
        assert max(top.values()) == pytest.approx(float(row.max()), abs=1e-4)


def test_echo_goes_on_with_the_answer(client: openai.OpenAI, oracle: Oracle) -> None:
    settings: dict[str, Any] = {"model": "tiny", "prompt": PANEL, "temperature": 0, "max_tokens": 6, "logprobs": 1}
    plain = client.completions.create(**settings).choices[0]
    echoed = client.completions.create(**settings, echo=True).choices[0]
    assert echoed.text == PANEL + plain.text
    assert plain.logprobs and echoed.logprobs and echoed.logprobs.tokens and echoed.logprobs.text_offset
    count = len(oracle.ids(PANEL))
    assert echoed.logprobs.tokens[count:] == plain.logprobs.tokens
    assert echoed.logprobs.text_offset[count] == len(PANEL)
    chunks = list(client.completions.create(**settings, echo=True, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == echoed.text
    streamed = [
        token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.tokens or ()
    ]
    assert streamed == echoed.logprobs.tokens


def test_what_lm_eval_asks_for(url: str, oracle: Oracle) -> None:
    """The body and the arithmetic of lm-eval 0.4's `local-completions`: several prompts of ids, one token, echo."""
    contexts = [oracle.ids("The panel"), oracle.ids("The apprentice grinds")]
    continuations = [oracle.tokenizer.encode(" is primed"), oracle.tokenizer.encode(" the colours")]
    prompts = [[*context, *more] for context, more in zip(contexts, continuations, strict=True)]
    body = {"model": "tiny", "prompt": prompts, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    status, answer = post(url, "/v1/completions", body)
    assert status == 200, answer
    for choice, context, prompt in zip(answer["choices"], contexts, prompts, strict=True):
        length = len(context)
        found = choice["logprobs"]["token_logprobs"][length:-1]
        tops = choice["logprobs"]["top_logprobs"][length:-1]
        greedy = all(value == max(top.values()) for value, top in zip(found, tops, strict=True))
        expected = oracle.logprobs(prompt)[length - 1 :]
        assert sum(found) == pytest.approx(sum(expected), abs=1e-3)
        assert greedy == (oracle.rows(prompt)[length - 1 : -1].argmax(-1).tolist() == prompt[length:])


def test_score_sums_the_continuations(url: str, oracle: Oracle) -> None:
    context = oracle.ids("The master")
    greedy = [int(oracle.rows(context)[-1].argmax())]
    greedy.append(int(oracle.rows([*context, *greedy])[-1].argmax()))
    texts = [" shows the panel", "s", " größe"]
    body = {"model": "tiny", "context": "The master", "continuations": [*texts, greedy, [*greedy, 300]]}
    status, answer = post(url, "/v1/score", body)
    assert status == 200, answer
    scores = answer["data"]
    assert [score["is_greedy"] for score in scores] == [False, False, False, True, False]
    for score, text in zip(scores, texts, strict=False):
        assert score["token_ids"] == oracle.tokenizer.encode_inside(text)
        assert "".join(score["tokens"]) == text
    for score in scores:
        expected = oracle.logprobs([*context, *score["token_ids"]])[len(context) - 1 :]
        assert score["token_logprobs"] == pytest.approx(expected, abs=1e-4)
        assert score["logprob"] == pytest.approx(sum(expected), abs=1e-3)
    assert answer["usage"]["prompt_tokens"] == sum(len(context) + len(score["token_ids"]) for score in scores)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"continuations": []}, "continuations"),
        ({"continuations": [""]}, "continuations[0]"),
        ({"continuations": ["a", [100_000]]}, "continuations[1]"),
        ({"continuations": [["a"]]}, "continuations[0]"),
        ({"context": [300] * CONTEXT}, "continuations[0]"),
        ({"context": []}, "context"),
        ({"context": None}, "context"),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_scores_that_cannot_be_are_refused(url: str, change: dict[str, Any], param: str) -> None:
    status, answer = post(url, "/v1/score", {"model": "tiny", "context": "a", "continuations": ["b"], **change})
    assert status == 400 and answer["error"]["param"] == param, answer


def test_a_prompt_that_fills_the_context_is_scored(url: str, oracle: Oracle) -> None:
    body = {"model": "tiny", "prompt": [300] * CONTEXT, "echo": True, "max_tokens": 0, "logprobs": 0}
    status, answer = post(url, "/v1/completions", body)
    assert status == 200 and len(answer["choices"][0]["logprobs"]["tokens"]) == CONTEXT
    status, answer = post(url, "/v1/completions", {**body, "prompt": [300] * (CONTEXT + 1)})
    assert status == 400 and answer["error"]["code"] == "context_length_exceeded"
    status, answer = post(url, "/v1/completions", {**body, "echo": False})
    assert status == 400 and answer["error"]["param"] == "max_tokens"


def test_several_prompts_choices_and_the_best_of(client: openai.OpenAI) -> None:
    prompts = ["The panel", "The colours"]
    both = client.completions.create(model="tiny", prompt=prompts, n=2, seed=3, max_tokens=8)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    alone = client.completions.create(model="tiny", prompt=prompts[1], n=2, seed=3, max_tokens=8)
    assert [choice.text for choice in both.choices[2:]] == [choice.text for choice in alone.choices]
    assert both.choices[0].text != both.choices[1].text
    assert both.usage and alone.usage and both.usage.completion_tokens == 32
    chunks = client.completions.create(model="tiny", prompt=prompts, n=2, seed=3, max_tokens=8, stream=True)
    texts = dict.fromkeys(range(4), "")
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert list(texts.values()) == [choice.text for choice in both.choices]
    best = client.completions.create(model="tiny", prompt=prompts[0], best_of=4, seed=3, max_tokens=8, logprobs=0)
    candidates = client.completions.create(model="tiny", prompt=prompts[0], n=4, seed=3, max_tokens=8, logprobs=0)

    def mean(choice: Any) -> float:
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    assert best.choices[0].text == max(candidates.choices, key=mean).text and len(best.choices) == 1
    assert best.usage and best.usage.completion_tokens == candidates.usage.completion_tokens  # type: ignore[union-attr]


def test_embeddings_are_means_of_hidden_states(client: openai.OpenAI, oracle: Oracle, url: str) -> None:
    texts = [PANEL, "colour"]
    found = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
    assert [entry.index for entry in found.data] == [0, 1]
    for text, entry in zip(texts, found.data, strict=True):
        with torch.inference_mode():
            mean = oracle.decoder.hidden(torch.tensor([oracle.ids(text)]))[0].mean(0)
        assert entry.embedding == pytest.approx((mean / mean.norm()).tolist(), abs=1e-4)
    packed = post(url, "/v1/embeddings", {"model": "tiny", "input": texts[1], "encoding_format": "base64"})[1]
    raw = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
    assert raw.tolist() == pytest.approx(found.data[1].embedding, abs=1e-6)
    # OpenAI's client asks for base64 by itself.
    assert client.embeddings.create(model="tiny", input=oracle.ids("colour")).data[0].embedding == pytest.approx(
        found.data[1].embedding, abs=1e-6
    )
    for change, param in (({"dimensions": 8}, "dimensions"), ({"input": []}, "input"), ({"input": [[]]}, "input")):
        status, answer = post(url, "/v1/embeddings", {"model": "tiny", "input": "a", **change})
        assert status == 400 and answer["error"]["param"] == param, answer


def test_tokens_there_and_back(url: str, oracle: Oracle) -> None:
    _, made = post(url, "/tokenize", {"model": "tiny", "prompt": PANEL})
    assert made["tokens"] == oracle.ids(PANEL) and made["count"] == len(made["tokens"])
    assert made["max_model_len"] == CONTEXT and len(made["token_strs"]) == made["count"]
    assert post(url, "/detokenize", {"tokens": oracle.tokenizer.encode(PANEL)})[1] == {"prompt": PANEL}
    chat = post(url, "/tokenize", {"messages": [{"role": "user", "content": "a"}]})[1]["tokens"]
    assert post(url, "/detokenize", {"tokens": chat})[1]["prompt"].startswith("<|im_start|>user\na")
    assert post(url, "/detokenize", {"tokens": [10**9]})[0] == 400 == post(url, "/tokenize", {})[0]


def test_cached_tokens_are_told(client: openai.OpenAI) -> None:
    prompt = "The apprentice grinds the colours. " * 20
    first = client.completions.create(model="tiny", prompt=prompt, max_tokens=1).usage
    again = client.completions.create(model="tiny", prompt=prompt, max_tokens=1).usage
    assert first and again and first.prompt_tokens_details and again.prompt_tokens_details
    assert (first.prompt_tokens_details.cached_tokens or 0) < 0.2 * first.prompt_tokens
    assert again.prompt_tokens > (again.prompt_tokens_details.cached_tokens or 0) > 0.8 * again.prompt_tokens


def test_metrics_count_what_was_done(url: str) -> None:
    def read() -> dict[str, float]:
        text = httpx.get(f"{url}/metrics").text
        rows = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in rows}

    before = read()
    assert post(url, "/v1/completions", {"model": "tiny", "prompt": "The", "max_tokens": 5, "temperature": 0})[0] == 200
    assert post(url, "/v1/completions", {"model": "tiny", "prompt": [-1]})[0] == 400
    assert post(url, "/no/such/path", {})[0] == 404
    after = read()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown('bottega_requests_total{route="/v1/completions",status="200"}') == 1
    assert grown('bottega_requests_total{route="/v1/completions",status="400"}') == 1
    assert grown('bottega_requests_total{route="other",status="404"}') == 1
    assert grown('bottega_generated_tokens_total{model="tiny"}') == 5
    assert grown('bottega_prompt_tokens_total{model="tiny"}') >= 1
    for name in ("time_to_first_token_seconds", "time_per_output_token_seconds", "request_seconds"):
        assert grown(f'bottega_{name}_count{{model="tiny"}}') == 1
        assert grown(f'bottega_{name}_bucket{{model="tiny",le="+Inf"}}') == 1
    assert after['bottega_requests_running{model="tiny"}'] == 0 and after['bottega_kv_blocks{model="tiny"}'] > 0
