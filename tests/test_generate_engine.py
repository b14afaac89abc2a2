"""The engine: any family, any schedule, the same tokens as one request at a time, to the last bit; no block is lost."""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from bottega.checkpoint.adapter import Adapter
from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.generate.engine import Engine
from bottega.generate.request import Request
from bottega.generate.runner import Runner
from bottega.generate.sampling import Choice
from bottega.generate.settings import Sampling
from bottega.generate.speculate.controller import Controller, Plan
from bottega.generate.speculate.lookup import PromptLookup
from bottega.generate.speculate.proposer import Draft, Proposer
from bottega.generate.speculation import Speculator
from bottega.model import inference
from bottega.model.adapters import AdapterRows, attach
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder
from bottega.model.inference import prepare_for_inference
from bottega.model.load import load_decoder
from bottega.model.paged import PagedCache, Span, Step
from test_model_families import MODELS, folders  # noqa: F401

GREEDY = Sampling(max_new_tokens=12, temperature=0.0, logprobs=True)


def decoder_of(**changes: Any) -> Decoder:
    sizes: dict[str, Any] = {
        "vocab_size": 61, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "initializer_range": 0.3,
    }  # fmt: skip
    return (
        Decoder(ModelConfig(**{**sizes, **changes})).initialise(torch.Generator().manual_seed(1)).requires_grad_(False)
    )


def engine_of(
    decoder: Decoder, *, blocks: int = 64, cache: Any = "float32", adapters: AdapterRows | None = None, **how: Any
) -> Engine:
    """An engine over a prepared decoder."""
    runner = Runner(decoder, PagedCache(decoder.config, blocks, cache), adapters)
    return Engine(runner, **{"max_batch": 4, **how})


@dataclass
class Told:
    """What an engine said of one request."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)

    def add(self, choices: list[Choice]) -> None:
        self.tokens += [choice.token for choice in choices]
        self.logprobs += [choice.logprob for choice in choices]


def run(engine: Engine, requests: list[Request]) -> list[Told]:
    """Step until all have their tokens; whoever has them is ended."""
    told = {request: Told() for request in requests}
    while engine.has_work:
        for request, choices in engine.step():
            told[request].add(choices)
            if len(request.tokens) >= request.limit:
                engine.end(request)
        engine.check_integrity()
    return [told[request] for request in requests]


def alone(decoder: Decoder, prompt: list[int], sampling: Sampling = GREEDY, **how: Any) -> Told:
    """What the request gets from an engine of its own, whose steps are as large as it likes."""
    engine = engine_of(decoder, step_tokens=1024, **how)
    (told,) = run(engine, [engine.add(prompt, sampling)])
    return told


@pytest.mark.parametrize("name", MODELS)
def test_every_family_continues_as_by_recomputation_of_everything(name: str, folders: Any) -> None:  # noqa: F811
    plain = load_decoder(folders(name))
    prepared = prepare_for_inference(copy.deepcopy(plain))
    source = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 97, (length,), generator=source).tolist() for length in (1, 5, 17, 30)]
    engine = engine_of(prepared, blocks=8, step_tokens=7, max_batch=3)
    together = run(engine, [engine.add(prompt, GREEDY) for prompt in prompts])
    for prompt, told in zip(prompts, together, strict=True):
        ids, limit = list(prompt), len(prompt) + 12
        for token, logprob in zip(told.tokens, told.logprobs, strict=True):
            # In a cache of the request's size: positions that adapt to the length of a text adapt to that one.
            with torch.inference_mode():
                row = plain(torch.tensor([ids]), KVCache(plain.config, 1, limit))[0, -1].log_softmax(-1)
            assert token == int(row.argmax())
            assert logprob == pytest.approx(float(row[token]), abs=1e-4)
            ids.append(token)


@pytest.mark.parametrize("name", MODELS)
def test_no_row_of_any_family_depends_on_the_others_by_a_bit(name: str, folders: Any) -> None:  # noqa: F811
    decoder = prepare_for_inference(load_decoder(folders(name)))
    source = torch.Generator().manual_seed(5)
    texts = [torch.randint(3, 97, (length,), generator=source).tolist() for length in (1, 2, 7, 19, 30)]
    blocks = [[2 * number, 2 * number + 1] for number in range(len(texts))]

    def hidden(cache: PagedCache, spans: list[tuple[int, int, int]]) -> list[Tensor]:
        """Of each (text, start, count) of one step, (count, H)."""
        parts = [Span(texts[text][start : start + count], start, blocks[text], 32) for text, start, count in spans]
        return list(decoder.advance(Step(cache, parts)).split([count for *_, count in spans]))

    with torch.inference_mode():
        together = hidden(PagedCache(decoder.config, 10), [(text, 0, len(ids)) for text, ids in enumerate(texts)])
        cache = PagedCache(decoder.config, 10)
        for text, ids in enumerate(texts):
            singly = [hidden(cache, [(text, place, 1)])[0] for place in range(len(ids))]
            assert torch.equal(torch.cat(singly), together[text])


class Guesses(Proposer):
    """Drafts of which many stand: what the request would say alone, with a wrong token now and then."""

    def __init__(self, answers: dict[tuple[int, ...], list[int]], wrong: int) -> None:
        self.answers, self.wrong = answers, wrong

    def propose_many(self, drafts: list[Draft]) -> list[list[int]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return [self._guess(draft.tokens, draft.length) for draft in drafts]

    def _guess(self, tokens: list[int], length: int) -> list[int]:
        known = next(answer for prompt, answer in self.answers.items() if answer[: len(tokens)] == tokens)
        guess = known[len(tokens) : len(tokens) + length]
        return [
            (token + 1) % 61 if place % 3 == self.wrong else token for place, token in enumerate(guess, len(tokens))
        ]

    def forget(self, request: object) -> None:
        pass


class Always(Controller):
    """Drafts whether it pays or not."""

    def plan(self, limits: Any) -> Plan:
        return Plan({request: max(0, min(self.max_length, limit)) for request, limit in limits.items()})


@dataclass(frozen=True)
class Asked:
    """One request of a schedule."""

    prefix: int
    extra: int
    new_tokens: int
    priority: int
    adapter: str | None
    arrival: int
    patience: int | None
    sampled: bool


ASKED = st.builds(
    Asked,
    prefix=st.sampled_from([0, 3, 16, 33, 48]),
    extra=st.integers(1, 20),
    new_tokens=st.integers(0, 20),
    priority=st.integers(-1, 1),
    adapter=st.sampled_from([None, None, "one", "other"]),
    arrival=st.integers(0, 12),
    patience=st.none() | st.integers(0, 12),
    sampled=st.booleans(),
)
SCHEDULES = st.fixed_dictionaries(
    {
        "asked": st.lists(ASKED, min_size=1, max_size=8),
        "blocks": st.integers(6, 24),
        "max_batch": st.integers(1, 5),
        "step_tokens": st.sampled_from([1, 5, 16, 40, 512]),
        "drafts": st.sampled_from([0, 0, 1, 4]),
        "wrong": st.integers(0, 5),
    }
)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoder, AdapterRows]:
    """A decoder with two adapters beside each other."""
    decoder = prepare_for_inference(decoder_of())
    opened = {name: Adapter.open(write_adapter(tmp_path_factory.mktemp(name), len(name))) for name in ("one", "other")}
    return decoder, attach(decoder, opened)


def write_adapter(folder: Path, seed: int) -> Path:
    """A LoRA of rank 4 on two kinds of layers."""
    source = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(2):
        for module, size in (("self_attn.q_proj", 32), ("self_attn.v_proj", 16), ("mlp.up_proj", 64)):
            path = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{path}.lora_A.weight"] = torch.randn(4, 32, generator=source)
            tensors[f"{path}.lora_B.weight"] = torch.randn(size, 4, generator=source) * 0.3
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    return folder


def check_schedule(schedule: dict[str, Any], adapted: tuple[Decoder, AdapterRows], known: dict[Any, Told]) -> None:
    """Run a schedule of arrivals and departures; everybody gets what they would get alone, as far as they waited."""
    decoder, rows = adapted
    source = torch.Generator().manual_seed(4)
    prefix = torch.randint(3, 61, (48,), generator=source).tolist()
    plans = []
    for number, asked in enumerate(schedule["asked"]):
        own = torch.randint(3, 61, (asked.extra,), generator=torch.Generator().manual_seed(number)).tolist()
        temperature = 1.0 if asked.sampled else 0.0
        sampling = Sampling(max_new_tokens=asked.new_tokens, temperature=temperature, seed=number, logprobs=True)
        plans.append((asked, prefix[: asked.prefix] + own, sampling))
        key = (number, asked.prefix, asked.extra, asked.sampled, asked.adapter)
        if key not in known:  # an answer is the beginning of any longer one
            full = dataclasses.replace(sampling, max_new_tokens=20)
            engine = engine_of(decoder, adapters=rows, step_tokens=512)
            (known[key],) = run(engine, [engine.add(plans[-1][1], full, adapter=asked.adapter)])
    keys = [(n, a.prefix, a.extra, a.sampled, a.adapter) for n, (a, _, _) in enumerate(plans)]
    answers = {tuple(p): p + known[key].tokens for (_, p, _), key in zip(plans, keys, strict=True)}
    speculator = None
    if schedule["drafts"]:
        speculator = Speculator(Guesses(answers, schedule["wrong"]))
        speculator.controller = Always(schedule["drafts"])
    engine = engine_of(
        decoder, adapters=rows, speculator=speculator,
        **{key: schedule[key] for key in ("blocks", "max_batch", "step_tokens")},
    )  # fmt: skip
    requests: dict[Request, int] = {}
    told: dict[int, Told] = {}
    for step in range(2000):
        for number, (asked, prompt, sampling) in enumerate(plans):
            if asked.arrival == step:
                try:
                    request = engine.add(prompt, sampling, priority=asked.priority, adapter=asked.adapter)
                except UserError:
                    assert len(prompt) + min(asked.new_tokens, 1) > engine.capacity
                    continue
                requests[request], told[number] = number, Told()
            elif asked.patience is not None and asked.arrival + asked.patience + 1 == step:
                for request in [each for each, owner in requests.items() if owner == number]:
                    engine.end(request)
        for request, choices in engine.step():
            told[requests[request]].add(choices)
            if len(request.tokens) >= request.limit:
                engine.end(request)
        engine.check_integrity()
        if step > 30 and not engine.has_work:
            break
    assert not engine.has_work, "somebody waits for ever"
    assert engine.pool.free == engine.pool.count, "a block leaked"
    for request, number in requests.items():
        mine, whole = told[number], known[keys[number]]
        wanted = request.limit - request.prompt_length
        assert mine.tokens == whole.tokens[: len(mine.tokens)]
        assert mine.logprobs == whole.logprobs[: len(mine.tokens)], "a log-probability differs in its last bits"
        assert len(mine.tokens) == wanted or plans[number][0].patience is not None


KNOWN: dict[Any, Told] = {}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=SCHEDULES)
def test_no_schedule_changes_an_answer(schedule: dict[str, Any], adapted: tuple[Decoder, AdapterRows]) -> None:
    check_schedule(schedule, adapted, KNOWN)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=SCHEDULES)
def test_no_schedule_of_many_changes_an_answer(schedule: dict[str, Any], adapted: tuple[Decoder, AdapterRows]) -> None:
    check_schedule(schedule, adapted, KNOWN)


def test_adapters_beside_each_other_equal_adapters_put_on(tmp_path: Path) -> None:
    plain = decoder_of()
    (tmp_path / "a").mkdir()
    adapter = Adapter.open(write_adapter(tmp_path / "a", 3))
    merged = copy.deepcopy(plain)
    weights = dict(merged.named_parameters())
    for name, change in adapter.changes.items():
        down, up = (change.parts[kind].load() for kind in ("lora_A.weight", "lora_B.weight"))
        weights[name].data += change.scale * up @ down
    beside = prepare_for_inference(copy.deepcopy(plain))
    engine = engine_of(beside, adapters=attach(beside, {"a": adapter}))
    prompt = [5, 9, 11, 40]
    with_it, without = run(engine, [engine.add(prompt, GREEDY, adapter="a"), engine.add(prompt, GREEDY)])
    expected = alone(prepare_for_inference(merged), prompt)
    assert with_it.tokens == expected.tokens != without.tokens
    assert with_it.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert without == alone(prepare_for_inference(plain), prompt)


def test_an_adapter_that_cannot_stand_beside_others_is_refused(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, 0)
    parts = {"lora_A": torch.zeros(4, 32), "lora_B": torch.zeros(61, 4)}
    tensors = {f"base_model.model.lm_head.{kind}.weight": part for kind, part in parts.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match="beside others: lm_head"):
        attach(prepare_for_inference(decoder_of()), {"a": Adapter.open(folder)})


def test_a_prefix_that_was_seen_is_not_computed_again() -> None:
    engine = engine_of(prepare_for_inference(decoder_of()))
    prompt = list(range(3, 53))
    first = engine.add(prompt, GREEDY)
    run(engine, [first])
    again, longer, other = (engine.add(each, GREEDY) for each in (prompt, [*prompt, 7, 8], [9, *prompt]))
    told = run(engine, [again, longer, other])
    assert (first.cached, again.cached, longer.cached, other.cached) == (0, 49, 48, 0)
    assert told[0] == alone(engine.runner.decoder, prompt)
    conversation = engine.add([*prompt, *told[0].tokens, 3, 4], GREEDY)
    run(engine, [conversation])
    assert conversation.cached == 48  # 61 of 62 tokens are in the cache, in three full blocks


def test_what_is_scored_behind_one_context_computes_it_once() -> None:
    decoder = prepare_for_inference(decoder_of())
    context = list(range(3, 40))
    texts = [[*context, *end] for end in ([7], [8], [9, 10, 11], [9, 12], [13] * 20)]
    whole = Sampling(max_new_tokens=0, prompt_logprobs=1)
    behind = Sampling(max_new_tokens=0, prompt_logprobs=1, prompt_logprobs_from=len(context))
    engine = engine_of(decoder)
    scored = [engine.add(text, behind) for text in texts]
    run(engine, scored)
    for text, request in zip(texts, scored, strict=True):
        alone_ = engine_of(decoder)
        every = alone_.add(text, whole)
        run(alone_, [every])
        assert request.prompt_scores is not None and every.prompt_scores is not None
        assert request.prompt_scores == [*[None] * len(context), *every.prompt_scores[len(context) :]]
    # The second to fifth begin with 32 tokens of full blocks, and copy 4 of the next; the 37th predicts their first.
    assert [request.cached for request in scored] == [0, 36, 36, 36, 36]
    engine.check_integrity()


def test_scores_do_not_depend_on_what_is_copied_evicted_and_preempted() -> None:
    decoder = prepare_for_inference(decoder_of())
    context = list(range(3, 40))
    starts = [20 + 5 * (number % 4) for number in range(24)]
    texts = [[*context[:start], place, *range(place, place + place % 9 + 2)] for place, start in enumerate(starts)]
    whole = Sampling(max_new_tokens=0, prompt_logprobs=1)
    expected = []
    for text in texts:
        alone_ = engine_of(decoder)
        every = alone_.add(text, whole)
        run(alone_, [every])
        expected.append(every.prompt_scores)
    engine = engine_of(decoder, blocks=7, step_tokens=9)
    behind = [dataclasses.replace(whole, prompt_logprobs_from=start) for start in starts]
    requests: list[Request] = []
    for number, (text, sampling) in enumerate(zip(texts, behind, strict=True)):
        requests += [
            engine.add(text, sampling, priority=number % 3),
            engine.add(text[:25], GREEDY, priority=number % 2),
        ]
    told = run(engine, requests)
    assert engine.scheduler.preemptions
    for number, request in enumerate(requests[::2]):
        start, whole_scores = starts[number], expected[number]
        assert request.prompt_scores is not None and whole_scores is not None
        assert request.prompt_scores == [*[None] * start, *whole_scores[start:]]
    for request, said in zip(requests[1::2], told[1::2], strict=True):
        assert said == alone(decoder, request.tokens[: request.prompt_length])


def test_scoring_that_begins_at_the_end_of_a_prompt_scores_nothing() -> None:
    engine = engine_of(prepare_for_inference(decoder_of()))
    prompt = list(range(3, 23))
    for start in (20, 99):
        none = Sampling(max_new_tokens=0, prompt_logprobs=0, prompt_logprobs_from=start)
        for _ in range(2):
            request = engine.add(prompt, none)
            run(engine, [request])
            assert request.prompt_scores == [None] * 20
    with pytest.raises(UserError, match="need prompt_logprobs"):
        Sampling(prompt_logprob_ids=(3,))
    with pytest.raises(UserError, match="prompt_logprob_ids has token id 61"):
        Sampling(prompt_logprobs=0, prompt_logprob_ids=(61,)).for_model(61, frozenset())


def test_a_block_that_is_copied_from_may_be_the_last_one_free() -> None:
    decoder = prepare_for_inference(decoder_of())
    prompt = list(range(3, 23))
    engine = engine_of(decoder, blocks=2)
    first = run(engine, [engine.add(prompt, Sampling(max_new_tokens=3, temperature=0))])
    second = run(engine, [engine.add(prompt, Sampling(max_new_tokens=3, temperature=0))])
    assert first == second


def test_requests_that_come_together_share_what_they_begin_with() -> None:
    engine = engine_of(prepare_for_inference(decoder_of()), max_batch=8)
    requests = [engine.add([*range(3, 40), number], GREEDY) for number in range(4)]
    run(engine, requests)
    assert [request.cached for request in requests] == [0, 37, 37, 37]


def test_prompt_log_probabilities_do_not_depend_on_the_steps() -> None:
    decoder = prepare_for_inference(decoder_of())
    prompt = torch.randint(3, 61, (50,), generator=torch.Generator().manual_seed(2)).tolist()
    scored = Sampling(max_new_tokens=0, prompt_logprobs=2)
    found = []
    for step_tokens in (512, 7):
        engine = engine_of(decoder, step_tokens=step_tokens)
        requests = [engine.add(prompt, scored), engine.add(prompt[:20], GREEDY)]
        run(engine, requests)
        found.append(requests[0].prompt_scores)
    assert found[0] == found[1] and found[0] is not None and found[0][0] is None
    expected = decoder(torch.tensor([prompt]))[0].log_softmax(-1)
    for place, score in enumerate(found[0][1:]):
        assert score is not None
        assert score[0] == pytest.approx(float(expected[place, prompt[place + 1]]), abs=1e-4)
        assert [value for _, value in score[1]] == pytest.approx(expected[place].topk(2).values.tolist(), abs=1e-4)


def test_the_more_urgent_goes_first_and_takes_a_place() -> None:
    engine = engine_of(prepare_for_inference(decoder_of()), max_batch=1)
    slow = engine.add([4, 5], GREEDY)
    engine.step()
    urgent = engine.add([6, 7], GREEDY, priority=1)
    ended = []
    while engine.has_work:
        for request, _ in engine.step():
            if len(request.tokens) >= request.limit:
                engine.end(request)
                ended.append(request)
    assert ended == [urgent, slow] and slow.preemptions == 1


@pytest.mark.parametrize("cache", ["bfloat16", "int8"])
def test_narrow_caches_keep_the_guarantee_and_come_close(cache: str) -> None:
    decoder = prepare_for_inference(decoder_of())
    prompts = [torch.randint(3, 61, (length,)).tolist() for length in (3, 40, 18)]
    engine = engine_of(decoder, cache=cache, blocks=9, step_tokens=11)
    told = run(engine, [engine.add(prompt, GREEDY) for prompt in prompts])
    for prompt, mine in zip(prompts, told, strict=True):
        assert mine == alone(decoder, prompt, cache=cache)
        exact = alone(decoder, prompt)
        assert mine.logprobs[0] == pytest.approx(exact.logprobs[0], abs=0.1)


@pytest.mark.parametrize("weights", ["bfloat16", "int8", "int4"])
def test_narrow_weights_keep_the_guarantee(weights: Any) -> None:
    decoder = prepare_for_inference(decoder_of().to(torch.bfloat16), weights)
    prompts = [torch.randint(3, 61, (length,)).tolist() for length in (3, 40, 18)]
    engine = engine_of(decoder, blocks=9, step_tokens=11)
    told = run(engine, [engine.add(prompt, GREEDY) for prompt in prompts])
    assert told == [alone(decoder, prompt) for prompt in prompts]


def test_bfloat16_weights_give_what_they_would_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the processor multiplies bfloat16 itself, everything is in bfloat16 and this does not hold.
    monkeypatch.setattr(inference, "preferred_dtype", lambda: "float32")
    narrow = decoder_of().to(torch.bfloat16)
    wide = copy.deepcopy(narrow).float()
    prompt = list(range(4, 24))
    first, second = (alone(prepare_for_inference(each), prompt) for each in (narrow, wide))
    assert first == second


def test_lookup_speeds_up_a_repetitive_answer_and_is_counted() -> None:
    decoder = prepare_for_inference(decoder_of())
    speculator = Speculator(PromptLookup())
    speculator.controller = Always(4)
    prompt = [7, 8, 9, 10] * 6
    engine = engine_of(decoder, speculator=speculator)
    request = engine.add(prompt, dataclasses.replace(GREEDY, max_new_tokens=60))
    record = speculator.record(request)
    (told,) = run(engine, [request])
    assert told == alone(decoder, prompt, dataclasses.replace(GREEDY, max_new_tokens=60))
    assert record.proposed == speculator.proposed >= record.accepted == speculator.accepted
    assert engine.counts.steps == 60 - record.accepted


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    engine = engine_of(prepare_for_inference(decoder_of()), blocks=2)
    with pytest.raises(UserError, match="40 tokens, and there is room for 32"):
        engine.add(list(range(40)), GREEDY)
    with pytest.raises(UserError, match="token 61 is outside"):
        engine.add([61], GREEDY)
    with pytest.raises(UserError, match="empty"):
        engine.add([], GREEDY)
    with pytest.raises(UserError, match="no adapter 'x'"):
        engine.add([5], GREEDY, adapter="x")
    assert not engine.has_work
